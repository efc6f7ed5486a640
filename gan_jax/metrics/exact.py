"""Squared distances of all pairs with float64's decisions, at the speed of float32.

|x|^2 + |y|^2 - 2 x.y needs one matrix product, but its terms cancel: points that lie close together, far from the
centre, lose their distance to rounding. So each value has a bound on its error. What float32 on the devices decides
within the bounds is final. Rows with an undecided pair are computed again in float64 on the host, about their own
centre; pairs that are undecided still, such as ties, come from the differences. So neighbours and counts are those of
sum (x - y)^2 in float64, and features without close ties seldom leave the first stage.
"""

import functools
from collections.abc import Iterator
from concurrent import futures
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from gan_jax.metrics.arrays import Features, OtherFeatures
from gan_jax.metrics.blocks import in_blocks

Pairs = Float[Array, "n m"] | Float[np.ndarray, "n m"]
_SPARE = 6  # candidates beyond the k nearest, so that the bounds can show that no other reference is nearer
_SAMPLE = 256  # rows that a centre is the median of
_CELLS = 2**23  # pairs in an array of the host: 64 MiB of float64
_CACHED = 2**17  # differences in an array of the host: 1 MiB of float64, which stays in a processor's cache


class Points(NamedTuple):
    """One set of points.

    Attributes:
      host: the points as given, `[n, d]`.
      device: the points about the centre that both sets of a call share, float32, on the devices.
    """

    host: Float[np.ndarray, "n d"]
    device: Float[Array, "n d"]


def prepare(a: Features, b: OtherFeatures) -> tuple[Points, Points]:
    """Moves both sets to the median of b, where squares are small, and rounds them to float32.

    Float32 arrays of JAX stay on the devices that hold them. Float64 is rounded only after the centre is subtracted.
    """
    on_devices = all(isinstance(x, jax.Array) and x.dtype.itemsize <= 4 for x in (a, b))
    wide = np.promote_types(np.promote_types(a.dtype, b.dtype), np.float32)
    center = _center(b).astype(wide)

    def moved(x: Features) -> Array:
        if on_devices:
            return jnp.asarray(x, jnp.float32) - center
        with np.errstate(over="ignore"):  # what float32 cannot hold is undecided there
            return jnp.asarray((np.asarray(x, wide) - center).astype(np.float32))

    first, second = (Points(np.asarray(x), moved(x)) for x in (a, b))
    return first, second


def bounds(x: Features, y: OtherFeatures) -> tuple[Pairs, Pairs]:
    """Returns lower and upper bounds of all ||x_i - y_j||^2, computed by NumPy for arrays of NumPy.

    Their distance is four times the sum of the worst cases: of the coordinates, rounded to this dtype, of the product
    and of the two norms. It is infinite or NaN where squares overflow.
    """
    on_host = isinstance(x, np.ndarray)
    x2, y2 = (x**2).sum(-1)[:, None], (y**2).sum(-1)
    products = x @ y.T if on_host else jnp.matmul(x, y.T, precision=jax.lax.Precision.HIGHEST)
    # devices flush squares below `tiny` to zero
    floor = 0.0 if on_host else 8.0 * x.shape[1] * float(jnp.finfo(x.dtype).tiny)
    error = relative_error(x)
    lower = (x2 * (1.0 - error) - floor) + y2 * (1.0 - error) - 2.0 * products
    return lower, (x2 * (1.0 + error) + floor) + y2 * (1.0 + error) - 2.0 * products


def relative_error(x: Features) -> float:
    """Returns the error that `bounds` allows a squared distance, as a multiple of |x|^2 + |y|^2."""
    return 2.0 * (x.shape[1] + 8) * float(jnp.finfo(x.dtype).eps)


