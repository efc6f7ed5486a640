"""Stacked-MNIST, a thousand modes: R3GAN's game on a small residual network without normalisation.

gan-jax train --config=stacked_mnist --workdir=runs/stacked --config.data_dir=DIR
  --config.loss=non_saturating   in place of relativistic_pairing
  --config.r2_gamma=0            R1 alone

Huang et al., "The GAN is dead; long live the GAN! A Modern GAN Baseline", arXiv:2501.05441, 2025: both penalties at
every step, Adam without momentum. The paper trains with batches of 512 on 10 million images, gamma from 1 down to 0.1
and an average that begins at 0; here everything is constant.
"""

from gan_jax import core, data, gans, losses, nets
from gan_jax.runs import MEMORY, Config, network, run_config, run_settings
from gan_jax.runtime import Experiment, image_grid
from gan_jax.types import InvalidInputError

_SIZE = 32
_LOSSES = {"relativistic_pairing": losses.relativistic_pairing, "non_saturating": losses.non_saturating}


def get_config() -> Config:
    return run_config(
        **MEMORY,
        data_dir="",  # directory of the TFDS data sets
        batch_size=64,
        steps=20_000,
        steps_per_dispatch=10,
        report_every=500,
        sample_every=5000,
        checkpoint_every=5000,
        loss="relativistic_pairing",  # name of a pair in gan_jax.losses
        latents=64,  # dimensions of the latents
        width=32,  # channels of the networks' widest layers
        learning_rate=2e-4,  # Adam's, of both players
        r1_gamma=1.0,  # weight of R1, the penalty at reals
        r2_gamma=1.0,  # weight of R2, the penalty at fakes
        ema_halflife_images=20_000.0,  # half-life of the averaged generator, in images
        dtype="float32",  # float32, or bfloat16 for the networks' products
    )


def build(config: Config) -> Experiment:
    if config.loss not in _LOSSES:
        raise InvalidInputError(f"loss={config.loss!r}: expected one of {', '.join(_LOSSES)}")
    penalties = [make(gamma) for make, gamma in ((gans.r1, config.r1_gamma), (gans.r2, config.r2_gamma)) if gamma]
    game = gans.adversarial(
        network(nets.ResNetGenerator(_SIZE, 3, config.width, norm="none", dtype=config.dtype), config),
        network(nets.ResNetDiscriminator(config.width, norm="none", dtype=config.dtype), config),
        core.normal(config.latents),
        loss=_LOSSES[config.loss],
        penalties=penalties,
        generator_optimizer=core.adam(config.learning_rate, 0.0, 0.99),
        discriminator_optimizer=core.adam(config.learning_rate, 0.0, 0.99),
        ema_halflife_images=config.ema_halflife_images,
    )
    return Experiment(
        game=game,
        source=lambda: data.stacked(data.tfds_images("mnist", data_dir=config.data_dir, labels=True), _SIZE),
        preview=image_grid,
        **run_settings(config),
    )
