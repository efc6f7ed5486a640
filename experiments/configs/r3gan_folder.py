"""R3GAN on a folder of your own images, with the networks of one of the paper's configurations.

gan-jax train --config=r3gan_folder --workdir=runs/mine --config.data_dir=DIR \
  --config.preset=ffhq64
  --config.preset=NAME         cifar10 or imagenet32 (32 pixels), ffhq64 or imagenet64 (64), ffhq256 (256)
  --config.num_classes=K       for K sub-folders, one per class
  --config.gamma_start=G --config.gamma_end=G/10   the best weight of the penalties depends on the data: try several
  --config.dtype=bfloat16      the finest stages in half precision, as in the authors' code

`--dry_run` shows the parameters and the memory that a run needs, and trains nothing.
"""

from gan_jax import augment, core, data, gans, nets
from gan_jax.runs import MEMORY, Config, network, run_config, run_settings
from gan_jax.runtime import Experiment, image_grid
from gan_jax.types import InvalidInputError


def get_config() -> Config:
    return run_config(
        **MEMORY,
        data_dir="",  # directory of the images
        preset="ffhq64",  # networks of the paper: cifar10, ffhq64, ...
        num_classes=0,  # number of sub-folders as classes; 0: no labels
        check_images=True,  # decode all images at the start, to find broken ones
        batch_size=256,
        steps=100_000,
        steps_per_dispatch=10,
        report_every=100,
        sample_every=2000,
        checkpoint_every=2000,
        gamma_start=2.0,  # weight of R1 and R2 at the start
        gamma_end=0.2,  # weight of R1 and R2 at the end
        ema_halflife_images_end=500_000.0,  # final half-life of the EMA, in images
        augment_probability_end=0.3,  # probability of each augmentation at the end
        schedule_images=20_000_000.0,  # images after which the schedules have ended
        dtype="float32",  # dtype of the finest stages: float32 or bfloat16
    )


def build(config: Config) -> Experiment:
    if config.preset not in nets.R3GAN_PRESETS:
        raise InvalidInputError(f"preset={config.preset!r}: expected one of {', '.join(nets.R3GAN_PRESETS)}")
    preset, classes = nets.R3GAN_PRESETS[config.preset], config.num_classes or None
    options = {"num_classes": classes, "dtype": config.dtype, "fine_stages": preset.bfloat16_stages}
    sizes, embedding = (preset.widths, preset.groups), preset.embedding
    game = gans.r3gan(
        network(nets.R3GANGenerator(3, *sizes, embedding=embedding[0], **options), config),
        network(nets.R3GANDiscriminator(*sizes, embedding=embedding[1], **options), config),
        core.normal(64),
        gamma=(config.gamma_start, config.gamma_end),
        ema_halflife_images=(0.0, config.ema_halflife_images_end),
        augment=gans.Augmentation(augment.ada_pipeline(gans.R3GAN_OPERATIONS), 0.0),
        augment_probability=(0.0, config.augment_probability_end),
        schedule_images=config.schedule_images,
        num_classes=classes,
    )
    size = 4 * 2 ** (len(preset.widths) - 1)  # pixels: the coarsest stage is 4x4, and each further one doubles it

    def images(check: bool = False) -> data.Source:
        return data.image_folder(config.data_dir, image_size=size, labels=classes is not None, check=check)

    return Experiment(
        game=game,
        source=lambda: data.transformed(images(config.check_images), data.flip()),
        reference=images,
        preview=image_grid,
        **run_settings(config),
    )
