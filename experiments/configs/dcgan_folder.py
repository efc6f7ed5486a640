"""DCGAN on a folder of images of your own; with sub-folders as classes, a conditional one.

python -m experiments.train --config=experiments/configs/dcgan_folder.py --workdir=runs/mine --config.data_dir=DIR
  --config.num_classes=K  for K sub-folders
  --config.augment=ada    for a few thousand images or fewer: adaptive augmentation; or diff, for DiffAugment
"""

import ml_collections

from experiments.settings import MEMORY, network, run_config, run_settings
from gan_jax import augment, core, data, gans, nets
from gan_jax.runtime import Experiment, image_grid
from gan_jax.types import InvalidInputError


def get_config() -> ml_collections.ConfigDict:
    return run_config(
        **MEMORY,
        data_dir="",
        image_size=64,
        channels=3,
        num_classes=0,
        batch_size=64,
        steps=50_000,
        steps_per_dispatch=10,
        report_every=100,
        sample_every=1000,
        checkpoint_every=1000,
        latents=100,
        width=64,
        learning_rate=2e-4,
        ema_halflife_images=10_000.0,
        augment="none",
        augment_target=0.6,
        augment_speed_images=500_000.0,
        dtype="float32",
    )


def augmentation(config: ml_collections.ConfigDict) -> gans.Augmentation | None:
    choices = {
        "none": None,
        "diff": gans.Augmentation(augment.diff_augment()),
        "ada": gans.Augmentation(
            augment.ada_pipeline(), 0.0, target=config.augment_target, speed_images=config.augment_speed_images
        ),
    }
    if config.augment not in choices:
        raise InvalidInputError(f"augment={config.augment!r}: expected one of {', '.join(choices)}")
    return choices[config.augment]


def build(config: ml_collections.ConfigDict) -> Experiment:
    classes = config.num_classes or None
    game = gans.dcgan(
        network(
            nets.DCGANGenerator(
                config.image_size, config.channels, config.width, num_classes=classes, dtype=config.dtype
            ),
            config,
        ),
        network(nets.DCGANDiscriminator(config.width, num_classes=classes, dtype=config.dtype), config),
        core.normal(config.latents),
        num_classes=classes,
        augment=augmentation(config),
        learning_rate=config.learning_rate,
        ema_halflife_images=config.ema_halflife_images,
    )
    return Experiment(
        game=game,
        source=lambda: data.image_folder(
            config.data_dir, image_size=config.image_size, labels=classes is not None, channels=config.channels
        ),
        preview=image_grid,
        **run_settings(config),
    )
