"""CUT from MNIST to MNIST inverted, coloured and turned by 90 degrees: no pairs, but the truth is known.

gan-jax train --config=cut_mnist --workdir=runs/cut --config.data_dir=DIR
  --config.turns=0     digits that are inverted and coloured, and stay upright
  --config.fast=True   FastCUT

The networks are small, for a few cores. `l1` compares translations of test digits with the true ones.
"""

from gan_jax import data, gans, nets
from gan_jax.runs import MEMORY, Config, network, run_config, run_settings
from gan_jax.runtime import Experiment, image_grid, side_by_side


def get_config() -> Config:
    return run_config(
        **MEMORY,
        data_dir="",  # directory of the TFDS data sets
        turns=1,  # times that the digits of the other domain are turned by 90 degrees
        fast=False,  # FastCUT: no identity loss, and mirrored images
        width=16,  # channels of the networks' first layers
        blocks=5,  # residual blocks of the generator: at least 5
        patches=64,  # places that are compared in each layer
        batch_size=16,
        steps=6000,
        steps_per_dispatch=20,
        report_every=100,
        sample_every=500,
        sample_count=32,
        checkpoint_every=1000,
        metrics="l1",
        evaluate_every=1000,
        learning_rate=2e-4,  # Adam's learning rate for both players
        decay=True,  # whether the learning rate falls linearly to 0 in the second half, as in the paper
        dtype="float32",  # compute dtype of the networks: float32, bfloat16
    )


def build(config: Config) -> Experiment:
    cut = {"antialias": True, "dtype": config.dtype, "kernel_init": nets.cut_init}
    generator = nets.TranslationResNet(3, config.width, config.blocks, features=nets.CUT_FEATURES, **cut)
    critic = nets.PatchDiscriminator(config.width, norm="instance", **cut)
    game = gans.cut(
        network(generator, config),
        network(critic, config),
        nets.from_linen(nets.PatchProjector(64)),
        patches=config.patches,
        learning_rate=config.learning_rate,
        decay=(config.steps * config.batch_size / 2,) * 2 if config.decay else None,
        **(gans.FASTCUT if config.fast else {}),
    )

    def digits(split: str) -> data.Source:
        return data.tfds_images("mnist", split=split, data_dir=config.data_dir, labels=True)

    def pairs(split: str) -> data.Source:
        return data.turned_digit_pairs(digits(split), turns=config.turns)

    return Experiment(
        game=game,
        source=lambda: data.turned_digits(digits("train"), turns=config.turns),
        reference=lambda: data.renamed(pairs("train"), real="b", label="label"),
        conditions=lambda: data.renamed(pairs("test[:2000]"), inputs="a", target="b"),
        previews={"translations": side_by_side(game)},
        preview=image_grid,
        **run_settings(config),
    )
