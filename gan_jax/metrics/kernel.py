"""Maximum mean discrepancies with fixed kernels, used as metrics: KID and CMMD."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gan_jax.metrics.arrays import Features, OtherFeatures, check_features
from gan_jax.metrics.blocks import in_blocks
from gan_jax.metrics.exact import Points, bounds, from_differences, in_float64, prepare, relative_error
from gan_jax.types import InvalidInputError

_TOLERANCE = 4e-6  # worst case of a row's error in CMMD's kernel; unit vectors of CLIP's 768 features stay below it


class KernelDistance(NamedTuple):
    """The kernel distance over the subsets.

    Attributes:
      mean: the estimate, the mean over the subsets.
      std: standard deviation of the estimates of the subsets, not of their mean.
    """

    mean: float
    std: float


def kernel_distance(
    real: Features, fake: OtherFeatures, *, subsets: int = 100, subset_size: int = 1000, seed: int = 0
) -> KernelDistance:
    """Computes the kernel distance: the unbiased squared MMD with kernel (x^T y / d + 1)^3, over random subsets.

    sum over i != j of (k(r_i, r_j) + k(f_i, f_j)) / (s (s - 1)) - 2 sum over i, j of k(r_i, f_j) / s^2, with s the size
    of a subset.

    Args:
      real: features of the reals, `[n, d]`.
      fake: features of the fakes, `[m, d]`.
      subsets: number of subsets.
      subset_size: the size s of a subset, drawn from each side without replacement.
      seed: seed for drawing the subsets.

    Returns:
      Mean and standard deviation over the subsets. With Inception's features the mean is KID. It can be slightly
      negative.

    Raises:
      InvalidInputError: if a side has fewer than `subset_size` samples.

    References:
      Binkowski et al., "Demystifying MMD GANs", arXiv:1801.01401, 2018. Some public code prints it times 1000.
      Implementations draw the subsets from different random generators, so single values agree only to within their
      standard deviation.

    Example:
      >>> x = np.random.default_rng(0).normal(size=(2, 200, 4))
      >>> abs(kernel_distance(x[0], x[1], subsets=20, subset_size=100).mean) < 0.1
      True
    """
    check_features(2, real=real, fake=fake)
    least = min(len(real), len(fake))
    if not 2 <= subset_size <= least or subsets < 1:
        raise InvalidInputError(
            f"subsets={subsets} of subset_size={subset_size}, of {least} samples: expected 1 or more subsets, with "
            f"subset_size from 2 to {least}"
        )
    sides = np.asarray(real), np.asarray(fake)
    random = np.random.default_rng(seed)
    values = []
    for _ in range(subsets):
        r, f = (x[random.choice(len(x), subset_size, replace=False)].astype(np.float64) for x in sides)
        within = _kernel(r, r) + _kernel(f, f)
        apart = (within.sum() - np.trace(within)) / (subset_size * (subset_size - 1))
        values.append(apart - 2.0 * _kernel(r, f).mean())
    return KernelDistance(float(np.mean(values)), float(np.std(values)))


def _kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return (x @ y.T / x.shape[1] + 1.0) ** 3


def cmmd(real: Features, fake: OtherFeatures, *, sigma: float = 10.0) -> float:
    """Computes CMMD, 1000 times the squared MMD of CLIP embeddings with kernel exp(-||x - y||^2 / (2 sigma^2)).

    CMMD stands for CLIP maximum mean discrepancy. The means are over all pairs, including those of a sample with
    itself.

    Args:
      real: CLIP embeddings of the reals, `[n, d]`, of unit length.
      fake: CLIP embeddings of the fakes, `[m, d]`.
      sigma: width of the kernel, in units of the features.

    Returns:
      The distance, at least 0 up to rounding.

    References:
      Jayasumana et al., "Rethinking FID: Towards a Better Evaluation Metric for Image Generation", arXiv:2401.09603,
      2024, with CLIP ViT-L/14 at 336 pixels and sigma 10. For unit vectors the kernel is within 0.02 of 1. This
      function sums kernel - 1 to keep precision, since the ones cancel; rows far from the others, in units of sigma,
      are computed in float64.

    Example:
      >>> x = np.eye(3, dtype=np.float32)
      >>> round(cmmd(x, x), 6), round(cmmd(x[:1], -x[:1]), 3)
      (0.0, 39.603)
    """
    check_features(1, real=real, fake=fake)
    reals, fakes = prepare(real, fake)
    return 1000.0 * (_mean(reals, reals, sigma) + _mean(fakes, fakes, sigma) - 2.0 * _mean(reals, fakes, sigma))


def _mean(x: Points, y: Points, sigma: float) -> float:
    """Returns the mean of kernel - 1 over all pairs.

    Rows for which the bound on the error of float32 is above `_TOLERANCE` are computed in float64.
    """
    rows = np.asarray(_row_sums(x.device, y.device, sigma), np.float64)
    squares = [np.asarray(jnp.sum(z.device**2, axis=1), np.float64) for z in (x, y)]
    error = relative_error(x.device) * (squares[0] + np.mean(squares[1])) / (2.0 * sigma**2)
    for which, lower, upper in in_float64(x, y, ~(error <= _TOLERANCE)):
        squared = np.maximum(lower + upper, 0.0) / 2.0
        row, column = np.nonzero(~(upper - lower <= _TOLERANCE * sigma**2) & ~(lower > 100.0 * sigma**2))
        squared[row, column] = from_differences(x, y, which[row], column)
        rows[which] = np.expm1(-squared / (2.0 * sigma**2)).sum(axis=1)
    return float(rows.sum() / (len(x.host) * len(y.host)))


@jax.jit
def _row_sums(x: Float[Array, "n d"], y: Float[Array, "m d"], sigma: Array | float) -> Float[Array, " n"]:
    """Returns, for each x, the sum of kernel - 1 over y."""

    def add(total: Array, block: Array, valid: Array, first: Array) -> Array:
        del first
        lower, upper = bounds(x, block)
        values = jnp.expm1(-jnp.maximum(lower + upper, 0.0) / (4.0 * sigma**2))
        return total + jnp.sum(jnp.where(valid, values, 0.0), axis=1)

    return in_blocks(add, jnp.zeros(x.shape[0], x.dtype), y, x.shape[0])
