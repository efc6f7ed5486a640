"""Class-conditional R3GAN on CIFAR-10 with the networks, schedules and augmentation of the paper and its code.

gan-jax train --config=r3gan_cifar10 --workdir=runs/r3gan --config.data_dir=DIR
  --config.dtype=bfloat16      the finest three stages in half precision, as in the authors' code
  --config.conditional=False   an unconditional game, without labels
  --config.width=96 --config.groups=12   small networks, for a few cores

The data set is `cifar10_jpeg`, CIFAR-10 after JPEG compression. For the original CIFAR-10, prepared by TFDS, add
--config.dataset=cifar10.
"""

from gan_jax import augment, core, data, gans, nets
from gan_jax.runs import MEMORY, Config, network, run_config, run_settings
from gan_jax.runtime import Experiment, image_grid

_PAPER = gans.R3GAN_SCHEDULES["cifar10"]


def get_config() -> Config:
    return run_config(
        **MEMORY,
        data_dir="",  # directory of the TFDS data sets
        dataset="cifar10_jpeg",  # name of the TFDS data set
        conditional=True,  # whether both networks get the labels
        batch_size=_PAPER.batch_size,
        steps=488_000,
        steps_per_dispatch=10,
        report_every=100,
        sample_every=2000,
        checkpoint_every=2000,
        width=768,  # channels of the networks' widest layers
        groups=96,  # groups of the 3x3 convolutions
        latents=64,  # dimension of the latents
        gamma_start=_PAPER.gamma[0],  # weight of R1 and R2 at the start
        gamma_end=_PAPER.gamma[1],  # weight of R1 and R2 at the end
        learning_rate_start=_PAPER.learning_rate[0],  # Adam's learning rate at the start
        learning_rate_end=_PAPER.learning_rate[1],  # Adam's learning rate at the end
        ema_halflife_images_end=_PAPER.ema_halflife_images[1],  # final half-life of the EMA, in images
        augment_probability_end=_PAPER.augment_probability[1],  # probability of each augmentation at the end
        schedule_images=_PAPER.schedule_images,  # images after which the schedules have ended
        dtype="float32",  # dtype of the finest stages: float32 or bfloat16
    )


def build(config: Config) -> Experiment:
    classes = 10 if config.conditional else None
    sizes = (config.width,) * 4, (config.groups,) * 4
    options = {
        "num_classes": classes,
        "dtype": config.dtype,
        "fine_stages": nets.R3GAN_PRESETS["cifar10"].bfloat16_stages,
    }
    game = gans.r3gan(
        network(nets.R3GANGenerator(3, *sizes, **options), config),
        network(nets.R3GANDiscriminator(*sizes, embedding=config.width, **options), config),
        core.normal(config.latents),
        gamma=(config.gamma_start, config.gamma_end),
        learning_rate=(config.learning_rate_start, config.learning_rate_end),
        ema_halflife_images=(0.0, config.ema_halflife_images_end),
        augment=gans.Augmentation(augment.ada_pipeline(gans.R3GAN_OPERATIONS), 0.0),
        augment_probability=(0.0, config.augment_probability_end),
        schedule_images=config.schedule_images,
        num_classes=classes,
    )

    def images(labels: bool) -> data.Source:
        return data.tfds_images(config.dataset, data_dir=config.data_dir, labels=labels)

    return Experiment(
        game=game,
        source=lambda: data.transformed(images(config.conditional), data.flip()),
        reference=lambda: images(labels=True),
        preview=image_grid,
        **run_settings(config),
    )
