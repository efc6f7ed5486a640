"""WGAN with gradient penalty."""

from typing import Any

from gan_jax.gans.adversarial import adversarial, with_adam
from gan_jax.gans.terms import gradient_penalty
from gan_jax.losses import wasserstein
from gan_jax.types import Game, Network, Prior


def wgan_gp(
    generator: Network,
    discriminator: Network,
    prior: Prior,
    *,
    gradient_penalty_weight: float = 10.0,
    critic_steps: int = 5,
    learning_rate: float = 1e-4,
    **options: Any,
) -> Game:
    """Creates the game of WGAN-GP: the Wasserstein loss, with a penalty that keeps the critic's gradient norm near 1.

    Args:
      generator: generator network, `z -> samples`.
      discriminator: critic network, `x -> logits`, without batch norm: the penalty needs the gradient of each example.
      prior: distribution of the latents.
      gradient_penalty_weight: weight of the gradient penalty, lambda in the paper.
      critic_steps: critic updates per generator update.
      learning_rate: learning rate of both players' Adam, betas 0 and 0.9.
      **options: arguments of `adversarial`.

    Returns:
      The game.

    References:
      Gulrajani et al., "Improved Training of Wasserstein GANs", arXiv:1704.00028, 2017, algorithm 1, which uses betas 0
      and 0.9. The authors' code for images uses 0.5 and 0.9.
    """
    options = {"loss": wasserstein, "penalties": (gradient_penalty(gradient_penalty_weight),)} | options
    options = with_adam(options, learning_rate, 0.0, 0.9)
    return adversarial(generator, discriminator, prior, critic_steps=critic_steps, **options)
