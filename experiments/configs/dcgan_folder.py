"""DCGAN on a folder of images of your own; with sub-folders as classes, a conditional one.

gan-jax train --config=dcgan_folder --workdir=runs/mine --config.data_dir=DIR
  --config.num_classes=K  for K sub-folders
  --config.augment=ada    for a few thousand images or fewer: adaptive augmentation; or diff, for DiffAugment
"""

from gan_jax import augment, core, data, gans, nets
from gan_jax.runs import MEMORY, Config, network, run_config, run_settings
from gan_jax.runtime import Experiment, image_grid
from gan_jax.types import InvalidInputError


def get_config() -> Config:
    return run_config(
        **MEMORY,
        data_dir="",  # directory of the TFDS data sets
        image_size=64,  # height and width that images are resized to
        channels=3,  # 3 for colour, 1 for grey
        num_classes=0,  # sub-folders, as classes; 0 for none
        batch_size=64,
        steps=50_000,
        steps_per_dispatch=10,
        report_every=100,
        sample_every=1000,
        checkpoint_every=1000,
        latents=100,  # dimensions of the latents
        width=64,  # channels of the networks' widest layers
        learning_rate=2e-4,  # Adam's, of both players
        ema_halflife_images=10_000.0,  # half-life of the averaged generator, in images
        augment="none",  # none, diff (DiffAugment) or ada
        augment_target=0.6,  # mean sign of D(real) that ADA aims at
        augment_speed_images=500_000.0,  # images in which ADA's probability can go 0 to 1
        dtype="float32",  # float32, or bfloat16 for the networks' products
    )


def augmentation(config: Config) -> gans.Augmentation | None:
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


def build(config: Config) -> Experiment:
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
