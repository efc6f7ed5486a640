"""The GAN of 2014 as in tutorials: multi-layer perceptrons on 28x28 digits, batches of 128, latents of dimension 100.

gan-jax train --config=vanilla_mnist --workdir=runs/vanilla_mnist \
  --config.data_dir=DIR
"""

from gan_jax import core, data, gans, losses, nets
from gan_jax.runs import MEMORY, Config, network, run_config, run_settings
from gan_jax.runtime import Experiment, image_grid
from gan_jax.types import InvalidInputError

_OBJECTIVES = {"non_saturating": losses.non_saturating, "minimax": losses.minimax}


def get_config() -> Config:
    return run_config(
        **MEMORY,
        data_dir="",  # directory of the TFDS data sets
        objective="non_saturating",  # non_saturating, or minimax as in the 2014 paper
        batch_size=128,
        steps=20_000,
        steps_per_dispatch=25,
        report_every=500,
        sample_every=2000,
        checkpoint_every=2000,
        latents=100,  # dimension of the latents
        learning_rate=2e-4,  # Adam's learning rate for both players
        dropout=0.3,  # dropout rate of the discriminator
        dtype="float32",  # compute dtype of the networks: float32, bfloat16
    )


def build(config: Config) -> Experiment:
    if config.objective not in _OBJECTIVES:
        raise InvalidInputError(f"config.objective={config.objective!r}: expected one of {sorted(_OBJECTIVES)}")
    game = gans.vanilla(
        network(nets.MLPGenerator((28, 28, 1), (256, 512, 1024), norm="batch", dtype=config.dtype), config),
        network(nets.MLPDiscriminator((512, 256), config.dropout, dtype=config.dtype), config),
        core.normal(config.latents),
        loss=_OBJECTIVES[config.objective],
        learning_rate=config.learning_rate,
    )
    return Experiment(
        game=game,
        source=lambda: data.tfds_images("mnist", data_dir=config.data_dir, labels=False),
        reference=lambda: data.tfds_images("mnist", data_dir=config.data_dir, labels=True),
        preview=image_grid,
        **run_settings(config),
    )
