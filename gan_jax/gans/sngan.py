"""SNGAN."""

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
    """The hinge game against a spectrally normalised discriminator (`nets.ResNetDiscriminator`, or `norm='spectral'`).

    Args:
      generator: `z -> images`, or `(z, label) -> images`; the paper's is `nets.ResNetGenerator`.
      discriminator: `x -> logits`, or `(x, label) -> logits`; its spectral norm is its own, this game adds none.
      prior: of the latents; the paper's is `core.normal(128)`.
      critic_steps: discriminator updates per generator update.
      learning_rate: of both players' Adam, betas 0 and 0.9.
      **options: of `adversarial`, such as `num_classes` for conditional batch norm and the projection of labels.

    Returns:
      The game.

    References:
      Miyato et al., "Spectral Normalization for Generative Adversarial Networks", arXiv:1802.05957, 2018; Miyato and
      Koyama, "cGANs with Projection Discriminator", arXiv:1802.05637, 2018. The authors' code differs in three ways. It
      lets the learning rate fall linearly to 0 over training: `core.adam` keeps one, so pass optimisers, as
      `experiments/configs/sngan_cifar10.py` does. It updates the generator on twice as many fakes as the discriminator
      sees, and with labels drawn at random; here both see one batch's number, with the labels of its reals. And the
      generator moves first in an iteration.
    """
    options = with_adam({"loss": hinge} | options, learning_rate, 0.0, 0.9)
    return adversarial(generator, discriminator, prior, critic_steps=critic_steps, **options)
