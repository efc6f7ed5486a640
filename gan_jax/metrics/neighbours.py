"""Metrics based on exact nearest neighbours: precision and recall, density and coverage."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import dtypes
from jaxtyping import Array, Float, Int

from gan_jax.metrics.arrays import Features, OtherFeatures, check_features
from gan_jax.metrics.blocks import in_blocks, squared_distances
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
      code computes distances of half-precision features; here the features are float32.

    Example:
      >>> x = np.arange(8.0, dtype=np.float32)[:, None]
      >>> precision_recall(x, x[:4] + 0.5, k=1)
      PrecisionRecall(precision=1.0, recall=0.625)
    """
    real, fake = _prepared(real, fake, k)
    inside_real = np.asarray(_count(fake, real, _radii(real, k))) > 0
    inside_fake = np.asarray(_count(real, fake, _radii(fake, k))) > 0
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
    real, fake = _prepared(real, fake, k)
    radii = _radii(real, k)
    held = np.asarray(_count(fake, real, radii), np.int64)
    reached = np.asarray(_nearest(real, fake, 1, False)[0][:, 0] <= radii)
    return DensityCoverage(float(held.sum() / (k * len(held))), float(np.mean(reached)))


def nearest(queries: Features, references: OtherFeatures, k: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Finds the k nearest references of each query.

    Args:
      queries: features of the queries, `[n, d]`.
      references: features of the references, `[m, d]`.
      k: number of references to find for each query, at most m.

    Returns:
      Euclidean distances `[n, k]`, in increasing order, and indices `[n, k]` of the references.

    Raises:
      InvalidInputError: if there are fewer references than k.

    Example:
      >>> nearest(np.array([[0.9]], np.float32), np.array([[0.0], [1.0]], np.float32))[1].tolist()
      [[1]]
    """
    check_features(1, queries=queries, references=references)
    if not 1 <= k <= len(references):
        raise InvalidInputError(f"k={k} of {len(references)} references: expected 1 to {len(references)}")
    near, far = _centered(queries, references)
    squared, index = _nearest(near, far, k, False)
    return np.sqrt(np.asarray(squared)), np.asarray(index)


def _prepared(real: Features, fake: OtherFeatures, k: int) -> tuple[Array, Array]:
    if k < 1:
        raise InvalidInputError(f"k={k}: expected 1 or more")
    check_features(k + 1, real=real, fake=fake)
    return _centered(real, fake)


def _centered(a: Features, b: OtherFeatures) -> tuple[Array, Array]:
    """Returns both sets in float32 or wider, shifted by the mean of b.

    Squared distances lose less to rounding near the origin.
    """
    a, b = (jnp.asarray(x, dtypes.canonicalize_dtype(jnp.promote_types(x.dtype, jnp.float32))) for x in (a, b))
    center = jnp.mean(b, axis=0)
    return a - center, b - center


def _radii(x: Array, k: int) -> Array:
    """Returns the squared distance of each sample to its k-th nearest other sample."""
    return _nearest(x, x, k, True)[0][:, -1]


@functools.partial(jax.jit, static_argnames=("k", "others"))
def _nearest(
    queries: Float[Array, "n d"], references: Float[Array, "m d"], k: int, others: bool
) -> tuple[Float[Array, "n k"], Int[Array, "n k"]]:
    """Returns the squared distances and indices of the k nearest references of each query.

    With `others` both sets are the same, and a sample is not its own neighbour.
    """
    n = queries.shape[0]

    def keep(best: tuple[Array, Array], block: Array, valid: Array, first: Array) -> tuple[Array, Array]:
        index = first + jnp.arange(block.shape[0])
        allowed = valid & (index != jnp.arange(n)[:, None]) if others else valid
        squared = jnp.where(allowed, squared_distances(queries, block), jnp.inf)
        # A place below k is one of the best of earlier blocks; the others count the references of this block.
        found, place = jax.lax.top_k(-jnp.concatenate([best[0], squared], axis=1), k)
        before = jnp.take_along_axis(best[1], jnp.minimum(place, k - 1), axis=1)
        return -found, jnp.where(place < k, before, first + place - k)

    start = jnp.full((n, k), jnp.inf, queries.dtype), jnp.zeros((n, k), jnp.int32)
    return in_blocks(keep, start, references, n)


@jax.jit
def _count(queries: Float[Array, "n d"], centers: Float[Array, "m d"], radii: Float[Array, " m"]) -> Int[Array, " n"]:
    """Returns, for each query, the number of balls with these squared radii that it lies in."""

    def add(total: Array, block: tuple[Array, Array], valid: Array, first: Array) -> Array:
        del first
        inside = (squared_distances(queries, block[0]) <= block[1]) & valid
        return total + jnp.sum(inside, axis=1, dtype=jnp.int32)

    return in_blocks(add, jnp.zeros(queries.shape[0], jnp.int32), (centers, radii), queries.shape[0])
