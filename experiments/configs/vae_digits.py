"""A variational autoencoder on the 8x8 digits inside scikit-learn, with the decoder of `digits`; needs no data set.

gan-jax train --config=vae_digits --workdir=runs/vae_digits
"""

from gan_jax import core, data, gans, nets
from gan_jax.runs import MEMORY, Config, network, run_config, run_settings
from gan_jax.runtime import Experiment, image_grid, side_by_side
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
        latents=16,  # dimension of the latents
        width=64,  # channels of the networks' widest layers
        learning_rate=1e-3,  # Adam's learning rate
        beta=1.0,  # weight of the KL divergence
        ema_halflife_images=10_000.0,  # half-life of the averaged autoencoder, in images
        dtype="float32",  # compute dtype of the networks: float32, bfloat16
    )


def sweep() -> Space:
    return {"learning_rate": LogUniform(1e-4, 1e-2), "beta": LogUniform(0.05, 5.0)}


def build(config: Config) -> Experiment:
    game = gans.vae(
        network(nets.DCGANEncoder(config.latents, config.width, dtype=config.dtype), config),
        network(nets.DCGANGenerator(8, 1, config.width, dtype=config.dtype), config),
        config.latents,
        beta=config.beta,
        levels=17,  # the digits have 17 levels of grey
        generator_optimizer=core.adam(config.learning_rate),
        ema_halflife_images=config.ema_halflife_images,
    )
    return Experiment(
        game=game,
        source=lambda: data.digits(labels=False),
        # The metrics' data have labels, which train a classifier; the game is unconditional and takes none.
        reference=lambda: data.digits(labels=True),
        preview=image_grid,
        previews={"reconstructions": side_by_side(game, "reconstruct")},
        **run_settings(config),
    )
