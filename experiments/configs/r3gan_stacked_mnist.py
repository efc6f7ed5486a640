"""R3GAN on Stacked-MNIST, which has 1,000 modes, with the paper's schedules and networks of any width.

gan-jax train --config=r3gan_stacked_mnist --workdir=runs/modes \
  --config.data_dir=DIR
  --config.width=768 --config.groups=96 --config.batch_size=512   the sizes of the paper's networks for other data

The paper trains on 10 million images without augmentation; its code does not contain this experiment. Gamma falls from
1 to 0.1, the half-life of the averaged generator rises from 0 to 500,000 images, and the learning rate is constant.
"""

from gan_jax import core, data, gans, nets
from gan_jax.runs import MEMORY, Config, network, run_config, run_settings
from gan_jax.runtime import Experiment, image_grid

_PAPER = gans.R3GAN_SCHEDULES["stacked_mnist"]


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
        width=48,  # channels of the networks' widest layers
        groups=6,  # groups of the 3x3 convolutions
        latents=64,  # dimension of the latents
        gamma_start=_PAPER.gamma[0],  # weight of R1 and R2 at the start
        gamma_end=_PAPER.gamma[1],  # weight of R1 and R2 at the end
        learning_rate=_PAPER.learning_rate[0],  # Adam's learning rate for both players
        ema_halflife_images_end=64_000.0,  # final half-life of the EMA, in images
        schedule_images=1_280_000.0,  # images after which the schedules have ended
        dtype="float32",  # compute dtype of the networks: float32, bfloat16
    )


def build(config: Config) -> Experiment:
    sizes = (config.width,) * 4, (config.groups,) * 4
    game = gans.r3gan(
        network(nets.R3GANGenerator(3, *sizes, dtype=config.dtype), config),
        network(nets.R3GANDiscriminator(*sizes, dtype=config.dtype), config),
        core.normal(config.latents),
        gamma=(config.gamma_start, config.gamma_end),
        learning_rate=(config.learning_rate, config.learning_rate),
        ema_halflife_images=(0.0, config.ema_halflife_images_end),
        schedule_images=config.schedule_images,
    )
    return Experiment(
        game=game,
        source=lambda: data.stacked(data.tfds_images("mnist", data_dir=config.data_dir, labels=True), 32),
        preview=image_grid,
        **run_settings(config),
    )
