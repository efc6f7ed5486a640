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
    """The Wasserstein game with the critic's gradient norm held near one; the critic must not have batch norm.

    Args:
      generator: `z -> samples`.
      discriminator: the critic, `x -> logits`.
      prior: of the latents.
      gradient_penalty_weight: lambda of the paper.
      critic_steps: critic updates per generator update.
      learning_rate: of both players' Adam, betas 0 and 0.9.
      **options: of `adversarial`.

    Returns:
      The game.

    References:
      Gulrajani et al., "Improved Training of Wasserstein GANs", arXiv:1704.00028, 2017, algorithm 1. The authors' code
      for images uses betas 0.5 and 0.9, the algorithm in the paper 0 and 0.9.
    """
    options = {"loss": wasserstein, "penalties": (gradient_penalty(gradient_penalty_weight),)} | options
    options = with_adam(options, learning_rate, 0.0, 0.9)
    return adversarial(generator, discriminator, prior, critic_steps=critic_steps, **options)
