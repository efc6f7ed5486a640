"""Metrics by exact nearest neighbours: precision and recall, density and coverage."""

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
    """Shares, in [0, 1].

    Attributes:
      precision: of fakes that lie in the estimated manifold of the reals.
      recall: of reals that lie in that of the fakes.
    """

    precision: float
    recall: float


class DensityCoverage(NamedTuple):
    """Of fakes about reals.

    Attributes:
      density: mean number of reals' balls that a fake lies in, over k; at least 0, and 1 in expectation where both
        distributions are the same.
      coverage: share of reals with a fake in their ball, in [0, 1].
    """

    density: float
    coverage: float


def precision_recall(real: Features, fake: OtherFeatures, *, k: int = 3) -> PrecisionRecall:
    """Improved precision and recall.

    A manifold is the union of balls about its samples, each as wide as the distance to the k-th nearest other sample of
    the same set.

    Args:
      real: `[n, d]`, n > k.
      fake: `[m, d]`, m > k; most papers take n = m, and both values depend on it.
      k: neighbours.

    Returns:
      Both shares.

    Raises:
      InvalidInputError: for no more than k samples of a kind.

    References:
      Kynkäänniemi et al., "Improved Precision and Recall Metric for Assessing Generative Models", arXiv:1904.06991,
      2019. A point on the surface of a ball is inside, as in the authors' code; it is outside in `prdc`'s. StyleGAN's
      code takes distances of features in half precision; here they are of float32.

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
    """Density and coverage.

    With balls about the reals as in `precision_recall`: density = (1 / (k m)) sum over fakes of the number of balls
    that hold it; coverage = share of balls that hold a fake.

    Args:
      real: `[n, d]`, n > k.
      fake: `[m, d]`.
      k: neighbours.

    Returns:
      Both.

    Raises:
      InvalidInputError: for no more than k samples of a kind.

    References:
      Naeem et al., "Reliable Fidelity and Diversity Metrics for Generative Models", arXiv:2002.09797, 2020. A point on
      the surface of a ball is inside here, outside in the authors' code.

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
    """The k nearest references of each query.

    Args:
      queries: `[n, d]`.
      references: `[m, d]`.
      k: how many, at most m.

    Returns:
      Euclidean distances `[n, k]`, from the nearest on, and indices `[n, k]` of the references.

    Raises:
      InvalidInputError: for fewer references than k.

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
    """Both in float32 or wider, moved near the origin, where squared distances lose less to rounding."""
    a, b = (jnp.asarray(x, dtypes.canonicalize_dtype(jnp.promote_types(x.dtype, jnp.float32))) for x in (a, b))
    center = jnp.mean(b, axis=0)
    return a - center, b - center


def _radii(x: Array, k: int) -> Array:
    """Squared distance of each to its k-th nearest other."""
    return _nearest(x, x, k, True)[0][:, -1]


@functools.partial(jax.jit, static_argnames=("k", "others"))
def _nearest(
    queries: Float[Array, "n d"], references: Float[Array, "m d"], k: int, others: bool
) -> tuple[Float[Array, "n k"], Int[Array, "n k"]]:
    """Squared distances and indices of the k nearest; of others, where a query must not find itself."""
    n = queries.shape[0]

    def keep(best: tuple[Array, Array], block: Array, valid: Array, first: Array) -> tuple[Array, Array]:
        index = first + jnp.arange(block.shape[0])
        allowed = valid & (index != jnp.arange(n)[:, None]) if others else valid
        squared = jnp.where(allowed, squared_distances(queries, block), jnp.inf)
        found, place = jax.lax.top_k(-jnp.concatenate([best[0], squared], axis=1), k)
        before = jnp.take_along_axis(best[1], jnp.minimum(place, k - 1), axis=1)
        return -found, jnp.where(place < k, before, first + place - k)

    start = jnp.full((n, k), jnp.inf, queries.dtype), jnp.zeros((n, k), jnp.int32)
    return in_blocks(keep, start, references, n)


@jax.jit
def _count(queries: Float[Array, "n d"], centers: Float[Array, "m d"], radii: Float[Array, " m"]) -> Int[Array, " n"]:
    """In how many balls of these squared radii each query lies."""

    def add(total: Array, block: tuple[Array, Array], valid: Array, first: Array) -> Array:
        del first
        inside = (squared_distances(queries, block[0]) <= block[1]) & valid
        return total + jnp.sum(inside, axis=1, dtype=jnp.int32)

    return in_blocks(add, jnp.zeros(queries.shape[0], jnp.int32), (centers, radii), queries.shape[0])
