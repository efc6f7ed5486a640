"""MoCoGAN on moving digits, made from those inside scikit-learn; needs no data set.

gan-jax train --config=mocogan_moving_digits --workdir=runs/moving
  --config.critic=clips --config.learning_rate=4e-4 --config.decay=False   MoCoGAN's critic of clips

The game is not told that digits move in three ways: its three categories are its own, and the metrics tell what they
have become.
"""

from gan_jax import data, gans, nets
from gan_jax.runs import MEMORY, Config, network, run_config, run_settings
from gan_jax.runtime import Experiment, clip_grid
from gan_jax.sweep.space import LogUniform, Space
from gan_jax.types import InvalidInputError


def get_config() -> Config:
    return run_config(
        **MEMORY,
        batch_size=16,
        steps=8000,
        steps_per_dispatch=10,
        report_every=100,
        sample_every=1000,
        checkpoint_every=1000,
        sample_count=36,
        clip_frames=16,  # frames of a clip
        width=32,  # channels of the networks' widest layers
        video_width=8,  # channels of the first layer of the critic of clips
        content=32,  # latents of the content
        motion=10,  # latents of the motion of one frame
        categories=3,  # categories that the generator invents
        critic="frames",  # critic of time: frames (StyleGAN-V's, of three frames, with R1), or clips (MoCoGAN's)
        noise=0.1,  # standard deviation of the noise in MoCoGAN's critics
        r1_gamma=0.05,  # weight of R1, for critic=frames
        learning_rate=1e-3,  # Adam's learning rate for both players
        decay=True,  # whether the learning rate falls linearly to 0 in the second half
        ema_halflife_images=2_000.0,  # half-life of the averaged generator, in clips
        dtype="float32",  # compute dtype of the networks: float32, bfloat16
    )


def sweep() -> Space:
    return {"learning_rate": LogUniform(5e-5, 2e-3)}


def build(config: Config) -> Experiment:
    sizes = {"content": config.content, "motion": config.motion, "categories": config.categories}
    critics = {
        "clips": nets.MoCoGANDiscriminator(
            config.width, config.categories, config.noise, video_width=config.video_width, dtype=config.dtype
        ),
        "frames": nets.FramesDiscriminator(
            width=config.width,
            categories=config.categories,
            max_frames=max(64, config.clip_frames),
            image=True,
            dtype=config.dtype,
        ),
    }
    if config.critic not in critics:
        raise InvalidInputError(f"critic={config.critic!r}: expected one of {', '.join(critics)}")
    game = gans.mocogan(
        network(nets.MoCoGANGenerator(32, 1, config.width, dtype=config.dtype, **sizes), config),
        network(critics[config.critic], config),
        frames=config.clip_frames,
        penalties=(gans.r1(config.r1_gamma),) if config.critic == "frames" else (),
        learning_rate=config.learning_rate,
        decay=(config.steps * config.batch_size / 2,) * 2 if config.decay else None,
        ema_halflife_images=config.ema_halflife_images,
        **sizes,
    )
    return Experiment(
        game=game,
        source=lambda: data.moving_digits(labels=None, clip_frames=config.clip_frames),
        # The metrics' data have labels, which train a classifier of clips; the game takes none.
        reference=lambda: data.moving_digits(labels="cell", clip_frames=config.clip_frames),
        preview=clip_grid,
        **run_settings(config),
    )
