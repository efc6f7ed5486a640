"""A variational autoencoder on MNIST with the decoder, the batch size and the steps of `dcgan_mnist`.

gan-jax train --config=vae_mnist --workdir=runs/vae_mnist --config.data_dir=DIR

With `--config.likelihood=bernoulli` the digits are binarised, each time with other draws: a pixel is white with the
probability of its grey value.
"""

import jax
import jax.numpy as jnp

from gan_jax import core, data, gans, nets
from gan_jax.runs import MEMORY, Config, network, run_config, run_settings
from gan_jax.runtime import Experiment, image_grid, side_by_side
from gan_jax.types import InvalidInputError


def get_config() -> Config:
    return run_config(
        **MEMORY,
        data_dir="",  # directory of the TFDS data sets
        batch_size=64,
        steps=8000,
        steps_per_dispatch=10,
        report_every=100,
        sample_every=1000,
        checkpoint_every=1000,
        latents=100,  # dimension of the latents
        width=32,  # channels of the networks' widest layers
        likelihood="gaussian",  # distribution of the pixels: gaussian, bernoulli
        learning_rate=1e-3,  # Adam's learning rate
        beta=1.0,  # weight of the KL divergence
        ema_halflife_images=10_000.0,  # half-life of the averaged autoencoder, in images
        dtype="float32",  # compute dtype of the networks: float32, bfloat16
    )


def binarized(key, batch):
    """Draws each pixel as -1 or 1, with the grey value as its mean."""
    white = jax.random.bernoulli(key, (batch["real"] + 1.0) / 2.0)
    return batch | {"real": jnp.where(white, 1.0, -1.0)}


def build(config: Config) -> Experiment:
    binary = config.likelihood == "bernoulli"
    if not binary and config.likelihood != "gaussian":
        raise InvalidInputError(f"likelihood={config.likelihood!r}: expected 'gaussian' or 'bernoulli'")
    game = gans.vae(
        network(nets.DCGANEncoder(config.latents, config.width, dtype=config.dtype), config),
        network(nets.DCGANGenerator(28, 1, config.width, dtype=config.dtype, bounded=not binary), config),
        config.latents,
        likelihood=gans.BERNOULLI if binary else gans.GAUSSIAN,
        beta=config.beta,
        levels=None if binary else 256,
        generator_optimizer=core.adam(config.learning_rate),
        ema_halflife_images=config.ema_halflife_images,
    )

    def source() -> data.Source:
        images = data.tfds_images("mnist", data_dir=config.data_dir, labels=False)
        return data.transformed(images, binarized) if binary else images

    return Experiment(
        game=game,
        source=source,
        # The metrics' data have labels, which train a classifier; the game is unconditional and takes none.
        reference=lambda: data.tfds_images("mnist", data_dir=config.data_dir, labels=True),
        preview=image_grid,
        previews={"reconstructions": side_by_side(game, "reconstruct")},
        **run_settings(config),
    )
