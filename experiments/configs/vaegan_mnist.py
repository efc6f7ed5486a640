"""VAE-GAN on MNIST with the decoder, the discriminator, the batch size and the steps of `dcgan_mnist`.

gan-jax train --config=vaegan_mnist --workdir=runs/vaegan_mnist --config.data_dir=DIR

With `--config.authors=True` it is that of the authors' code: minimax, no penalty, RMSProp, simultaneous updates,
and players that rest outside a margin. Their gamma, for a layer of more features, is 5e-5.
"""

import optax

from gan_jax import core, data, gans, nets
from gan_jax.runs import MEMORY, Config, network, run_config, run_settings
from gan_jax.runtime import Experiment, image_grid, side_by_side


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
        authors=False,  # train as the authors' code does
        learning_rate=3e-4,  # learning rate of all networks
        gamma=1e-3,  # weight of the similarity in the decoder's loss
        beta=1.0,  # weight of the KL divergence
        r1_gamma=0.1,  # weight of R1; unused by the authors' code
        ema_halflife_images=10_000.0,  # half-life of the averaged autoencoder, in images
        dtype="float32",  # compute dtype of the networks: float32, bfloat16
    )


def build(config: Config) -> Experiment:
    # With R1, the discriminator's layers must see each image by itself.
    critic = nets.DCGANDiscriminator(
        config.width, norm="batch" if config.authors else "none", dtype=config.dtype, feature_layer=1
    )
    if config.authors:
        # Their rate is 0.02 divided by the batch size of 64, about the default of this config.
        rule = optax.inject_hyperparams(optax.rmsprop)(config.learning_rate, decay=0.9)
        how = {**gans.VAE_GAN_AUTHORS, "generator_optimizer": rule, "discriminator_optimizer": rule}
    else:
        how = {"penalties": (gans.r1(config.r1_gamma),), "learning_rate": config.learning_rate}
    game = gans.vae_gan(
        network(nets.DCGANEncoder(config.latents, config.width, dtype=config.dtype), config),
        network(nets.DCGANGenerator(28, 1, config.width, dtype=config.dtype), config),
        network(critic, config),
        config.latents,
        **how | {"gamma": config.gamma, "beta": config.beta, "ema_halflife_images": config.ema_halflife_images},
    )
    return Experiment(
        game=game,
        source=lambda: data.tfds_images("mnist", data_dir=config.data_dir, labels=False),
        # The metrics' data have labels, which train a classifier; the game is unconditional and takes none.
        reference=lambda: data.tfds_images("mnist", data_dir=config.data_dir, labels=True),
        preview=image_grid,
        previews={"reconstructions": side_by_side(game, "reconstruct")},
        update_rule=core.simultaneous if config.authors else core.alternating,
        **run_settings(config),
    )
