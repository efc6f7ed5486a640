"""Image resizing that reproduces the published metrics' code exactly, since FID depends on the resampling method.

All methods are linear in the pixels and separable. Each is therefore two matrix products; NumPy computes the matrices
when the function is traced.
"""

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Real, UInt8

from gan_jax.types import InvalidInputError

_BITS = 22  # fractional bits of the fixed-point weights that Pillow uses for 8-bit images
_LOW = 11  # how many of these bits are in the lower half
_HIGHEST = lax.Precision.HIGHEST


def tf1_bilinear(images: Real[Array, "b h w c"], size: int) -> Float[Array, "b size size c"]:
    """Resizes images with TensorFlow 1's default bilinear interpolation, as FID's original code does.

    Pixel i of the result is sampled at position i (old size / size) of the image, without the half-pixel offset that
    would centre it and without antialiasing: `tf.image.resize_bilinear(align_corners=False)`. Positions are computed in
    float32, as in TensorFlow.

    Args:
      images: images in 0..255, uint8 or float.
      size: height and width of the result.

    Returns:
      `[b, size, size, c]`, float32, not rounded.

    Raises:
      InvalidInputError: for images or a size without pixels.

    References:
      Heusel et al., "GANs Trained by a Two Time-Scale Update Rule", arXiv:1706.08500, 2017, whose network resizes its
      input this way;
      Parmar et al., "On Aliased Resizing and Surprising Subtleties in GAN Evaluation", arXiv:2104.11222, 2022.

    Example:
      >>> print(tf1_bilinear(jnp.array([[0.0, 4.0]]).reshape(1, 1, 2, 1), 4)[0, 0, :, 0])
      [0. 2. 4. 4.]
    """
    _check(images, size)
    return _resized(images, *(_bilinear_weights(length, size) for length in images.shape[1:3]))


def bicubic(images: Real[Array, "b h w c"], size: int) -> Float[Array, "b size size c"]:
    """Resizes images with antialiased bicubic interpolation, as Pillow does for float images: clean-fid's resizer.

    The cubic kernel has a = -1/2. For a reduction it is widened by the reduction factor. At the border it is cut off,
    and the remaining weights are divided by their sum.

    Args:
      images: images in 0..255, uint8 or float.
      size: height and width of the result.

    Returns:
      `[b, size, size, c]`, float32, neither rounded nor clipped: values can lie outside the range of the images.

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
    """Resizes uint8 images bit for bit as Pillow's bicubic filter does, rounding and clipping after each of two passes.

    Pillow resizes along the rows, then along the columns, in integers, with weights that are multiples of 2^-22. Here
    each weight is split into two halves of 11 bits, so that sums of float32 products are exact (for reductions of up to
    8-fold; beyond that a pixel could differ by 1). Pillow 13 resizes along the columns first if the height shrinks more
    than the width; this function does not, because the protocols that use it are older.

    Args:
      images: images, uint8.
      size: height and width of the result.

    Returns:
      `[b, size, size, c]`, uint8.

    Raises:
      InvalidInputError: for images of another dtype, and for images or a size without pixels.

    References:
      Pillow's `Image.resize(..., Image.Resampling.BICUBIC)`, which torchvision's `Resize` calls for 8-bit images.

    Example:
      >>> print(bicubic_uint8(jnp.array([[0, 255]], jnp.uint8).reshape(1, 1, 2, 1), 4)[0, 0, :, 0])
      [  0  53 202 255]
    """
    _check(images, size)
    if images.dtype != jnp.uint8:
        raise InvalidInputError(f"images are of {images.dtype}: expected uint8; for floats use `bicubic`")
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
    """Performs one of Pillow's two passes over 8-bit images."""
    fixed = np.where(weights < 0, np.ceil(weights * 2.0**_BITS - 0.5), np.floor(weights * 2.0**_BITS + 0.5))
    high = np.floor(fixed / 2**_LOW)
    halves = [jnp.asarray(half, jnp.float32) for half in (high, fixed - high * 2**_LOW)]
    values = images.astype(jnp.float32)
    upper, lower = (jnp.einsum(products, h, values, precision=_HIGHEST).astype(jnp.int32) for h in halves)
    # int32 is wide enough: in units of 2^-22, the sum of 255 times each weight stays below 2^31.
    rounded = (upper * 2**_LOW + lower + 2 ** (_BITS - 1)) >> _BITS
    return jnp.clip(rounded, 0, 255).astype(jnp.uint8)


def area(images: Float[Array, "b h w c"], size: int) -> Float[Array, "b size size c"]:
    """Resizes images by averaging: PyTorch's `interpolate(mode='area')`.

    Pixel i of the result is the mean of the old pixels from floor(i old / size) to ceil((i + 1) old / size) - 1. An
    enlargement by a whole factor repeats pixels.

    Args:
      images: images of any range.
      size: height and width of the result.

    Returns:
      `[b, size, size, c]`, float32.

    Raises:
      InvalidInputError: for images or a size without pixels.

    References:
      Sauer et al., "StyleGAN-T", arXiv:2301.09515, 2023, whose discriminator resizes its input this way.

    Example:
      >>> print(area(jnp.array([[0.0, 4.0, 8.0]]).reshape(1, 1, 3, 1), 2)[0, 0, :, 0])
      [2. 6.]
    """
    _check(images, size)
    return _resized(images, *(_area_weights(length, size) for length in images.shape[1:3]))


def _area_weights(old: int, new: int) -> np.ndarray:
    low, high = (np.arange(new) * old) // new, -(-((np.arange(new) + 1) * old) // new)
    place = np.arange(old)
    inside = (place >= low[:, None]) & (place < high[:, None])
    return inside / inside.sum(axis=1, keepdims=True)


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
    """Evaluates the cubic convolution kernel: 1 at 0, 0 at all other integers and beyond 2; `a` is its slope at 1."""
    x = np.abs(x)
    near = ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
    far = (((x - 5.0) * x + 8.0) * x - 4.0) * a
    return np.where(x < 1.0, near, np.where(x < 2.0, far, 0.0))
