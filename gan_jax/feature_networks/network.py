"""The interface of feature networks: images in, features out, and a record that identifies the features."""

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
    """A frozen pretrained network, with its preprocessing, that published metrics are defined with.

    Attributes:
      name: name of the network in reported results.
      version: version of this definition; it rises with every change that could alter a metric's value.
      file: the published file of weights.
      size: height and width, in pixels, to which images are resized.
      resize: the resizing method: the name of a function in `gan_jax.feature_networks.resize`, after the name of any
        preceding crop.
      dim: number of features.
      prepare: converts the arrays of the file, by name, to the parameters that `apply` takes.
      apply: `(params, images) -> {'features': [b, dim], ...}`, float32, for images uint8 `[b, h, w, c]` with one (grey)
        or three channels, of any size. It is a pure function: compile it with `jax.jit`. Examples are independent of
        each other, so a batch that is sharded over devices needs no communication.
      takes: `images`; or `pairs`, for a network that compares two images: `apply` then takes `[b, 2, h, w, c]`, and the
        features are the distances, `[b, 1]`.

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
    takes: str = "images"

    def load(self, directory: str | os.PathLike[str] | None = None) -> tuple[PyTree, dict[str, Any]]:
        """Reads and verifies the weights.

        Args:
          directory: directory that holds the file; None for `$GAN_JAX_WEIGHTS`, or
            `~/.cache/gan_jax/weights`.

        Returns:
          The parameters, on the default device, and the record to store with every value computed with them: `name`,
          `version`, `weights` (the file's name), `weights_sha256`, `size`, `resize`, `dim`, `dtype` and `precision`.

        Raises:
          InvalidInputError: if the file is missing or is not the expected one; the message says where to get it.
        """
        arrays, digest = self.file.load(directory)
        return jax.tree.map(jnp.asarray, self.prepare(arrays)), self.record(digest)

    def shapes(self) -> PyTree:
        """Returns the shapes and dtypes of the parameters, without reading the file."""
        zero = np.zeros((), np.float32)
        params = self.prepare({name: np.broadcast_to(zero, shape) for name, shape in self.file.used.items()})
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), params)

    def record(self, weights_sha256: str) -> dict[str, Any]:
        """Returns the record of `load`, for weights that were obtained in another way."""
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
    """Checks images for a feature network, and repeats the channel of grey ones three times.

    Raises:
      InvalidInputError: if the images are not uint8 `[b, h, w, 1 or 3]`. Floats are not converted silently, because
        quantisation is part of every evaluation protocol.
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
    """Computes (images / 255 - mean) / std for each channel."""
    return (images.astype(jnp.float32) / 255.0 - jnp.array(mean)) / jnp.array(std)
