"""DCGAN on MNIST as in the paper, with an averaged generator.

python -m experiments.train --config=experiments/configs/dcgan_mnist.py --workdir=runs/dcgan_mnist --config.data_dir=DIR
"""

import ml_collections

from experiments.settings import MEMORY, network, run_config, run_settings
from gan_jax import core, data, gans, nets
from gan_jax.runtime import Experiment, image_grid


def get_config() -> ml_collections.ConfigDict:
    return run_config(
        **MEMORY,
        data_dir="",
        batch_size=64,
        steps=8000,
        steps_per_dispatch=10,
        report_every=100,
        sample_every=1000,
        checkpoint_every=1000,
        latents=100,
        width=32,
        learning_rate=2e-4,
        ema_halflife_images=10_000.0,
        dtype="float32",
    )


def build(config: ml_collections.ConfigDict) -> Experiment:
    game = gans.dcgan(
        network(nets.DCGANGenerator(28, 1, config.width, dtype=config.dtype), config),
        network(nets.DCGANDiscriminator(config.width, dtype=config.dtype), config),
        core.uniform(config.latents),
        learning_rate=config.learning_rate,
        ema_halflife_images=config.ema_halflife_images,
    )
    return Experiment(
        game=game,
        source=lambda: data.tfds_images("mnist", data_dir=config.data_dir, labels=False),
        reference=lambda: data.tfds_images("mnist", data_dir=config.data_dir, labels=True),
        preview=image_grid,
        **run_settings(config),
    )
