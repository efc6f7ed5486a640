"""What a feature network is to the evaluation: images in, features out, and a record of what they are."""

import os
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree, UInt8

from gan_jax.feature_networks.weights import WeightsFile
from gan_jax.types import InvalidInputError


class FeatureNetwork(NamedTuple):
    """A frozen network that published metrics are defined with.

    Attributes:
      name: that its numbers are reported under.
      version: of the definition here; it rises when anything changes that could move a number.
      file: the weights, as they are published.
      size: height and width, in pixels, that images are resized to.
      resize: how: the name of a function in `gan_jax.feature_networks.resize`, and what goes before it.
      dim: number of features.
      prepare: arrays by name, as in the file, to the parameters that `apply` takes.
      apply: `(params, images) -> {'features': [b, dim], ...}`, float32, for images uint8 `[b, h, w, c]` with one (grey)
        or three channels, of any size. It is a pure function: compile it with `jax.jit`. No example depends on another,
        so a batch that is sharded over devices is not exchanged between them.

    Example:
      >>> from gan_jax import eval
      >>> network = eval.inception()
      >>> network.dim, network.size, network.resize
      (2048, 299, 'tf1_bilinear')
    """

    name: str
    version: int
    file: WeightsFile
    size: int
    resize: str
    dim: int
    prepare: Callable[[Mapping[str, np.ndarray]], PyTree]
    apply: Callable[[PyTree, Array], dict[str, Array]]

    def load(self, directory: str | os.PathLike[str] | None = None) -> tuple[PyTree, dict[str, Any]]:
        """Reads and verifies the weights.

        Args:
          directory: that holds the file; None for `$GAN_JAX_WEIGHTS`.

        Returns:
          The parameters, on the default device, and the record that belongs to every number computed with them: `name`,
          `version`, `weights` (the file's name), `weights_sha256`, `size`, `resize`, `dim`, `dtype` and `precision`.

        Raises:
          InvalidInputError: if the file is missing, or is not the one expected; it says where to get that.
        """
        arrays, digest = self.file.load(directory)
        return jax.tree.map(jnp.asarray, self.prepare(arrays)), self.record(digest)

    def record(self, weights_sha256: str) -> dict[str, Any]:
        """The record of `load`, for weights that came another way."""
        return {
            "name": self.name,
            "version": self.version,
            "weights": self.file.name,
            "weights_sha256": weights_sha256,
            "size": self.size,
            "resize": self.resize,
            "dim": self.dim,
            "dtype": "float32",
            "precision": "highest",
        }


def three_channels(images: UInt8[Array, "b h w c"]) -> UInt8[Array, "b h w 3"]:
    """Images as the networks take them: grey ones with their channel three times.

    Raises:
      InvalidInputError: for images that are not uint8 `[b, h, w, 1 or 3]`: quantisation is a part of every protocol, so
        it is not done in silence.
    """
    if images.ndim != 4 or images.shape[-1] not in (1, 3) or images.dtype != jnp.uint8:
        raise InvalidInputError(
            f"images {images.dtype}{list(images.shape)}: expected uint8 [b, h, w, 1 or 3]; from floats in [-1, 1]: "
            "jnp.clip(jnp.round((images + 1) * 127.5), 0, 255).astype(jnp.uint8)"
        )
    return jnp.repeat(images, 3, axis=-1) if images.shape[-1] == 1 else images


def standardized(
    images: UInt8[Array, "b h w 3"], mean: tuple[float, ...], std: tuple[float, ...]
) -> Float[Array, "b h w 3"]:
    """(images / 255 - mean) / std, for each channel."""
    return (images.astype(jnp.float32) / 255.0 - jnp.array(mean)) / jnp.array(std)
