"""CycleGAN between MNIST and MNIST inverted, coloured and turned by 90 degrees: no pairs, but the truth is known.

gan-jax train --config=cyclegan_mnist --workdir=runs/cyclegan --config.data_dir=DIR
  --config.turns=0         digits that are inverted and coloured, and stay upright
  --config.networks=unet   U-Nets, which can turn a whole image; a ResNet's outputs depend on what is near

The networks are small, for a few cores. `l1` compares translations of test digits with the true ones.
"""

from gan_jax import data, gans, nets
from gan_jax.runs import MEMORY, Config, network, run_config, run_settings
from gan_jax.runtime import Experiment, image_grid, side_by_side
from gan_jax.types import InvalidInputError


def get_config() -> Config:
    return run_config(
        **MEMORY,
        data_dir="",  # directory of the TFDS data sets
        turns=1,  # times that the digits of the other domain are turned by 90 degrees
        networks="resnet",  # generators: resnet or unet
        width=16,  # channels of the networks' first layers
        blocks=4,  # residual blocks of a resnet
        batch_size=16,
        steps=4000,
        steps_per_dispatch=20,
        report_every=100,
        sample_every=500,
        sample_count=32,
        checkpoint_every=1000,
        metrics="l1",
        evaluate_every=1000,
        cycle_weight=5.0,  # weight of the cycle; the paper's 10
        learning_rate=2e-4,  # Adam's learning rate for both players
        dtype="float32",  # compute dtype of the networks: float32, bfloat16
    )


def build(config: Config) -> Experiment:
    generators = {
        "resnet": nets.TranslationResNet(3, config.width, config.blocks, dtype=config.dtype),
        "unet": nets.UNet(3, 5, config.width, norm="instance", dtype=config.dtype),
    }
    if config.networks not in generators:
        raise InvalidInputError(f"networks={config.networks!r}: expected {' or '.join(generators)}")
    critic = nets.PatchDiscriminator(config.width, norm="instance", dtype=config.dtype)
    game = gans.cyclegan(
        network(generators[config.networks], config),
        network(critic, config),
        cycle_weight=config.cycle_weight,
        identity_weight=None,  # digits of one domain should not stay as they are in the colours of the other
        learning_rate=config.learning_rate,
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
