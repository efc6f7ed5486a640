"""R3GAN's loss on Stacked-MNIST, which has 1,000 modes, with small residual networks without normalisation.

gan-jax train --config=stacked_mnist --workdir=runs/stacked --config.data_dir=DIR
  --config.loss=non_saturating   instead of relativistic_pairing
  --config.r2_gamma=0            only R1, the penalty at reals

Huang et al., "The GAN is dead; long live the GAN! A Modern GAN Baseline", arXiv:2501.05441, 2025: both penalties in
every update, Adam without momentum. The paper trains on 10 million images in batches of 512; gamma falls from 1 to 0.1,
and the half-life of the averaged generator rises from 0. Here gamma and `ema_halflife_images` are constant.
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
        loss="relativistic_pairing",  # relativistic_pairing or non_saturating
        latents=64,  # dimension of the latents
        width=32,  # channels of the networks' widest layers
        learning_rate=2e-4,  # Adam's learning rate for both players
        r1_gamma=1.0,  # weight of R1, the penalty at reals
        r2_gamma=1.0,  # weight of R2, the penalty at fakes
        ema_halflife_images=20_000.0,  # half-life of the averaged generator, in images
        dtype="float32",  # compute dtype of the networks: float32, bfloat16
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
