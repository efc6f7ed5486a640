"""WGAN-GP on MNIST: five critic steps, layer norm in the critic.

python -m experiments.train --config=experiments/configs/wgan_gp_mnist.py --workdir=runs/wgan_gp_mnist \
  --config.data_dir=DIR
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
        steps=10_000,
        steps_per_dispatch=5,
        report_every=100,
        sample_every=1000,
        checkpoint_every=1000,
        latents=128,
        width=32,
        learning_rate=1e-4,
        critic_steps=5,
        gradient_penalty_weight=10.0,
        ema_halflife_images=10_000.0,
        dtype="float32",
    )


def build(config: ml_collections.ConfigDict) -> Experiment:
    game = gans.wgan_gp(
        network(nets.DCGANGenerator(28, 1, config.width, dtype=config.dtype), config),
        network(nets.DCGANDiscriminator(config.width, norm="layer", dtype=config.dtype), config),
        core.normal(config.latents),
        gradient_penalty_weight=config.gradient_penalty_weight,
        critic_steps=config.critic_steps,
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
