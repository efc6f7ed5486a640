"""Published networks that metrics are defined with, and their files, read without running anything in them.

Weights are never downloaded: they come from the directory that `FeatureNetwork.load` is given, or from
`$GAN_JAX_WEIGHTS`.
"""

from gan_jax.feature_networks.clip import clip
from gan_jax.feature_networks.dinov2 import dinov2
from gan_jax.feature_networks.inception import inception
from gan_jax.feature_networks.network import FeatureNetwork
from gan_jax.feature_networks.weights import WeightsFile

__all__ = ["FeatureNetwork", "WeightsFile", "clip", "dinov2", "inception"]
