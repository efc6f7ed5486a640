"""pix2pix that colours CIFAR-10: grey images to colour, with small networks, for a few cores.

gan-jax train --config=pix2pix_cifar10_colour --workdir=runs/colour --config.data_dir=DIR
  --config.adversarial_weight=0   the same generator with the L1 distance alone, to compare

The data set is `cifar10_jpeg`, CIFAR-10 after JPEG compression; its test images are held out. The generator chooses
colours alone: the brightness of its outputs is the source's, as where pix2pix's authors translate L to ab.
"""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array

from gan_jax import data, gans, nets
from gan_jax.runs import Config, run_config, run_settings
from gan_jax.runtime import Experiment, image_grid, side_by_side
from gan_jax.types import Network


def get_config() -> Config:
    return run_config(
        data_dir="",  # directory of the TFDS data sets
        dataset="cifar10_jpeg",  # name of the TFDS data set
        batch_size=32,
        steps=8000,
        steps_per_dispatch=20,
        report_every=100,
        sample_every=1000,
        sample_count=32,
        checkpoint_every=1000,
        width=24,  # channels of the generator's first layer
        critic_width=24,  # channels of the discriminator's first layer
        keep_brightness=True,  # whether outputs have the source's brightness
        adversarial_weight=1.0,  # weight of the generator's adversarial loss; at 0 the discriminator is not trained
        l1_weight=100.0,  # weight of the L1 distance
        learning_rate=2e-4,  # Adam's learning rate for both players
        dtype="float32",  # compute dtype of the networks: float32, bfloat16
    )


def keep_brightness(network: Network) -> Network:
    """Moves a network's outputs along grey to the brightness of its source, `[b, h, w, 1]`, and clips them."""

    def apply(params: Any, model_state: Any, source: Array, **options: Any) -> tuple[Array, Any]:
        outputs, model_state = network.apply(params, model_state, source, **options)
        return jnp.clip(outputs + source - data.luma(outputs), -1, 1), model_state

    return Network(network.init, apply)


def build(config: Config) -> Experiment:
    generator = nets.from_linen(nets.UNet(3, 5, config.width, norm="instance", dtype=config.dtype))
    critic = nets.PatchDiscriminator(config.critic_width, 2, norm="instance", dtype=config.dtype)
    game = gans.pix2pix(
        keep_brightness(generator) if config.keep_brightness else generator,
        nets.from_linen(critic),
        adversarial_weight=config.adversarial_weight,
        l1_weight=config.l1_weight,
        learning_rate=config.learning_rate,
        discriminator_start=0 if config.adversarial_weight else config.steps,
    )

    def images(split: str, *, labels: bool = False) -> data.Source:
        return data.tfds_images(config.dataset, split=split, data_dir=config.data_dir, labels=labels)

    return Experiment(
        game=game,
        source=lambda: data.made_pairs(data.transformed(images("train"), data.flip()), data.Colourisation()),
        reference=lambda: images("test", labels=True),
        conditions=lambda: data.renamed(data.made_pairs(images("test"), data.Colourisation()), inputs="a", target="b"),
        previews={"translations": side_by_side(game)},
        preview=image_grid,
        **run_settings(config),
    )
