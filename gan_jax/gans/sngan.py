"""SNGAN: the hinge loss with a spectrally normalised discriminator."""

from typing import Any

from gan_jax.gans.adversarial import adversarial, with_adam
from gan_jax.losses import hinge
from gan_jax.types import Game, Network, Prior


def sngan(
    generator: Network,
    discriminator: Network,
    prior: Prior,
    *,
    critic_steps: int = 5,
    learning_rate: float = 2e-4,
    **options: Any,
) -> Game:
    """Creates the game of SNGAN: the hinge loss with a spectrally normalised discriminator.

    Args:
      generator: generator network, `z -> images`, or `(z, label) -> images`; the paper's is `nets.ResNetGenerator`.
      discriminator: discriminator network, `x -> logits`, or `(x, label) -> logits`. It must apply spectral
        normalisation itself, because the game adds none: `nets.ResNetDiscriminator`, or a network with
        `norm='spectral'`.
      prior: distribution of the latents; the paper's is `core.normal(128)`.
      critic_steps: discriminator updates per generator update.
      learning_rate: learning rate of both players' Adam, betas 0 and 0.9.
      **options: arguments of `adversarial`, such as `num_classes` for networks with conditional batch norm and the
        projection of labels.

    Returns:
      The game.

    References:
      Miyato et al., "Spectral Normalization for Generative Adversarial Networks", arXiv:1802.05957, 2018; Miyato and
      Koyama, "cGANs with Projection Discriminator", arXiv:1802.05637, 2018. The authors' code differs in three ways.
      (1) It decays the learning rate linearly to 0 over training. Here the learning rate is constant; to decay it, pass
      optimisers, as `experiments/configs/sngan_cifar10.py` does. (2) It updates the generator on twice as many fakes as
      the discriminator sees, with random labels. Here both see as many fakes as the batch has reals, with the labels of
      these reals. (3) It updates the generator first in an iteration; here the discriminator is first.
    """
    options = with_adam({"loss": hinge} | options, learning_rate, 0.0, 0.9)
    return adversarial(generator, discriminator, prior, critic_steps=critic_steps, **options)
