"""Games: one file per variant, each exporting one factory that takes networks and returns a `Game`."""

from gan_jax.gans.adversarial import Augmentation, Penalty, adversarial, gradient_penalty, r1, r2
from gan_jax.gans.cgan import cgan
from gan_jax.gans.cyclegan import cyclegan
from gan_jax.gans.dcgan import dcgan
from gan_jax.gans.sngan import sngan
from gan_jax.gans.stylegan2 import stylegan2
from gan_jax.gans.vanilla import vanilla
from gan_jax.gans.wgan_gp import wgan_gp

__all__ = [
    "Augmentation",
    "Penalty",
    "adversarial",
    "cgan",
    "cyclegan",
    "dcgan",
    "gradient_penalty",
    "r1",
    "r2",
    "sngan",
    "stylegan2",
    "vanilla",
    "wgan_gp",
]
