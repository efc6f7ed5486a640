"""Stacked-MNIST, a thousand modes: R3GAN's game on a small residual network without normalisation.

python -m experiments.train --config=experiments/configs/stacked_mnist.py --workdir=runs/stacked --config.data_dir=DIR
  --config.loss=non_saturating   in place of relativistic_pairing
  --config.r2_gamma=0            R1 alone

Huang et al., "The GAN is dead; long live the GAN! A Modern GAN Baseline", arXiv:2501.05441, 2025: both penalties at
every step, Adam without momentum. The paper trains with batches of 512 on 10 million images, gamma from 1 down to 0.1
and an average that begins at 0; here everything is constant.
"""

import ml_collections

from experiments.settings import MEMORY, network, run_config, run_settings
from gan_jax import core, data, gans, losses, nets
from gan_jax.runtime import Experiment, image_grid
from gan_jax.types import InvalidInputError

_SIZE = 32
_LOSSES = {"relativistic_pairing": losses.relativistic_pairing, "non_saturating": losses.non_saturating}


def get_config() -> ml_collections.ConfigDict:
    return run_config(
        **MEMORY,
        data_dir="",
        batch_size=64,
        steps=20_000,
        steps_per_dispatch=10,
        report_every=500,
        sample_every=5000,
        checkpoint_every=5000,
        loss="relativistic_pairing",
        latents=64,
        width=32,
        learning_rate=2e-4,
        r1_gamma=1.0,
        r2_gamma=1.0,
        ema_halflife_images=20_000.0,
        dtype="float32",
    )


def build(config: ml_collections.ConfigDict) -> Experiment:
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
