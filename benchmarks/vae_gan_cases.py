"""The games, data and hyperparameters that `benchmarks.vae_gan` compares."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from gan_jax import core, data, gans, losses, nets
from gan_jax.types import Game, Network

Make = Callable[[], tuple[Network, Network, Network]]


class Setting(NamedTuple):
    """A data set with the networks and the budget of all methods on it.

    Attributes:
      levels: grey levels of the images, for dequantisation.
      latents: number of latent variables.
      batch_size: batch size of every update.
      steps: updates of the decoder, the same for all methods.
      samples: samples of each Frechet distance.
      ema_halflife_images: half-life of the averaged weights that all methods are evaluated with.
      networks: `() -> (encoder, decoder, discriminator)`.
    """

    levels: int
    latents: int
    batch_size: int
    steps: int
    samples: int
    ema_halflife_images: float
    networks: Make


def _networks(*modules: Any) -> tuple[Network, Network, Network]:
    encoder, decoder, critic = map(nets.from_linen, modules)
    return encoder, decoder, critic


def _dense() -> tuple[Network, Network, Network]:
    features = (256, 256)
    return _networks(
        nets.MLPEncoder(16, features), nets.MLPGenerator((8, 8, 1), features),
        nets.MLPDiscriminator(features, feature_layer=0),
    )  # fmt: skip


def _convolutional(size: int, channels: int, latents: int, width: int) -> Make:
    return lambda: _networks(
        nets.DCGANEncoder(latents, width), nets.DCGANGenerator(size, channels, width),
        nets.DCGANDiscriminator(width, norm="none", feature_layer=0),
    )  # fmt: skip


SETTINGS = {
    "digits": Setting(17, 16, 128, 1500, 2000, 10_000.0, _dense),
    "mnist": Setting(256, 32, 64, 1500, 2000, 10_000.0, _convolutional(28, 1, 32, 8)),
    "cifar10": Setting(256, 64, 64, 1500, 2000, 10_000.0, _convolutional(32, 3, 64, 8)),
}
Point = dict[str, float]


def vae(setting: Setting, learning_rate: float, beta: float = 1.0) -> Game:
    """Makes the VAE with the variance of maximum likelihood."""
    encoder, decoder, _ = setting.networks()
    return gans.vae(
        encoder, decoder, setting.latents, beta=beta, levels=setting.levels, learning_rate=learning_rate,
        ema_halflife_images=setting.ema_halflife_images,
    )  # fmt: skip


def vae_gan(setting: Setting, learning_rate: float, gamma: float, beta: float) -> Game:
    """Makes VAE-GAN with the non-saturating loss and R1."""
    encoder, decoder, critic = setting.networks()
    return gans.vae_gan(
        encoder, decoder, critic, setting.latents, gamma=gamma, beta=beta, learning_rate=learning_rate,
        penalties=(gans.r1(0.2),), ema_halflife_images=setting.ema_halflife_images,
    )  # fmt: skip


def gan(setting: Setting, learning_rate: float, gamma: float) -> Game:
    """Makes the GAN of the non-saturating loss with R1."""
    _, decoder, critic = setting.networks()
    adam = core.adam(learning_rate, 0.5)
    return gans.adversarial(
        decoder, critic, core.normal(setting.latents), loss=losses.non_saturating, penalties=(gans.r1(gamma),),
        generator_optimizer=adam, discriminator_optimizer=adam, ema_halflife_images=setting.ema_halflife_images,
    )  # fmt: skip


def pairing(setting: Setting, learning_rate: float, gamma: float) -> Game:
    """Makes the GAN of the relativistic pairing loss with R1 and R2; Adam has no momentum, as in R3GAN."""
    _, decoder, critic = setting.networks()
    adam = core.adam(learning_rate, 0.0, 0.99)
    return gans.adversarial(
        decoder, critic, core.normal(setting.latents), loss=losses.relativistic_pairing,
        penalties=(gans.r1(gamma), gans.r2(gamma)), generator_optimizer=adam, discriminator_optimizer=adam,
        ema_halflife_images=setting.ema_halflife_images,
    )  # fmt: skip


METHODS: dict[str, Callable[..., Game]] = {
    "VAE": vae,
    "beta-VAE": vae,
    "VAE-GAN": vae_gan,
    "GAN, R1": gan,
    "GAN, pairing": pairing,
}


def _grid(**values: tuple[float, ...]) -> list[Point]:
    found: list[Point] = [{}]
    for name, choices in values.items():
        found = [{**point, name: choice} for point in found for choice in choices]
    return found


POINTS: dict[str, dict[str, list[Point]]] = {
    "digits": {
        "VAE": _grid(learning_rate=(2e-3, 4e-3, 8e-3, 1.6e-2)),
        "beta-VAE": _grid(beta=(0.3, 3.0), learning_rate=(4e-3, 8e-3)),
        "VAE-GAN": _grid(gamma=(0.01, 0.1), beta=(0.1,), learning_rate=(1e-3, 4e-3)),
        "GAN, R1": _grid(gamma=(0.05, 0.5), learning_rate=(1e-3, 4e-3)),
        "GAN, pairing": _grid(gamma=(0.05, 0.5), learning_rate=(1e-3, 4e-3)),
    }
}
"""The points of each method's sweep, equally many on each data set."""
POINTS["mnist"] = {
    "VAE": _grid(learning_rate=(1e-3, 3e-3)),
    "beta-VAE": _grid(beta=(0.3, 3.0), learning_rate=(1e-3,)),
    "VAE-GAN": _grid(gamma=(1e-3, 1e-2), beta=(0.1,), learning_rate=(1e-3,)),
    "GAN, R1": _grid(gamma=(0.1, 1.0), learning_rate=(1e-3,)),
    "GAN, pairing": _grid(gamma=(0.1, 1.0), learning_rate=(1e-3,)),
}
POINTS["cifar10"] = POINTS["mnist"]


class Data(NamedTuple):
    """The data of a setting.

    Attributes:
      train: labelled training images, which train the classifier too.
      held_out: images that no method was trained on, in [-1, 1].
    """

    train: data.Arrays
    held_out: np.ndarray


def opened(name: str, data_dir: str) -> Data:
    """Opens the data of a setting, with the last 297 digits, or images of the test set, held out."""
    if name == "digits":
        arrays = data.digits(labels=True).arrays
        train = data.Arrays("digits[:1500]", {key: x[:1500] for key, x in arrays.items()}, 10)
        return Data(train, arrays["real"][1500:])
    tfds = {"mnist": "mnist", "cifar10": "cifar10_jpeg"}[name]
    splits = [
        data.tfds_images(tfds, data_dir=data_dir, labels=True, split=split) for split in ("train[:10000]", "test[:500]")
    ]
    train, test = (source for source in splits if isinstance(source, data.Arrays))
    return Data(train, np.asarray(data.to_model("real", test.arrays["real"])))


def unlabelled(train: data.Arrays) -> data.Arrays:
    """Returns the training images without their labels."""
    return data.Arrays(train.name, {"real": train.arrays["real"]})
