"""DCGAN."""

from typing import Any

from gan_jax.gans.adversarial import adversarial, with_adam
from gan_jax.losses import GANLoss, non_saturating
from gan_jax.types import Game, Network, Prior


def dcgan(
    generator: Network,
    discriminator: Network,
    prior: Prior,
    *,
    loss: GANLoss = non_saturating,
    learning_rate: float = 2e-4,
    ema_halflife_images: float | None = 10_000,
    **options: Any,
) -> Game:
    """Creates the game of DCGAN: the non-saturating loss with DCGAN's optimiser settings.

    Args:
      generator: generator network, `z -> images`, such as `nets.DCGANGenerator`.
      discriminator: discriminator network, `x -> logits`, such as `nets.DCGANDiscriminator`.
      prior: distribution of the latents; the paper's is `core.uniform(100)`.
      loss: adversarial loss, any pair of `gan_jax.losses`.
      learning_rate: learning rate of both players' Adam, betas 0.5 and 0.999.
      ema_halflife_images: half-life of the averaged generator in images; None for no average, as in the paper.
      **options: arguments of `adversarial`.

    Returns:
      The game.

    References:
      Radford, Metz and Chintala, "Unsupervised Representation Learning with Deep Convolutional Generative Adversarial
      Networks", arXiv:1511.06434, 2015.
    """
    options = with_adam(options, learning_rate, 0.5)
    return adversarial(generator, discriminator, prior, loss=loss, ema_halflife_images=ema_halflife_images, **options)
