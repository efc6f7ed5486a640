"""A small R3GAN on the 8x8 digits inside scikit-learn; needs no data set.

gan-jax train --config=r3gan_digits --workdir=runs/r3gan_digits

Learning rate and gamma were chosen among eleven pairs by the metric, for a run that takes as long as one of `digits`.
"""

from gan_jax import core, data, gans, nets
from gan_jax.runs import MEMORY, Config, network, run_config, run_settings
from gan_jax.runtime import Experiment, image_grid
from gan_jax.sweep.space import LogUniform, Space


def get_config() -> Config:
    return run_config(
        **MEMORY,
        batch_size=64,
        steps=3000,
        steps_per_dispatch=50,
        report_every=200,
        sample_every=1000,
        checkpoint_every=1000,
        width=16,  # channels of the networks' widest layers
        groups=4,  # groups of the 3x3 convolutions
        blocks=1,  # residual blocks per stage
        latents=32,  # dimension of the latents
        gamma_start=2.0,  # weight of R1 and R2 at the start
        gamma_end=0.2,  # weight of R1 and R2 at the end
        learning_rate_start=1.2e-2,  # Adam's learning rate at the start
        learning_rate_end=1e-3,  # Adam's learning rate at the end
        ema_halflife_images_end=10_000.0,  # final half-life of the EMA, in images
        schedule_images=192_000.0,  # images after which the schedules have ended
        dtype="float32",  # compute dtype of the networks: float32, bfloat16
    )


def sweep() -> Space:
    return {"gamma_start": LogUniform(0.2, 10.0), "learning_rate_start": LogUniform(1e-3, 3e-2)}


def build(config: Config) -> Experiment:
    sizes = (config.width,) * 2, (config.groups,) * 2, config.blocks
    game = gans.r3gan(
        network(nets.R3GANGenerator(1, *sizes, dtype=config.dtype), config),
        network(nets.R3GANDiscriminator(*sizes, dtype=config.dtype), config),
        core.normal(config.latents),
        gamma=(config.gamma_start, config.gamma_end),
        learning_rate=(config.learning_rate_start, config.learning_rate_end),
        ema_halflife_images=(0.0, config.ema_halflife_images_end),
        schedule_images=config.schedule_images,
    )
    return Experiment(
        game=game,
        source=lambda: data.digits(labels=False),
        reference=lambda: data.digits(labels=True),
        preview=image_grid,
        **run_settings(config),
    )
