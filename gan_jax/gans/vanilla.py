"""The original GAN (2014)."""

from typing import Any

from gan_jax.gans.adversarial import adversarial, with_adam
from gan_jax.losses import GANLoss, non_saturating
from gan_jax.types import Game, Network, Prior


def vanilla(
    generator: Network,
    discriminator: Network,
    prior: Prior,
    *,
    loss: GANLoss = non_saturating,
    learning_rate: float = 2e-4,
    **options: Any,
) -> Game:
    """Creates the game of the original GAN: a generator and a discriminator, updated in alternation.

    The paper's networks are multi-layer perceptrons.

    Args:
      generator: generator network, `z -> samples`.
      discriminator: discriminator network, `x -> logits`.
      prior: distribution of the latents.
      loss: adversarial loss: `losses.non_saturating`, which the paper trained with, or `losses.minimax`, which it
        analyses.
      learning_rate: learning rate of both players' Adam, betas 0.5 and 0.999 (the paper used momentum SGD).
      **options: arguments of `adversarial`.

    Returns:
      The game.

    References:
      Goodfellow et al., "Generative Adversarial Nets", arXiv:1406.2661, 2014.
    """
    options = with_adam(options, learning_rate, 0.5)
    return adversarial(generator, discriminator, prior, loss=loss, **options)
