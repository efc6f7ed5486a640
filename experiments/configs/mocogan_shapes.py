"""MoCoGAN on its authors' moving shapes: coloured squares and circles that move up or left along a closed curve.

gan-jax train --config=mocogan_shapes --workdir=runs/shapes --config.data_dir=DIR
  --config.recurrent=False, --config.image_critic=False   ablations
  --config.critic=clips --config.learning_rate=2e-4 --config.decay=False   MoCoGAN's critic of clips, and its rate
  --config.image_size=64 --config.width=64 --config.batch_size=32 --config.steps=100000   and its sizes

Colour, size, shape and direction of a clip are read in closed form: the metrics fd_attributes, shapes and
disentanglement. The game's categories are its own; the direction is what they should become.
"""

import jax.numpy as jnp
import numpy as np

from gan_jax import data, gans, metrics, nets
from gan_jax.data import Clips
from gan_jax.runs import MEMORY, Config, network, run_config, run_settings
from gan_jax.runtime import Experiment, clip_grid
from gan_jax.sweep.space import LogUniform, Space
from gan_jax.types import InvalidInputError


def get_config() -> Config:
    return run_config(
        **MEMORY,
        data_dir="",  # directory of the TFDS data sets
        split="train",  # part of the data, such as train[:2000]
        image_size=32,  # height and width of the frames
        batch_size=16,
        steps=8000,
        steps_per_dispatch=10,
        report_every=100,
        sample_every=1000,
        checkpoint_every=1000,
        sample_count=36,
        clip_frames=16,  # frames of a clip
        every=2,  # distance between the frames of a clip
        width=32,  # channels of the networks' widest layers
        video_width=16,  # channels of the first layer of the critic of clips
        content=50,  # latents of the content
        motion=10,  # latents of the motion of one frame
        categories=2,  # categories that the generator invents
        recurrent=True,  # whether a GRU makes the motion
        critic="frames",  # critic of time: frames (StyleGAN-V's, of three frames, with R1), or clips (MoCoGAN's)
        image_critic=True,  # whether there is a critic of single frames too
        noise=0.1,  # standard deviation of the noise in MoCoGAN's critics
        r1_gamma=0.05,  # weight of R1, for critic=frames
        learning_rate=1e-3,  # Adam's learning rate for both players
        decay=True,  # whether the learning rate falls linearly to 0 in the second half
        ema_halflife_images=5_000.0,  # half-life of the averaged generator, in clips
        dtype="float32",  # compute dtype of the networks: float32, bfloat16
    )


def sweep() -> Space:
    return {"learning_rate": LogUniform(5e-5, 2e-3)}


def with_cells(source: Clips) -> Clips:
    """Returns clips labelled by axis, size and shape, read in closed form, to train the classifier of clips."""
    clips = source.read(np.arange(len(source)))["real"]
    cells = [
        metrics.shape_cells(metrics.clip_attributes(jnp.asarray(clips[low : low + 256]) / 127.5 - 1), clips.shape[2])
        for low in range(0, len(clips), 256)
    ]
    labels = np.concatenate(cells).astype(np.int32)
    return data.video_arrays(f"{source.name}, cells", clips, clip_frames=clips.shape[1], labels=labels, num_classes=16)


def build(config: Config) -> Experiment:
    sizes = {"content": config.content, "motion": config.motion, "categories": config.categories}
    critics = {
        "clips": nets.MoCoGANDiscriminator(
            config.width, config.categories, config.noise, image=config.image_critic, video_width=config.video_width,
            dtype=config.dtype,
        ),
        "frames": nets.FramesDiscriminator(
            width=config.width, categories=config.categories, max_frames=max(64, config.clip_frames),
            image=config.image_critic, dtype=config.dtype,
        ),
    }  # fmt: skip
    if config.critic not in critics:
        raise InvalidInputError(f"critic={config.critic!r}: expected one of {', '.join(critics)}")
    generator = nets.MoCoGANGenerator(
        config.image_size, 3, config.width, recurrent=config.recurrent, dtype=config.dtype, **sizes
    )
    game = gans.mocogan(
        network(generator, config),
        network(critics[config.critic], config),
        frames=config.clip_frames,
        penalties=(gans.r1(config.r1_gamma),) if config.critic == "frames" else (),
        learning_rate=config.learning_rate,
        decay=(config.steps * config.batch_size / 2,) * 2 if config.decay else None,
        ema_halflife_images=config.ema_halflife_images,
        **sizes,
    )

    def source() -> Clips:
        return data.tfds_videos(
            "mocogan_shapes", data_dir=config.data_dir, labels=False, clip_frames=config.clip_frames,
            every=config.every, split=config.split, image_size=config.image_size,
        )  # fmt: skip

    return Experiment(
        game=game, source=source, reference=lambda: with_cells(source()), preview=clip_grid, **run_settings(config)
    )
