"""Distances between an image and its target, for image translation, reconstruction and restoration."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gan_jax.types import InvalidInputError, check_same_shape

Images = Float[Array, "b *rest"]
Each = Float[Array, " b"]
_RADIUS, _SIGMA = 5, 1.5  # SSIM's Gaussian window, 11 pixels wide


def l1(output: Images, target: Images) -> Each:
    """Computes the mean absolute error of each image.

    mean |x - y| over all axes but the first.

    Args:
      output: output images, `[b, ...]`.
      target: target images, of the same shape.

    Returns:
      `[b]`, in units of the images: from 0 to 2 for images in [-1, 1].

    Raises:
      InvalidInputError: if the shapes differ.

    Example:
      >>> print(l1(jnp.ones((1, 2, 2, 1)), jnp.zeros((1, 2, 2, 1))))
      [1.]
    """
    check_same_shape(output=output, target=target)
    return _mean(jnp.abs(output - target))


def psnr(output: Images, target: Images, *, data_range: float = 2.0) -> Each:
    """Computes the peak signal-to-noise ratio of each image, in decibels; higher is better.

    10 log10(data_range^2 / mean (x - y)^2), with the mean over all axes but the first.

    Args:
      output: output images, `[b, ...]`.
      target: target images, of the same shape.
      data_range: difference between the largest and the smallest possible value: 2 for images in [-1, 1].

    Returns:
      `[b]`; infinite where an image equals its target exactly.

    Raises:
      InvalidInputError: if the shapes differ.

    References:
      Public code differs in what it averages. Here, as in scikit-image, each image has one value, and the value of a
      data set is the mean of these. torchmetrics by default takes the mean square over the whole data set first, which
      gives a smaller value.

    Example:
      >>> print(psnr(jnp.full((1, 2, 2, 1), 0.2), jnp.zeros((1, 2, 2, 1))))
      [20.]
    """
    check_same_shape(output=output, target=target)
    return 10.0 * jnp.log10(data_range**2 / _mean((output - target) ** 2))


def ssim(output: Images, target: Images, *, data_range: float = 2.0, lowest: float = -1.0) -> Each:
    """Computes the structural similarity of each image; higher is better, and 1 means the same image.

    The mean over positions and channels of
    (2 m_x m_y + c1) (2 s_xy + c2) / ((m_x^2 + m_y^2 + c1) (s_x^2 + s_y^2 + c2)).
    Means m, variances s^2 and covariances s_xy are taken under a Gaussian window of standard deviation 1.5, 11 pixels
    wide, at all positions where the window lies inside the image. c1 = (0.01 data_range)^2, c2 = (0.03 data_range)^2.
    Intensities are measured from the darkest value: `lowest` is subtracted first, because around 0 the comparison of
    means is meaningless.

    Args:
      output: output images, `[b, ..., h, w, c]`; further axes may be the frames of clips.
      target: target images, of the same shape.
      data_range: difference between the largest and the smallest possible value: 2 for images in [-1, 1].
      lowest: smallest possible value.

    Returns:
      `[b]`, from -1 to 1.

    Raises:
      InvalidInputError: if the shapes differ, or the images are smaller than the window.

    References:
      Wang, Bovik, Sheikh and Simoncelli, "Image Quality Assessment: From Error Visibility to Structural Similarity",
      IEEE Transactions on Image Processing 13(4), 2004. The paper defines it for grey images; for colours the mean over
      channels is taken, as in scikit-image and torchmetrics. scikit-image has this window and these variances with
      gaussian_weights=True, sigma=1.5, use_sample_covariance=False; its default window is a square of 7 pixels. Both
      libraries take values as they are: images in [-1, 1] must be shifted first.

    Example:
      >>> image = jnp.linspace(-1.0, 1.0, 144).reshape(1, 12, 12, 1)
      >>> print(ssim(image, image))
      [1.]
    """
    check_same_shape(output=output, target=target)
    if output.ndim < 4 or min(output.shape[-3:-1]) < 2 * _RADIUS + 1:
        raise InvalidInputError(
            f"images of shape {output.shape}: expected [b, ..., h, w, c] of {2 * _RADIUS + 1} pixels or more a side"
        )

    def blur(x: Array) -> Array:
        rows, columns = (jnp.asarray(_window(size), x.dtype) for size in x.shape[-3:-1])
        return jnp.einsum("...hwc,Hh,Ww->...HWc", x, rows, columns, precision="highest")

    # Variances are of the values about each image's own mean, where their squares are small and lose less to rounding.
    grounds = [jnp.mean(x, axis=tuple(range(1, x.ndim)), keepdims=True) for x in (output, target)]
    output, target = output - grounds[0], target - grounds[1]
    mean_x, mean_y = blur(output), blur(target)
    variances = blur(output**2) - mean_x**2 + blur(target**2) - mean_y**2
    covariance = blur(output * target) - mean_x * mean_y
    mean_x, mean_y = (mean + (ground - lowest) for mean, ground in zip((mean_x, mean_y), grounds, strict=True))
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    return _mean(luminance * (2 * covariance + c2) / (variances + c2))


def feature_distance(output: Float[Array, "b d"], target: Float[Array, "b d"]) -> Each:
    """Computes the squared distance between the directions of two feature vectors, for each pair.

    |f / |f| - g / |g||^2 = 2 - 2 cos(f, g). A vector of zeros has no direction and stays zero.

    Args:
      output: features of the output images from a fixed network, `[b, d]`.
      target: features of the target images, of the same shape.

    Returns:
      `[b]`, from 0 to 4; at most 2 for non-negative features.

    Raises:
      InvalidInputError: if the shapes differ.

    References:
      LPIPS (Zhang et al., arXiv:1801.03924, 2018) is such a distance over the feature maps of several layers, with
      learned weights; see `losses.perceptual(..., normalize=True)`.

    Example:
      >>> print(feature_distance(jnp.array([[3.0, 0.0]]), jnp.array([[0.0, 2.0]])))
      [2.]
    """
    check_same_shape(output=output, target=target)

    def unit(x: Array) -> Array:
        length = jnp.linalg.norm(x, axis=-1, keepdims=True)
        return x / jnp.where(length > 0, length, 1.0)

    return jnp.sum((unit(output) - unit(target)) ** 2, axis=-1)


def _mean(x: Array) -> Each:
    return jnp.mean(x.reshape(x.shape[0], -1), axis=1)


def _window(size: int) -> np.ndarray:
    """Returns the Gaussian window at every position where it lies inside the axis, as a matrix `[size - 10, size]`."""
    weights = np.exp(-0.5 * (np.arange(-_RADIUS, _RADIUS + 1) / _SIGMA) ** 2)
    weights /= weights.sum()
    matrix = np.zeros((size - 2 * _RADIUS, size))
    for row in range(len(matrix)):
        matrix[row, row : row + len(weights)] = weights
    return matrix
