"""Resizing as the published metrics do it: FID moves with the resampler, so each is the original's to the last rule.

All are linear in the pixels and separable, so they are two products with matrices that are computed in NumPy when the
function is traced.
"""

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Real, UInt8

from gan_jax.types import InvalidInputError

_BITS = 22  # of the fractions that Pillow takes for the weights of 8-bit images
_LOW = 11  # of these, the bits of the lower half
_HIGHEST = lax.Precision.HIGHEST


def tf1_bilinear(images: Real[Array, "b h w c"], size: int) -> Float[Array, "b size size c"]:
    """Bilinear interpolation as TensorFlow 1 had it by default, and so as FID's original code resizes.

    Pixel i of the result lies at i (old size / size) of the image, without the half pixel that centres it and without
    antialiasing: `tf.image.resize_bilinear(align_corners=False)`. Positions are computed in float32, as there.

    Args:
      images: in 0..255, uint8 or float.
      size: height and width of the result.

    Returns:
      `[b, size, size, c]`, float32, not rounded.

    Raises:
      InvalidInputError: for images or a size without pixels.

    References:
      Heusel et al., "GANs Trained by a Two Time-Scale Update Rule", arXiv:1706.08500, 2017, whose network resizes so;
      Parmar et al., "On Aliased Resizing and Surprising Subtleties in GAN Evaluation", arXiv:2104.11222, 2022.

    Example:
      >>> print(tf1_bilinear(jnp.array([[0.0, 4.0]]).reshape(1, 1, 2, 1), 4)[0, 0, :, 0])
      [0. 2. 4. 4.]
    """
    _check(images, size)
    return _resized(images, *(_bilinear_weights(length, size) for length in images.shape[1:3]))


def bicubic(images: Real[Array, "b h w c"], size: int) -> Float[Array, "b size size c"]:
    """Bicubic interpolation with antialiasing, as Pillow does it for float images: clean-fid's resizer.

    The cubic kernel has a = -1/2; where the image shrinks it is as much wider. Over the border it is cut off, and the
    weights are divided by their sum.

    Args:
      images: in 0..255, uint8 or float.
      size: height and width of the result.

    Returns:
      `[b, size, size, c]`, float32, neither rounded nor clipped: it can leave the range of the images.

    Raises:
      InvalidInputError: for images or a size without pixels.

    References:
      Keys, "Cubic Convolution Interpolation for Digital Image Processing", 1981; Parmar et al., arXiv:2104.11222, 2022.

    Example:
      >>> print(bicubic(jnp.array([[0, 200]]).reshape(1, 1, 2, 1), 4)[0, 0, :, 0].round())
      [-18.  41. 159. 218.]
    """
    _check(images, size)
    return _resized(images, *(_cubic_weights(length, size) for length in images.shape[1:3]))


def bicubic_uint8(images: UInt8[Array, "b h w c"], size: int) -> UInt8[Array, "b size size c"]:
    """`bicubic` as Pillow does it for 8-bit images, bit for bit: rounded and clipped after each of its two passes.

    Pillow resizes along the rows, then along the columns, in integers, with weights that are multiples of 2^-22. Here
    each weight is split into two halves of 11 bits, so that products in float32 are exact (for up to 8-fold reduction;
    beyond that a pixel could differ by 1). Pillow 13 begins with the columns where the height shrinks more than the
    width; this doesn't, as the protocols that need it are older.

    Args:
      images: uint8.
      size: height and width of the result.

    Returns:
      `[b, size, size, c]`, uint8.

    Raises:
      InvalidInputError: for other types, and for images or a size without pixels.

    References:
      Pillow's `Image.resize(..., Image.Resampling.BICUBIC)`, which torchvision's `Resize` calls for such images.

    Example:
      >>> print(bicubic_uint8(jnp.array([[0, 255]], jnp.uint8).reshape(1, 1, 2, 1), 4)[0, 0, :, 0])
      [  0  53 202 255]
    """
    _check(images, size)
    if images.dtype != jnp.uint8:
        raise InvalidInputError(f"images are of {images.dtype}: expected uint8, or `bicubic`")
    columns, rows = (_cubic_weights(length, size) for length in images.shape[1:3])
    return _pass("ph,bhwc->bpwc", columns, _pass("pw,bhwc->bhpc", rows, images))


def _check(images: Array, size: int) -> None:
    if images.ndim != 4 or 0 in images.shape or size < 1:
        raise InvalidInputError(f"images {images.shape}, size={size}: expected [b, h, w, c] and a size, all at least 1")


def _resized(images: Array, columns: np.ndarray, rows: np.ndarray) -> Array:
    images = images.astype(jnp.float32)
    images = jnp.einsum("pw,bhwc->bhpc", jnp.asarray(rows, jnp.float32), images, precision=_HIGHEST)
    return jnp.einsum("ph,bhwc->bpwc", jnp.asarray(columns, jnp.float32), images, precision=_HIGHEST)


def _pass(products: str, weights: np.ndarray, images: Array) -> Array:
    """One of Pillow's two passes over 8-bit images."""
    fixed = np.where(weights < 0, np.ceil(weights * 2.0**_BITS - 0.5), np.floor(weights * 2.0**_BITS + 0.5))
    high = np.floor(fixed / 2**_LOW)
    halves = [jnp.asarray(half, jnp.float32) for half in (high, fixed - high * 2**_LOW)]
    values = images.astype(jnp.float32)
    upper, lower = (jnp.einsum(products, h, values, precision=_HIGHEST).astype(jnp.int32) for h in halves)
    rounded = (upper * 2**_LOW + lower + 2 ** (_BITS - 1)) >> _BITS
    return jnp.clip(rounded, 0, 255).astype(jnp.uint8)


def _bilinear_weights(old: int, new: int) -> np.ndarray:
    positions = np.arange(new, dtype=np.float32) * (np.float32(old) / np.float32(new))
    low = positions.astype(np.int64)
    share = positions - low.astype(np.float32)
    weights = np.zeros((new, old))
    np.add.at(weights, (np.arange(new), low), 1.0 - share.astype(np.float64))
    np.add.at(weights, (np.arange(new), np.minimum(low + 1, old - 1)), share)
    return weights


def _cubic_weights(old: int, new: int) -> np.ndarray:
    scale = old / new
    wider = max(scale, 1.0)
    centers = (np.arange(new) + 0.5) * scale
    weights = cubic((np.arange(old) + 0.5 - centers[:, None]) / wider, -0.5)
    return weights / weights.sum(axis=1, keepdims=True)


def cubic(x: np.ndarray, a: float) -> np.ndarray:
    """The cubic convolution kernel: 1 at 0, 0 at all other integers and from 2 on; `a` is its slope at 1."""
    x = np.abs(x)
    near = ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
    far = (((x - 5.0) * x + 8.0) * x - 4.0) * a
    return np.where(x < 1.0, near, np.where(x < 2.0, far, 0.0))
