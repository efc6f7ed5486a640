"""pix2pix that colours patches of the two photographs inside scikit-learn: translation without a data set.

gan-jax train --config=pix2pix_photos --workdir=runs/photos
  --config.task=edges     photos from drawings of their edges; also inpainting, super_resolution, denoising
  --config.l1_weight=0    the GAN alone; --config.adversarial_weight=0: L1 alone
"""

from gan_jax import data, gans, nets
from gan_jax.runs import MEMORY, Config, network, run_config, run_settings
from gan_jax.runtime import Experiment, image_grid, side_by_side
from gan_jax.sweep.space import LogUniform, Space
from gan_jax.types import InvalidInputError

_TASKS: dict[str, data.Make] = {
    "colour": data.Colourisation(),
    "edges": data.EdgesToImage(),
    "inpainting": data.Inpainting(),
    "super_resolution": data.SuperResolution(),
    "denoising": data.Denoising(),
}


def get_config() -> Config:
    return run_config(
        **MEMORY,
        task="colour",  # what the pairs are made for: colour, edges, inpainting, super_resolution, denoising
        batch_size=8,
        steps=4000,
        steps_per_dispatch=20,
        report_every=100,
        sample_every=1000,
        checkpoint_every=1000,
        sample_count=32,
        metrics="l1,psnr,ssim",
        evaluate_every=1000,
        width=16,  # channels of the networks' first layers; 64 in the paper
        depth=2,  # convolutions of the critic with stride 2; 2 judges patches of 34x34 pixels, 3 of 70x70
        learning_rate=2e-4,  # Adam's learning rate for both players
        l1_weight=100.0,  # weight of the L1 distance to the target
        adversarial_weight=1.0,  # weight of the generator's adversarial loss
        dtype="float32",  # compute dtype of the networks: float32, bfloat16
    )


def sweep() -> Space:
    return {"learning_rate": LogUniform(5e-5, 1e-3), "l1_weight": LogUniform(1.0, 1000.0)}


def build(config: Config) -> Experiment:
    if config.task not in _TASKS:
        raise InvalidInputError(f"task={config.task!r}: expected one of {', '.join(_TASKS)}")
    # Batches of several images need instance norm: batch norm would mix them, in training and in translation.
    generator = nets.UNet(3, levels=6, width=config.width, norm="instance", dtype=config.dtype)
    critic = nets.PatchDiscriminator(config.width, config.depth, norm="instance", dtype=config.dtype)
    game = gans.pix2pix(
        network(generator, config),
        network(critic, config),
        sampling_generator=nets.from_linen(generator),  # `microbatches` would have to divide any batch
        l1_weight=config.l1_weight,
        adversarial_weight=config.adversarial_weight,
        learning_rate=config.learning_rate,
        decay=(config.steps * config.batch_size / 2, config.steps * config.batch_size / 2),
    )

    def pairs(part: str) -> data.Made:
        return data.made_pairs(data.photographs(part), _TASKS[config.task])

    return Experiment(
        game=game,
        source=lambda: data.transformed(pairs("train"), data.flip()),
        conditions=lambda: data.renamed(pairs("test"), inputs="a", target="b"),
        reference=lambda: data.photographs("test", labels=True),
        previews={"translations": side_by_side(game)},
        preview=image_grid,
        **run_settings(config),
    )
