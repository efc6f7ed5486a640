"""WGAN-GP on MNIST, with five critic steps per iteration and layer normalisation in the critic.

gan-jax train --config=wgan_gp_mnist --workdir=runs/wgan_gp_mnist \
  --config.data_dir=DIR
"""

from gan_jax import core, data, gans, nets
from gan_jax.runs import MEMORY, Config, network, run_config, run_settings
from gan_jax.runtime import Experiment, image_grid


def get_config() -> Config:
    return run_config(
        **MEMORY,
        data_dir="",  # directory of the TFDS data sets
        batch_size=64,
        steps=10_000,
        steps_per_dispatch=5,
        report_every=100,
        sample_every=1000,
        checkpoint_every=1000,
        latents=128,  # dimension of the latents
        width=32,  # channels of the networks' widest layers
        learning_rate=1e-4,  # Adam's learning rate for both players
        critic_steps=5,  # discriminator updates per iteration
        gradient_penalty_weight=10.0,  # weight of the gradient penalty
        ema_halflife_images=10_000.0,  # half-life of the averaged generator, in images
        dtype="float32",  # compute dtype of the networks: float32, bfloat16
    )


def build(config: Config) -> Experiment:
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
