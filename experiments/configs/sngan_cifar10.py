"""SNGAN with residual networks on CIFAR-10, unconditional, with the settings of the paper and its authors' code.

The learning rate falls linearly to 0 over the first `decay_steps` iterations (0: it stays). The data set read is
CIFAR-10 after JPEG compression, `cifar10_jpeg`; for the official one, prepared by TFDS, add --config.dataset=cifar10.
The paper averages no generator; --config.ema_halflife_images=10000 does.

python -m experiments.train --config=experiments/configs/sngan_cifar10.py --workdir=runs/sngan_cifar10 \
  --config.data_dir=DIR
"""

import ml_collections
import optax

from experiments.settings import MEMORY, network, run_config, run_settings
from gan_jax import core, data, gans, nets
from gan_jax.runtime import Experiment, image_grid


def get_config() -> ml_collections.ConfigDict:
    return run_config(
        **MEMORY,
        data_dir="",
        dataset="cifar10_jpeg",
        batch_size=64,
        steps=50_000,
        steps_per_dispatch=5,
        report_every=100,
        sample_every=1000,
        checkpoint_every=1000,
        latents=128,
        generator_width=256,
        discriminator_width=128,
        learning_rate=2e-4,
        decay_steps=50_000,
        critic_steps=5,
        ema_halflife_images=0.0,
        dtype="float32",
    )


def optimizer(config: ml_collections.ConfigDict, updates: int) -> optax.GradientTransformation:
    """The paper's Adam, of which an iteration makes so many updates, with a learning rate that falls."""
    adam = core.adam(config.learning_rate, 0.0, 0.9)
    if not config.decay_steps:
        return adam
    falling = optax.linear_schedule(1.0, 0.0, config.decay_steps * updates)
    return optax.chain(adam, optax.scale_by_schedule(falling))


def build(config: ml_collections.ConfigDict) -> Experiment:
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
        reference=lambda: data.tfds_images(config.dataset, data_dir=config.data_dir, labels=True),
        preview=image_grid,
        **run_settings(config),
    )