def nearest(
    queries: Points, references: Points, k: int, *, others: bool = False
) -> tuple[Float[np.ndarray, "n k"], Int[np.ndarray, "n k"]]:
    """Finds the k nearest references of each query.

    Args:
      queries: the queries.
      references: the references.
      k: number of references to find, at most their number.
      others: both sets are the same, and a point is not its own neighbour.

    Returns:
      Squared distances in float64, in increasing order, and indices of the references.
    """
    n, m = len(queries.host), len(references.host)
    kept = min(k + _SPARE, m - others)

    def on_devices(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        del rows  # all of them
        lower, index = _candidates(queries.device, references.device, kept, others)
        return np.asarray(lower), np.asarray(index)

    def on_host(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        lower, _ = bounds(*_centered(queries.host[rows], references.host))
        lower = np.where(np.isfinite(lower), lower, -np.inf)
        lower[others & (rows[:, None] == np.arange(m))] = np.inf
        index = np.argpartition(lower, kept - 1)[:, :kept]
        return np.take_along_axis(lower, index, 1), index

    def everything(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        index = np.broadcast_to(np.arange(m - others), (len(rows), m - others))
        return np.full((len(rows), 1), np.inf), index + (index >= rows[:, None]) * others

    squared, index = np.zeros((n, k)), np.zeros((n, k), np.int64)
    undecided = np.ones(n, bool)
    stages = ((on_devices, n), (on_host, max(1, _CELLS // m)), (everything, max(1, _CELLS // m)))
    for candidates, size in stages:
        for rows in _chunks(np.flatnonzero(undecided), size):
            lower, found = candidates(rows)
            found = np.sort(found, axis=1)  # of references at the same distance the first one
            exact = from_differences(queries, references, np.repeat(rows, found.shape[1]), found.ravel()).reshape(
                found.shape
            )
            order = np.argsort(exact, axis=1, kind="stable")[:, :k]
            squared[rows], index[rows] = (np.take_along_axis(x, order, 1) for x in (exact, found))
            farther = squared[rows, -1] > lower.max(axis=1)  # than what was left out may be
            undecided[rows] = farther & (found.shape[1] < m - others)
    return squared, index


def count_inside(queries: Points, centers: Points, radii: Float[np.ndarray, " m"]) -> Int[np.ndarray, " n"]:
    """Counts, for each query, the balls with these squared radii that it lies in; a point on the surface is inside."""
    known = np.minimum(radii, np.finfo(np.float32).max)
    sure, possible = (np.asarray(x) for x in _count(queries.device, centers.device, jnp.asarray(known, jnp.float32)))
    counts = sure.astype(np.int64)
    for rows, lower, upper in in_float64(queries, centers, sure != possible):
        inside = upper <= radii
        row, column = np.nonzero(~inside & ~((lower > radii) & np.isfinite(lower)))
        ties = row[from_differences(queries, centers, rows[row], column) <= radii[column]]
        counts[rows] = inside.sum(axis=1) + np.bincount(ties, minlength=len(rows))
    return counts


def in_float64(
    queries: Points, references: Points, which: Bool[np.ndarray, " n"]
) -> Iterator[tuple[Int[np.ndarray, " rows"], Pairs, Pairs]]:
    """Yields, for chunks of the rows `which`, their indices and float64 bounds of their squared distances."""
    for rows in _chunks(np.flatnonzero(which), max(1, _CELLS // len(references.host))):
        yield rows, *bounds(*_centered(queries.host[rows], references.host))


def _chunks(rows: np.ndarray, size: int) -> Iterator[np.ndarray]:
    return (rows[low : low + size] for low in range(0, len(rows), size))


def _center(x: Features) -> np.ndarray:
    """Returns the median of some rows: outliers do not move it, and it is a point itself where most are the same."""
    return np.median(np.asarray(x[:: -(-len(x) // _SAMPLE)], np.float64), axis=0)


def _centered(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    center = _center(x)
    return x - center, y - center


def from_differences(queries: Points, references: Points, i: np.ndarray, j: np.ndarray) -> Float[np.ndarray, " pairs"]:
    """Returns the squared distances of pairs in float64, from the differences, so that nothing cancels."""
    pairs = np.zeros(len(i))

    def fill(part: slice) -> None:
        difference = queries.host[i[part]].astype(np.float64) - references.host[j[part]]
        pairs[part] = np.sum(difference * difference, axis=1)

    size = max(1, _CACHED // queries.host.shape[1])
    with futures.ThreadPoolExecutor() as pool:  # NumPy releases the interpreter lock
        list(pool.map(fill, (slice(low, low + size) for low in range(0, len(i), size))))
    return pairs


@functools.partial(jax.jit, static_argnames=("k", "others"))
def _candidates(
    queries: Float[Array, "n d"], references: Float[Array, "m d"], k: int, others: bool
) -> tuple[Float[Array, "n k"], Int[Array, "n k"]]:
    """Returns the k references that can be nearest to each query: the least squared distances that the bounds allow.

    No other reference is nearer than the greatest of them.
    """
    n = queries.shape[0]

    def keep(best: tuple[Array, Array], block: Array, valid: Array, first: Array) -> tuple[Array, Array]:
        index = first + jnp.arange(block.shape[0], dtype=jnp.int32)
        allowed = valid & (index != jnp.arange(n)[:, None]) if others else valid
        lower, _ = bounds(queries, block)
        lower = jnp.where(allowed, jnp.where(jnp.isfinite(lower), lower, -jnp.inf), jnp.inf)
        # A place below k is one of the best of earlier blocks; the others count the references of this block.
        found, place = jax.lax.top_k(-jnp.concatenate([best[0], lower], axis=1), k)
        before = jnp.take_along_axis(best[1], jnp.minimum(place, k - 1), axis=1)
        return -found, jnp.where(place < k, before, first + place - k)

    start = jnp.full((n, k), jnp.inf, queries.dtype), jnp.zeros((n, k), jnp.int32)
    return in_blocks(keep, start, references, n)


@jax.jit
def _count(
    queries: Float[Array, "n d"], centers: Float[Array, "m d"], radii: Float[Array, " m"]
) -> tuple[Int[Array, " n"], Int[Array, " n"]]:
    """Returns, for each query, the number of balls that it lies in for certain, and of those that it can lie in."""

    def add(total: tuple[Array, Array], block: tuple[Array, Array], valid: Array, first: Array) -> tuple[Array, Array]:
        del first
        lower, upper = bounds(queries, block[0])
        outside = (lower > block[1]) & jnp.isfinite(lower)  # where squares overflow, nothing is known
        counted = (upper <= block[1]) & valid, ~outside & valid
        sure, possible = (jnp.sum(x, axis=1, dtype=jnp.int32) for x in counted)
        return total[0] + sure, total[1] + possible

    zeros = jnp.zeros(queries.shape[0], jnp.int32)
    return in_blocks(add, (zeros, zeros), (centers, radii), queries.shape[0])
