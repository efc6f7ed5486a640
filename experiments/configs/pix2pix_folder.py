"""pix2pix on a folder of pairs of your own images, with the paper's networks or those of pix2pixHD.

gan-jax train --config=pix2pix_folder --workdir=runs/mine --config.data_dir=DIR
  --config.direction=BtoA      translates B to A; files side by side have A on the left
  --config.networks=pix2pixhd  two critics with feature matching, and the global generator
  --config.batch_size=8 --config.norm=instance   larger batches, for a GPU or TPU
  --config.classes=35          the sources are maps of classes, in folders of their own

DIR has `train` and `test` with A and B side by side, or `A/train`, `B/train`, `A/test`, `B/test` with files of equal
names. The steps are for 400 pairs, such as the paper's facades: 100 epochs, and 100 with a falling learning rate.
"""

from typing import Any

from gan_jax import data, gans, losses, nets
from gan_jax.runs import MEMORY, Config, network, run_config, run_settings
from gan_jax.runtime import Experiment, image_grid, side_by_side
from gan_jax.types import Game, InvalidInputError

_MULTIPLE = 32  # with sizes that can be halved fewer than 5 times, a U-Net would have next to no levels


def get_config() -> Config:
    return run_config(
        **MEMORY,
        data_dir="",  # directory of the pairs
        direction="AtoB",  # what is translated to what: AtoB or BtoA
        test_split="test",  # part of the pairs that grids and metrics use: test or val
        image_size=256,  # height and width of the images: a multiple of 32 for networks=pix2pix
        load_size=286,  # height and width before the random crop
        channels=3,  # 3 for colour, 1 for grey
        mirror=True,  # whether pairs are mirrored at random; not for text or street maps
        classes=0,  # number of classes if the sources are maps of classes, in two folders; 0 for images
        networks="pix2pix",  # networks and losses: pix2pix or pix2pixhd
        width=64,  # channels of the networks' first layers
        norm="batch",  # norm of pix2pix's networks: batch, as in the paper, or instance, for batches above 1
        batch_size=1,
        steps=80_000,
        steps_per_dispatch=10,
        report_every=100,
        sample_every=2000,
        sample_count=16,
        checkpoint_every=2000,
        metrics="l1,psnr,ssim",
        evaluate_every=4000,
        l1_weight=100.0,  # weight of the L1 distance; pix2pixhd has none
        learning_rate=2e-4,  # Adam's learning rate for both players
        constant_images=40_000.0,  # pairs seen before the learning rate falls
        decay_images=40_000.0,  # pairs over which it falls to 0
        dtype="float32",  # compute dtype of the networks: float32, bfloat16
    )


def game(config: Config) -> Game:
    options: dict[str, Any] = {
        "learning_rate": config.learning_rate,
        "decay": (config.constant_images, config.decay_images),
        "classes": config.classes or None,
    }
    if config.networks == "pix2pix":
        if config.image_size < _MULTIPLE or config.image_size % _MULTIPLE:
            raise InvalidInputError(
                f"image_size={config.image_size}: the U-Net of networks=pix2pix takes multiples of {_MULTIPLE}, "
                f"such as {max(1, round(config.image_size / _MULTIPLE)) * _MULTIPLE}; the paper's is 256"
            )
        levels = min(8, (config.image_size & -config.image_size).bit_length() - 1)
        generator: Any = nets.UNet(config.channels, levels, config.width, norm=config.norm, dtype=config.dtype)
        critic: Any = nets.PatchDiscriminator(config.width, norm=config.norm, dtype=config.dtype)
        options |= {"l1_weight": config.l1_weight}
    elif config.networks == "pix2pixhd":
        generator = nets.TranslationResNet(config.channels, config.width, 9, 4, dtype=config.dtype)
        critic = nets.MultiScaleDiscriminator(2, config.width, dtype=config.dtype)
        options |= {"loss": losses.least_squares, "l1_weight": None, "feature_matching_weight": 20.0}
    else:
        raise InvalidInputError(f"networks={config.networks!r}: expected pix2pix or pix2pixhd")
    sampling = nets.from_linen(generator)
    return gans.pix2pix(network(generator, config), network(critic, config), sampling_generator=sampling, **options)


def build(config: Config) -> Experiment:
    made = game(config)

    def pairs(split: str, load_size: int | None) -> data.Source:
        return data.paired_folder(
            config.data_dir, split, direction=config.direction, image_size=config.image_size, load_size=load_size,
            channels=config.channels, mirror=config.mirror, classes=config.classes or None,
        )  # fmt: skip

    return Experiment(
        game=made,
        source=lambda: pairs("train", config.load_size),
        conditions=lambda: data.renamed(pairs(config.test_split, None), inputs="a", target="b"),
        previews={"translations": side_by_side(made)},
        preview=image_grid,
        **run_settings(config),
    )
