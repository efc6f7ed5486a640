"""Frechet distances between Gaussians fitted to features: FID, FD-DINOv2, and the same distance on other features."""

import functools
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from gan_jax.metrics.arrays import Features, check_features
from gan_jax.types import InvalidInputError

Vector = Float[np.ndarray, " d"]
Matrix = Float[np.ndarray, "d d"]


class Moments(NamedTuple):
    """The first two moments of a set of features, in float64.

    Attributes:
      size: number of samples.
      mean: mean of the samples, `[d]`.
      scatter: sum over the samples of the outer product of (sample - mean) with itself, `[d, d]`.
    """

    size: int
    mean: Vector
    scatter: Matrix

    @property
    def covariance(self) -> Matrix:
        """The covariance, scatter / (size - 1)."""
        if self.size < 2:
            raise InvalidInputError(f"moments of {self.size} samples: a covariance needs 2 or more")
        return self.scatter / (self.size - 1)


def moments(features: Features, *, block: int = 4096) -> Moments:
    """Computes the moments of a set of features, or of one part of it; `merge` combines parts.

    Args:
      features: features, `[n, d]`, n at least 1; converted to float64 one block at a time.
      block: number of samples in a block.

    Returns:
      The moments.

    Example:
      >>> found = moments(np.array([[0.0, 1.0], [2.0, 1.0]]))
      >>> found.mean.tolist(), found.covariance.tolist()
      ([1.0, 1.0], [[2.0, 0.0], [0.0, 0.0]])
    """
    check_features(1, features=features)

    def of(part: Features) -> Moments:
        wide = np.asarray(part, np.float64)
        mean = wide.mean(axis=0)
        centered = wide - mean
        return Moments(len(wide), mean, centered.T @ centered)

    return functools.reduce(merge, (of(features[low : low + block]) for low in range(0, len(features), block)))


def merge(a: Moments, b: Moments) -> Moments:
    """Merges the moments of two sets.

    n = n_a + n_b; d = mean_b - mean_a; mean = mean_a + d n_b / n; S = S_a + S_b + d d^T n_a n_b / n.

    Args:
      a: moments of one set.
      b: moments of another set.

    Returns:
      The moments of the union. The order of merging and the sizes of the parts change only the last bits.

    References:
      Chan, Golub and LeVeque, "Algorithms for Computing the Sample Variance: Analysis and Recommendations", The
      American Statistician, 1983.

    Example:
      >>> x = np.array([[0.0], [1.0], [5.0]])
      >>> merge(moments(x[:1]), moments(x[1:])).scatter.tolist() == moments(x).scatter.tolist()
      True
    """
    n = a.size + b.size
    difference = b.mean - a.mean
    scatter = a.scatter + b.scatter + np.outer(difference, difference) * (a.size * b.size / n)
    return Moments(n, a.mean + difference * (b.size / n), scatter)


def frechet_distance(a: Moments, b: Moments) -> float:
    """Computes the squared 2-Wasserstein distance between two Gaussians.

    ||mean_a - mean_b||^2 + Tr(C_a + C_b - 2 (C_a C_b)^(1/2)). The trace of the matrix root is the sum of the square
    roots of the eigenvalues of the symmetric matrix C_a^(1/2) C_b C_a^(1/2).

    Args:
      a: moments of one set of features, from `moments` and `merge`.
      b: moments of another set of features.

    Returns:
      The distance, at least 0 up to rounding, in squared units of the features. With Inception's features it is FID.

    Raises:
      InvalidInputError: if the features have different widths, or there are fewer than two samples.

    References:
      Dowson and Landau, "The Frechet distance between multivariate normal distributions", 1982; Heusel et al., "GANs
      Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium", arXiv:1706.08500, 2017. Public code
      takes the root of the unsymmetric product and drops the imaginary part of the result. Some of it first adds 1e-6
      to both diagonals if the product is singular. Symmetric eigenvalues need neither.

    Example:
      >>> x = np.array([[0.0], [2.0]])
      >>> frechet_distance(moments(x), moments(x + 3.0))
      9.0
    """
    if a.mean.shape != b.mean.shape:
        raise InvalidInputError(
            f"moments of {a.mean.shape[0]} and {b.mean.shape[0]} features: expected the same number"
        )
    # half is C_a^(1/2) times an orthogonal matrix, which leaves the eigenvalues of half^T C_b half unchanged.
    values, vectors = np.linalg.eigh(a.covariance)
    half = vectors * np.sqrt(np.maximum(values, 0.0))
    roots = np.sqrt(np.maximum(np.linalg.eigvalsh(half.T @ b.covariance @ half), 0.0))
    traces = np.trace(a.covariance) + np.trace(b.covariance) - 2.0 * roots.sum()
    return float(np.sum((a.mean - b.mean) ** 2) + traces)


def frechet_infinity(
    reference: Moments, features: Features, *, points: int = 15, smallest: int = 5000, seed: int = 0
) -> float:
    """Estimates the Frechet distance that infinitely many samples would have.

    The distance from N samples has a bias of about c / N. This function computes the distance on subsets of `points`
    sizes, evenly spaced from `smallest` to all samples. It fits d(N) = d_inf + c / N by least squares and returns
    d_inf.

    Args:
      reference: moments of the reference.
      features: features of the samples, `[n, d]`.
      points: number of subsets, at least 2.
      smallest: size of the smallest subset, less than n.
      seed: seed for drawing the subsets, each without replacement.

    Returns:
      d_inf, which can be slightly negative.

    Raises:
      InvalidInputError: if there are not more than `smallest` samples.

    References:
      Chong and Forsyth, "Effectively Unbiased FID and Inception Score and where to find them", arXiv:1911.07023, 2020.
      The authors draw latents from a Sobol sequence; this function takes any samples.

    Example:
      >>> x = np.random.default_rng(0).normal(size=(4000, 4))
      >>> abs(frechet_infinity(moments(x), x[:2000] + 1.0, smallest=200) - 4.0) < 0.2
      True
    """
    check_features(2, features=features)
    wide = np.asarray(features, np.float64)
    if points < 2 or not 2 <= smallest < len(wide):
        raise InvalidInputError(
            f"points={points}, smallest={smallest} of {len(wide)} samples: expected 2 points or more, and smallest "
            "from 2 to less than the number of samples"
        )
    random = np.random.default_rng(seed)
    sizes = np.linspace(smallest, len(wide), points).round().astype(int)
    distances = [frechet_distance(reference, moments(wide[random.permutation(len(wide))[:size]])) for size in sizes]
    return float(np.polyfit(1.0 / sizes, distances, 1)[1])
