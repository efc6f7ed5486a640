"""GANs: one file per variant, each with a factory that takes networks and returns a `Game`."""

from gan_jax.gans import heads, terms
from gan_jax.gans.adversarial import Augmentation, adversarial
from gan_jax.gans.cgan import cgan
from gan_jax.gans.cut import FASTCUT, cut
from gan_jax.gans.cyclegan import cyclegan
from gan_jax.gans.dcgan import dcgan
from gan_jax.gans.decay import linear_decay
from gan_jax.gans.inversion import invert
from gan_jax.gans.mocogan import mocogan
from gan_jax.gans.pix2pix import pix2pix
from gan_jax.gans.r3gan import R3GAN_OPERATIONS, R3GAN_SCHEDULES, R3GANSchedule, r3gan
from gan_jax.gans.sngan import sngan
from gan_jax.gans.standard import sampler, sampling_weights, standard_game
from gan_jax.gans.stylegan2 import stylegan2
from gan_jax.gans.terms import gradient_penalty, penalty, r1, r2
from gan_jax.gans.tokenizer import TOKENIZER_RECIPES, VQ_WEIGHTS, FrozenFeatures, TokenizerRecipe, tokenizer
from gan_jax.gans.vae import BERNOULLI, GAUSSIAN, Likelihood, vae
from gan_jax.gans.vae_gan import VAE_GAN_AUTHORS, vae_gan
from gan_jax.gans.vanilla import vanilla
from gan_jax.gans.wgan_gp import wgan_gp

__all__ = [
    "BERNOULLI",
    "FASTCUT",
    "GAUSSIAN",
    "R3GAN_OPERATIONS",
    "R3GAN_SCHEDULES",
    "TOKENIZER_RECIPES",
    "VAE_GAN_AUTHORS",
    "VQ_WEIGHTS",
    "Augmentation",
    "FrozenFeatures",
    "Likelihood",
    "R3GANSchedule",
    "TokenizerRecipe",
    "adversarial",
    "cgan",
    "cut",
    "cyclegan",
    "dcgan",
    "gradient_penalty",
    "heads",
    "invert",
    "linear_decay",
    "mocogan",
    "penalty",
    "pix2pix",
    "r1",
    "r2",
    "r3gan",
    "sampler",
    "sampling_weights",
    "sngan",
    "standard_game",
    "stylegan2",
    "terms",
    "tokenizer",
    "vae",
    "vae_gan",
    "vanilla",
    "wgan_gp",
]
