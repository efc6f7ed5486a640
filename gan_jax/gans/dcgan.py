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
    """The non-saturating game with DCGAN's optimiser settings; use `nets.DCGANGenerator` and `nets.DCGANDiscriminator`.

    Args:
      generator: `z -> images`.
      discriminator: `x -> logits`.
      prior: of the latents; the paper's is `core.uniform(100)`.
      loss: any of `gan_jax.losses`.
      learning_rate: of both players' Adam, betas 0.5 and 0.999.
      ema_halflife_images: of the averaged generator, which the paper did not have; None for none.
      **options: of `adversarial`.

    Returns:
      The game.

    References:
      Radford, Metz and Chintala, "Unsupervised Representation Learning with Deep Convolutional Generative Adversarial
      Networks", arXiv:1511.06434, 2015.
    """
    options = with_adam(options, learning_rate, 0.5)
    return adversarial(generator, discriminator, prior, loss=loss, ema_halflife_images=ema_halflife_images, **options)
