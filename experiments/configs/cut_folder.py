"""CUT or FastCUT on two folders of your own images that are no pairs, with the paper's networks and schedule.

gan-jax train --config=cut_folder --workdir=runs/mine --config.data_dir=DIR
  --config.fast=True --config.constant_images=150000 --config.decay_images=50000 --config.steps=200000   FastCUT

DIR has `trainA`, `trainB`, `testA` and `testB`; A is translated to B. The steps are for 1,000 images in the larger
domain: 200 epochs, and 200 with a falling learning rate.
"""

from gan_jax import data, gans, nets
from gan_jax.runs import MEMORY, Config, network, run_config, run_settings
from gan_jax.runtime import Experiment, image_grid, side_by_side


def get_config() -> Config:
    return run_config(
        **MEMORY,
        data_dir="",  # directory of the two domains
        image_size=256,  # height and width of the images: a multiple of 4
        load_size=286,  # height and width before the random crop
        channels=3,  # 3 for colour, 1 for grey
        fast=False,  # FastCUT: no identity loss, and mirrored images
        blocks=9,  # residual blocks of the generator: at least 5
        width=64,  # channels of the networks' first layers
        patches=256,  # places that are compared in each layer
        batch_size=1,
        steps=400_000,
        steps_per_dispatch=10,
        report_every=100,
        sample_every=2000,
        sample_count=16,
        checkpoint_every=2000,
        learning_rate=2e-4,  # Adam's learning rate for both players
        constant_images=200_000.0,  # images seen before the learning rate falls
        decay_images=200_000.0,  # images over which it falls to 0
        dtype="float32",  # compute dtype of the networks: float32, bfloat16
    )


def build(config: Config) -> Experiment:
    cut = {"antialias": True, "dtype": config.dtype, "kernel_init": nets.cut_init}
    generator = nets.TranslationResNet(
        config.channels, config.width, config.blocks, features=nets.CUT_FEATURES, **cut
    )  # fmt: skip
    critic = nets.PatchDiscriminator(config.width, norm="instance", **cut)
    game = gans.cut(
        network(generator, config),
        network(critic, config),
        nets.from_linen(nets.PatchProjector()),
        patches=config.patches,
        learning_rate=config.learning_rate,
        decay=(config.constant_images, config.decay_images),
        **(gans.FASTCUT if config.fast else {}),
    )

    def domains(split: str, load_size: int | None) -> data.Combined:
        return data.unpaired_folder(
            config.data_dir, split, image_size=config.image_size, load_size=load_size, channels=config.channels
        )

    return Experiment(
        game=game,
        source=lambda: domains("train", config.load_size),
        reference=lambda: domains("test", None).sources["b"],
        conditions=lambda: data.renamed(domains("test", None).sources["a"], inputs="real"),
        previews={"translations": side_by_side(game)},
        preview=image_grid,
        **run_settings(config),
    )
