"""Unconditional SNGAN with residual networks on CIFAR-10, with the settings of the paper and its authors' code.

The learning rate falls linearly to 0 over the first `decay_steps` iterations; it is constant if `decay_steps` is 0. The
data set is `cifar10_jpeg`, CIFAR-10 after JPEG compression. For the original CIFAR-10, prepared by TFDS, add
--config.dataset=cifar10. As in the paper, no average of the generator is kept; --config.ema_halflife_images=10000 adds
one.

gan-jax train --config=sngan_cifar10 --workdir=runs/sngan_cifar10 \
  --config.data_dir=DIR
"""

import optax

from gan_jax import core, data, gans, nets
from gan_jax.runs import MEMORY, Config, network, run_config, run_settings
from gan_jax.runtime import Experiment, image_grid


def get_config() -> Config:
    return run_config(
        **MEMORY,
        data_dir="",  # directory of the TFDS data sets
        dataset="cifar10_jpeg",  # name of the TFDS data set
        batch_size=64,
        steps=50_000,
        steps_per_dispatch=5,
        report_every=100,
        sample_every=1000,
        checkpoint_every=1000,
        latents=128,  # dimension of the latents
        generator_width=256,  # channels of the generator
        discriminator_width=128,  # channels of the discriminator
        learning_rate=2e-4,  # Adam's learning rate for both players
        decay_steps=50_000,  # iterations until the learning rate is 0; 0: never
        critic_steps=5,  # discriminator updates per iteration
        ema_halflife_images=0.0,  # half-life of the EMA, in images; 0 for no average
        dtype="float32",  # compute dtype of the networks: float32, bfloat16
    )


def optimizer(config: Config, updates: int) -> optax.GradientTransformation:
    """The paper's Adam with linear decay to 0; `updates` is the number of optimiser steps per iteration."""
    adam = core.adam(config.learning_rate, 0.0, 0.9)
    if not config.decay_steps:
        return adam
    # The schedule counts optimiser steps, of which the discriminator makes several in each iteration.
    falling = optax.linear_schedule(1.0, 0.0, config.decay_steps * updates)
    return optax.chain(adam, optax.scale_by_schedule(falling))


def build(config: Config) -> Experiment:
    game = gans.sngan(
        network(nets.ResNetGenerator(32, 3, config.generator_width, dtype=config.dtype), config),
        network(nets.ResNetDiscriminator(config.discriminator_width, dtype=config.dtype), config),
        core.normal(config.latents),
        critic_steps=config.critic_steps,
        generator_optimizer=optimizer(config, 1),
        discriminator_optimizer=optimizer(config, config.critic_steps),
        ema_halflife_images=config.ema_halflife_images or None,
    )
    return Experiment(
        game=game,
        source=lambda: data.tfds_images(config.dataset, data_dir=config.data_dir, labels=False),
        # The metrics' data have labels, which train a classifier; the game is unconditional and takes none.
        reference=lambda: data.tfds_images(config.dataset, data_dir=config.data_dir, labels=True),
        preview=image_grid,
        **run_settings(config),
    )
