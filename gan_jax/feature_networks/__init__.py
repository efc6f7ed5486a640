"""Pretrained feature networks that published metrics are defined with, and readers of their weight files.

Weight files are read without executing any code in them. They come from the directory passed to `FeatureNetwork.load`,
from `$GAN_JAX_WEIGHTS`, or from `~/.cache/gan_jax/weights`. Only `fetch` downloads them, on an explicit call.
"""

from gan_jax.feature_networks.clip import clip
from gan_jax.feature_networks.dinov2 import dinov2, dinov2_levels
from gan_jax.feature_networks.fetch import fetch
from gan_jax.feature_networks.i3d import i3d
from gan_jax.feature_networks.inception import inception
from gan_jax.feature_networks.lpips import lpips, lpips_distance, vgg16_features
from gan_jax.feature_networks.network import FeatureNetwork
from gan_jax.feature_networks.weights import WeightsFile

__all__ = [
    "FeatureNetwork",
    "WeightsFile",
    "clip",
    "dinov2",
    "dinov2_levels",
    "fetch",
    "i3d",
    "inception",
    "lpips",
    "lpips_distance",
    "vgg16_features",
]
