"""DCGAN on the 8x8 digits inside scikit-learn: the default config, which needs no data set.

gan-jax train --workdir=runs/digits
"""

from gan_jax import core, data, gans, nets
from gan_jax.runs import MEMORY, Config, network, run_config, run_settings
from gan_jax.runtime import Experiment, image_grid
from gan_jax.sweep.space import LogUniform, Space


def get_config() -> Config:
    return run_config(
        **MEMORY,
        batch_size=64,
        steps=6000,
        steps_per_dispatch=50,
        report_every=200,
        sample_every=1000,
        checkpoint_every=1000,
        latents=64,  # dimension of the latents
        width=64,  # channels of the networks' widest layers
        learning_rate=5e-4,  # Adam's learning rate for both players
        r1_gamma=0.02,  # weight of R1, the penalty at reals
        ema_halflife_images=10_000.0,  # half-life of the averaged generator, in images
        dtype="float32",  # compute dtype of the networks: float32, bfloat16
    )


def sweep() -> Space:
    return {"learning_rate": LogUniform(5e-5, 5e-3), "r1_gamma": LogUniform(0.002, 2.0)}


def build(config: Config) -> Experiment:
    game = gans.dcgan(
        network(nets.DCGANGenerator(8, 1, config.width, dtype=config.dtype), config),
        network(nets.DCGANDiscriminator(config.width, norm="none", dtype=config.dtype), config),
        core.normal(config.latents),
        penalties=(gans.r1(config.r1_gamma),),
        learning_rate=config.learning_rate,
        ema_halflife_images=config.ema_halflife_images,
    )
    return Experiment(
        game=game,
        source=lambda: data.digits(labels=False),
        # The metrics' data have labels, which train a classifier; the game is unconditional and takes none.
        reference=lambda: data.digits(labels=True),
        preview=image_grid,
        **run_settings(config),
    )
