"""Fréchet distances between Gaussians fitted to features: FID, FD-DINOv2, and what else has other features."""

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
      size: samples.
      mean: `[d]`.
      scatter: sum of outer products of the samples less their mean, `[d, d]`.
    """

    size: int
    mean: Vector
    scatter: Matrix

    @property
    def covariance(self) -> Matrix:
        """Scatter / (size - 1)."""
        if self.size < 2:
            raise InvalidInputError(f"moments of {self.size} samples: a covariance needs 2 or more")
        return self.scatter / (self.size - 1)


def moments(features: Features, *, block: int = 4096) -> Moments:
    """The moments of a set, or of one part of it; `merge` adds parts up.

    Args:
      features: `[n, d]`, n at least 1; widened to float64, a block at a time.
      block: samples in one.

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
    """The moments of two sets together.

    n = n_a + n_b; d = mean_b - mean_a; mean = mean_a + d n_b / n; S = S_a + S_b + d dᵀ n_a n_b / n.

    Args:
      a: of one set.
      b: of another.

    Returns:
      Those of their union. The order of merging, and the sizes of batches, change the last bits only.

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
    """The squared 2-Wasserstein distance between two Gaussians.

    ||mean_a - mean_b||² + Tr(C_a + C_b - 2 (C_a C_b)^½), whose last trace is the sum of the roots of the eigenvalues of
    the symmetric C_a^½ C_b C_a^½.

    Args:
      a: moments of one set of features, by `moments` and `merge`.
      b: of another.

    Returns:
      The distance, at least 0 up to rounding; in squared units of the features. With Inception's features, FID.

    Raises:
      InvalidInputError: for features of different widths, or fewer than two samples.

    References:
      Dowson and Landau, "The Fréchet distance between multivariate normal distributions", 1982; Heusel et al., "GANs
      Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium", arXiv:1706.08500, 2017.
      Public code takes the root of the unsymmetric product and drops the imaginary part of what comes out, some of it
      after adding 1e-6 to both diagonals where the product is singular. Symmetric eigenvalues need neither.

    Example:
      >>> x = np.array([[0.0], [2.0]])
      >>> frechet_distance(moments(x), moments(x + 3.0))
      9.0
    """
    if a.mean.shape != b.mean.shape:
        raise InvalidInputError(f"moments of {a.mean.shape[0]} and {b.mean.shape[0]} features: expected as many")
    values, vectors = np.linalg.eigh(a.covariance)
    half = vectors * np.sqrt(np.maximum(values, 0.0))
    roots = np.sqrt(np.maximum(np.linalg.eigvalsh(half.T @ b.covariance @ half), 0.0))
    traces = np.trace(a.covariance) + np.trace(b.covariance) - 2.0 * roots.sum()
    return float(np.sum((a.mean - b.mean) ** 2) + traces)


def frechet_infinity(
    reference: Moments, features: Features, *, points: int = 15, smallest: int = 5000, seed: int = 0
) -> float:
    """The Fréchet distance that infinitely many samples would have.

    Distances from N samples are biased by about c / N. This fits d(N) = d∞ + c / N by least squares, to subsets of
    `points` sizes, evenly spaced from `smallest` to all, and returns d∞.

    Args:
      reference: moments of the reference.
      features: of the samples, `[n, d]`.
      points: subsets, at least 2.
      smallest: size of the smallest, less than n.
      seed: of the subsets' draws, without replacement.

    Returns:
      d∞; it can be slightly negative.

    Raises:
      InvalidInputError: where there are not more than `smallest` samples.

    References:
      Chong and Forsyth, "Effectively Unbiased FID and Inception Score and where to find them", arXiv:1911.07023, 2020,
      who draw latents by a Sobol sequence; here any samples do.

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
            "between 2 and the number of samples"
        )
    random = np.random.default_rng(seed)
    sizes = np.linspace(smallest, len(wide), points).round().astype(int)
    distances = [frechet_distance(reference, moments(wide[random.permutation(len(wide))[:size]])) for size in sizes]
    return float(np.polyfit(1.0 / sizes, distances, 1)[1])
