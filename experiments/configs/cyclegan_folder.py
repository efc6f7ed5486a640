"""CycleGAN on two folders of your own images that are no pairs, with the paper's networks, weights and schedule.

gan-jax train --config=cyclegan_folder --workdir=runs/mine --config.data_dir=DIR
  --config.image_size=128 --config.load_size=143 --config.blocks=6   smaller images, as in the paper

DIR has `trainA`, `trainB`, `testA` and `testB`. The steps are for 1,000 images in the larger domain: 100 epochs, and
100 with a falling learning rate. `gan-jax translate --direction=BtoA` translates back.
"""

from gan_jax import data, gans, nets
from gan_jax.runs import MEMORY, Config, network, run_config, run_settings
from gan_jax.runtime import Domain, Experiment, image_grid, side_by_side


def get_config() -> Config:
    return run_config(
        **MEMORY,
        data_dir="",  # directory of the two domains
        image_size=256,  # height and width of the images: a multiple of 4
        load_size=286,  # height and width before the random crop
        channels=3,  # 3 for colour, 1 for grey
        blocks=9,  # residual blocks of the generators: 9 for 256 pixels, 6 for 128
        width=64,  # channels of the networks' first layers
        batch_size=1,
        steps=200_000,
        steps_per_dispatch=10,
        report_every=100,
        sample_every=2000,
        sample_count=16,
        checkpoint_every=2000,
        cycle_weight=5.0,  # weight of the cycle: half of the paper's 10, as our least squares are half of theirs
        identity_weight=2.5,  # weight of the identity; the paper's 5
        learning_rate=2e-4,  # Adam's learning rate for both players
        constant_images=100_000.0,  # images seen before the learning rate falls
        decay_images=100_000.0,  # images over which it falls to 0
        dtype="float32",  # compute dtype of the networks: float32, bfloat16
    )


def build(config: Config) -> Experiment:
    generator = nets.TranslationResNet(config.channels, config.width, config.blocks, dtype=config.dtype)
    critic = nets.PatchDiscriminator(config.width, norm="instance", dtype=config.dtype)
    game = gans.cyclegan(
        network(generator, config),
        network(critic, config),
        cycle_weight=config.cycle_weight,
        identity_weight=config.identity_weight,
        learning_rate=config.learning_rate,
        decay=(config.constant_images, config.decay_images),
    )

    def domains(split: str, load_size: int | None) -> data.Combined:
        return data.unpaired_folder(
            config.data_dir, split, image_size=config.image_size, load_size=load_size, channels=config.channels
        )

    def held_out(domain: str) -> data.Source:
        return domains("test", None).sources[domain]

    back = Domain(lambda: data.renamed(held_out("b"), inputs="real"), lambda: held_out("a"))
    return Experiment(
        game=game,
        source=lambda: domains("train", config.load_size),
        reference=lambda: held_out("b"),
        conditions=lambda: data.renamed(held_out("a"), inputs="real"),
        domains={"translate_back": back},
        previews={"translations": side_by_side(game), "translations_back": side_by_side(game, "translate_back")},
        preview=image_grid,
        **run_settings(config),
    )
