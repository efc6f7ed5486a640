"""MoCoGAN on a folder of your own clips: GIF, WebP, APNG, films, or folders of frames.

gan-jax train --config=videos_folder --workdir=runs/mine --config.data_dir=DIR
  --config.num_classes=K        for K sub-folders, one per class
  --config.augment=True         DiffAugment, all frames of a clip alike
  --config.critic=frames        a cheaper critic, of three frames
  --config.frame_rate=10        brings all clips to 10 frames a second; 0 takes frames as they are stored
"""

from gan_jax import augment, data, gans, nets
from gan_jax.runs import MEMORY, Config, network, run_config, run_settings
from gan_jax.runtime import Experiment, clip_grid
from gan_jax.types import InvalidInputError


def get_config() -> Config:
    return run_config(
        **MEMORY,
        data_dir="",  # directory of the clips
        image_size=64,  # height and width of the frames after resizing: 16, 32, 64, ...
        channels=3,  # 3 for colour, 1 for grey
        num_classes=0,  # number of sub-folders as classes; 0: no labels
        clip_frames=16,  # frames of a clip
        every=1,  # distance between the frames of a clip
        frame_rate=-1.0,  # frames a second; 0: as they are stored; -1: as stored, refusing several rates
        skip_short=False,  # pass over clips that are too short
        check_images=True,  # decode all clips at the start, to find broken ones
        batch_size=16,
        steps=100_000,
        steps_per_dispatch=10,
        report_every=100,
        sample_every=1000,
        checkpoint_every=1000,
        sample_count=36,
        width=64,  # channels of the networks' widest layers
        content=50,  # latents of the content
        motion=10,  # latents of the motion of one frame
        categories=0,  # categories that the generator invents, without labels
        critic="clips",  # critic: clips (with one of frames), or frames (three of them)
        noise=0.1,  # standard deviation of the noise in the critics
        r1_gamma=1.0,  # weight of R1, for critic=frames
        augment=False,  # DiffAugment, all frames of a clip alike
        learning_rate=2e-4,  # Adam's learning rate for both players
        ema_halflife_images=5_000.0,  # half-life of the averaged generator, in clips
        dtype="float32",  # compute dtype of the networks: float32, bfloat16
    )


def build(config: Config) -> Experiment:
    classes = config.num_classes or None
    heads = classes or config.categories
    sizes = {"content": config.content, "motion": config.motion, "categories": config.categories}
    critics = {
        "clips": nets.MoCoGANDiscriminator(config.width, heads, config.noise, dtype=config.dtype),
        "frames": nets.FramesDiscriminator(
            width=config.width, categories=heads, max_frames=max(64, config.clip_frames), dtype=config.dtype
        ),
    }
    if config.critic not in critics:
        raise InvalidInputError(f"critic={config.critic!r}: expected one of {', '.join(critics)}")
    generator = nets.MoCoGANGenerator(
        config.image_size, config.channels, config.width, num_classes=classes, dtype=config.dtype, **sizes
    )
    game = gans.mocogan(
        network(generator, config),
        network(critics[config.critic], config),
        frames=config.clip_frames,
        num_classes=classes,
        penalties=(gans.r1(config.r1_gamma),) if config.critic == "frames" else (),
        augment=gans.Augmentation(augment.per_clip(augment.diff_augment())) if config.augment else None,
        learning_rate=config.learning_rate,
        ema_halflife_images=config.ema_halflife_images,
        **sizes,
    )
    return Experiment(
        game=game,
        source=lambda: data.video_folder(
            config.data_dir,
            image_size=config.image_size,
            clip_frames=config.clip_frames,
            every=config.every,
            labels=classes is not None,
            channels=config.channels,
            frame_rate=None if config.frame_rate < 0 else config.frame_rate,
            skip_short=config.skip_short,
            check=config.check_images,
        ),
        preview=clip_grid,
        **run_settings(config),
    )
