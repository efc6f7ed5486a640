"""DCGAN on a folder of your own images; class-conditional if the classes are sub-folders.

gan-jax train --config=dcgan_folder --workdir=runs/mine --config.data_dir=DIR
  --config.num_classes=K  for K sub-folders, one per class
  --config.augment=ada    adaptive augmentation, for a few thousand images or fewer; diff is DiffAugment
"""

from gan_jax import augment, core, data, gans, nets
from gan_jax.runs import MEMORY, Config, network, run_config, run_settings
from gan_jax.runtime import Experiment, image_grid
from gan_jax.types import InvalidInputError


def get_config() -> Config:
    return run_config(
        **MEMORY,
        data_dir="",  # directory of the images
        image_size=64,  # height and width of the images after resizing
        channels=3,  # 3 for colour, 1 for grey
        num_classes=0,  # number of sub-folders as classes; 0: no labels
        check_images=True,  # decode all images at the start, to find broken ones
        batch_size=64,
        steps=50_000,
        steps_per_dispatch=10,
        report_every=100,
        sample_every=1000,
        checkpoint_every=1000,
        latents=100,  # dimension of the latents
        width=64,  # channels of the networks' widest layers
        learning_rate=2e-4,  # Adam's learning rate for both players
        ema_halflife_images=10_000.0,  # half-life of the averaged generator, in images
        augment="none",  # augmentation: none, diff (DiffAugment) or ada
        augment_target=0.6,  # mean sign of D(real) that ADA aims at
        augment_speed_images=500_000.0,  # images in which ADA can move p from 0 to 1
        dtype="float32",  # compute dtype of the networks: float32, bfloat16
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
            config.data_dir,
            image_size=config.image_size,
            labels=classes is not None,
            channels=config.channels,
            check=config.check_images,
        ),
        preview=image_grid,
        **run_settings(config),
    )
