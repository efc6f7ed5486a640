"""StyleGAN2 on CIFAR-10 after JPEG compression (`cifar10_jpeg`), with the ADA paper's settings for CIFAR-10.

gan-jax train --config=stylegan2_cifar10 --workdir=runs/stylegan2 \
  --config.data_dir=DIR
  --config.conditional=True  a class-conditional game
  --config.augment=none      without adaptive augmentation
  --config.fmap_base=2048 --config.fmap_max=128 --config.style_size=128 --config.latents=128  smaller networks

Karras et al., "Training Generative Adversarial Networks with Limited Data", arXiv:2006.06676, 2020, appendix D and the
configuration `cifar` of the authors' code: no style mixing, no path-length regularisation, no skip connections in the
discriminator, two mapping layers, groups of 32, 100 million images. StyleGAN2 as in its own paper has
`style_mixing=0.9`, `path_length_weight=2.0`, `residual=True`, `mapping_layers=8` and `group_size=4`.

The learning rates differ from the authors' code. That code corrects the generator's Adam for a lazy path-length penalty
even without one, so that its generator learns at 0.002. Here the generator learns at `learning_rate`, and only the
discriminator's Adam is corrected, for the lazy R1.
"""

from gan_jax import augment, core, data, gans, nets
from gan_jax.runs import MEMORY, Config, network, run_config, run_settings
from gan_jax.runtime import Experiment, image_grid
from gan_jax.types import InvalidInputError

_CLASSES, _SIZE, _CHANNELS = 10, 32, 3


def get_config() -> Config:
    return run_config(
        **MEMORY,
        data_dir="",  # directory of the TFDS data sets
        dataset="cifar10_jpeg",  # name of the TFDS data set
        conditional=False,  # whether both networks get the labels
        batch_size=64,
        steps=1_562_500,
        steps_per_dispatch=10,
        report_every=500,
        sample_every=5000,
        checkpoint_every=5000,
        latents=512,  # dimension of the latents
        style_size=512,  # dimension of the styles w
        mapping_layers=2,  # layers of the mapping network
        fmap_base=32768,  # upper limit of channels times resolution
        fmap_max=512,  # upper limit of the channels of a layer
        residual=False,  # whether the discriminator has skip connections
        group_size=32,  # group size of the minibatch standard deviation
        learning_rate=2.5e-3,  # Adam's learning rate for both players
        r1_gamma=0.01,  # weight of R1, the penalty at reals
        r1_every=16,  # iterations between R1 penalties
        style_mixing=0.0,  # probability of mixing two styles in an image
        path_length_weight=0.0,  # weight of the path length penalty; 0 for none
        path_length_every=4,  # iterations between path length penalties
        ema_halflife_images=500_000.0,  # half-life of the averaged generator, in images
        ema_rampup=0.05,  # half-life is at most this share of images seen
        augment="ada",  # augmentation: none or ada
        augment_target=0.6,  # mean sign of D(real) that ADA aims at
        augment_speed_images=500_000.0,  # images in which ADA can move p from 0 to 1
        dtype="float32",  # compute dtype of the networks: float32, bfloat16
    )


def augmentation(config: Config) -> gans.Augmentation | None:
    choices = {
        "none": None,
        "ada": gans.Augmentation(
            augment.ada_pipeline(), 0.0, target=config.augment_target, speed_images=config.augment_speed_images
        ),
    }
    if config.augment not in choices:
        raise InvalidInputError(f"augment={config.augment!r}: expected one of {', '.join(choices)}")
    return choices[config.augment]


def build(config: Config) -> Experiment:
    classes = _CLASSES if config.conditional else None
    shared = {"fmap_base": config.fmap_base, "fmap_max": config.fmap_max, "num_classes": classes, "dtype": config.dtype}
    mapping, synthesis = nets.StyleGAN2Generator(
        _SIZE, _CHANNELS, style_size=config.style_size, mapping_layers=config.mapping_layers, **shared
    ).parts()
    discriminator = nets.StyleGAN2Discriminator(group_size=config.group_size, residual=config.residual, **shared)
    game = gans.stylegan2(
        network(mapping, config),
        network(synthesis, config),
        network(discriminator, config),
        core.normal(config.latents),
        r1_gamma=config.r1_gamma,
        r1_every=config.r1_every,
        path_length_weight=config.path_length_weight or None,
        path_length_every=config.path_length_every,
        style_mixing=config.style_mixing,
        learning_rate=config.learning_rate,
        num_classes=classes,
        augment=augmentation(config),
        ema_halflife_images=config.ema_halflife_images,
        ema_rampup=config.ema_rampup,
    )
    return Experiment(
        game=game,
        source=lambda: data.tfds_images(config.dataset, data_dir=config.data_dir, labels=config.conditional),
        reference=lambda: data.tfds_images(config.dataset, data_dir=config.data_dir, labels=True),
        preview=image_grid,
        **run_settings(config),
    )
