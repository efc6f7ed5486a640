"""Metrics based on exact nearest neighbours: precision and recall, density and coverage.

Their values are those of the definition in float64, whatever the features' dtype, offset and outliers (`exact`).
"""

from typing import NamedTuple

import numpy as np

from gan_jax.metrics import exact
from gan_jax.metrics.arrays import Features, OtherFeatures, check_features
from gan_jax.types import InvalidInputError


class PrecisionRecall(NamedTuple):
    """Precision and recall, both in [0, 1].

    Attributes:
      precision: share of fakes that lie in the estimated manifold of the reals.
      recall: share of reals that lie in the estimated manifold of the fakes.
    """

    precision: float
    recall: float


class DensityCoverage(NamedTuple):
    """Density and coverage of fakes in the neighbourhoods of reals.

    Attributes:
      density: mean number of reals' balls that a fake lies in, divided by k; at least 0. Its expectation is 1 if both
        distributions are the same.
      coverage: share of reals with a fake in their ball, in [0, 1].
    """

    density: float
    coverage: float


def precision_recall(real: Features, fake: OtherFeatures, *, k: int = 3) -> PrecisionRecall:
    """Computes improved precision and recall.

    The manifold of a set is estimated as the union of balls around its samples. The radius of each ball is the distance
    to the k-th nearest other sample of the same set.

    Args:
      real: features of the reals, `[n, d]`, n > k.
      fake: features of the fakes, `[m, d]`, m > k. Most papers take n = m, and both values depend on it.
      k: number of neighbours.

    Returns:
      Precision and recall.

    Raises:
      InvalidInputError: if a set has k samples or fewer.

    References:
      Kynkaanniemi et al., "Improved Precision and Recall Metric for Assessing Generative Models", arXiv:1904.06991,
      2019. A point on the surface of a ball is inside, as in the authors' code; in `prdc` it is outside. StyleGAN's
      code computes distances of half-precision features; here all comparisons are those of float64.

    Example:
      >>> x = np.arange(8.0, dtype=np.float32)[:, None]
      >>> precision_recall(x, x[:4] + 0.5, k=1)
      PrecisionRecall(precision=1.0, recall=0.625)
    """
    reals, fakes = _prepared(real, fake, k)
    inside_real = exact.count_inside(fakes, reals, _radii(reals, k)) > 0
    inside_fake = exact.count_inside(reals, fakes, _radii(fakes, k)) > 0
    return PrecisionRecall(float(np.mean(inside_real)), float(np.mean(inside_fake)))


def density_coverage(real: Features, fake: OtherFeatures, *, k: int = 5) -> DensityCoverage:
    """Computes density and coverage.

    The balls around the reals are those of `precision_recall`. density = (1 / (k m)) sum over fakes of the number of
    balls that contain the fake; coverage = share of balls that contain a fake.

    Args:
      real: features of the reals, `[n, d]`, n > k.
      fake: features of the fakes, `[m, d]`, m > k.
      k: number of neighbours.

    Returns:
      Density and coverage.

    Raises:
      InvalidInputError: if a set has k samples or fewer.

    References:
      Naeem et al., "Reliable Fidelity and Diversity Metrics for Generative Models", arXiv:2002.09797, 2020. A point on
      the surface of a ball is inside here; in the authors' code it is outside.

    Example:
      >>> x = np.arange(8.0, dtype=np.float32)[:, None]
      >>> density_coverage(x, x[:4] + 0.5, k=1)
      DensityCoverage(density=2.0, coverage=0.625)
    """
    reals, fakes = _prepared(real, fake, k)
    radii = _radii(reals, k)
    held = exact.count_inside(fakes, reals, radii)
    reached = exact.nearest(reals, fakes, 1)[0][:, 0] <= radii
    return DensityCoverage(float(held.sum() / (k * len(held))), float(np.mean(reached)))


def nearest(queries: Features, references: OtherFeatures, k: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Finds the k nearest references of each query.

    Args:
      queries: features of the queries, `[n, d]`.
      references: features of the references, `[m, d]`.
      k: number of references to find for each query, at most m.

    Returns:
      Euclidean distances `[n, k]`, float64, in increasing order, and indices `[n, k]` of the references.

    Raises:
      InvalidInputError: if there are fewer references than k.

    Example:
      >>> nearest(np.array([[0.9]], np.float32), np.array([[0.0], [1.0]], np.float32))[1].tolist()
      [[1]]
    """
    check_features(1, queries=queries, references=references)
    if not 1 <= k <= len(references):
        raise InvalidInputError(f"k={k} of {len(references)} references: expected 1 to {len(references)}")
    squared, index = exact.nearest(*exact.prepare(queries, references), k)
    return np.sqrt(squared), index


def _prepared(real: Features, fake: OtherFeatures, k: int) -> tuple[exact.Points, exact.Points]:
    if k < 1:
        raise InvalidInputError(f"k={k}: expected 1 or more")
    check_features(k + 1, real=real, fake=fake)
    return exact.prepare(real, fake)


def _radii(points: exact.Points, k: int) -> np.ndarray:
    """Returns the squared distance of each point to its k-th nearest other point."""
    return exact.nearest(points, points, k, others=True)[0][:, -1]
