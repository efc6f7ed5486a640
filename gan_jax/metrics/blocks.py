"""All pairs of two sets, a block at a time, so that memory stays bounded; rows stay on the devices that hold them."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

_PAIRS = 2**26  # of a block: 256 MiB of float32


def squared_distances(x: Float[Array, "n d"], y: Float[Array, "m d"]) -> Float[Array, "n m"]:
    """||x_i - y_j||², from products in full precision, since they cancel; at least 0."""
    products = jnp.matmul(x, y.T, precision=jax.lax.Precision.HIGHEST)
    return jnp.maximum(jnp.sum(x**2, -1)[:, None] + jnp.sum(y**2, -1) - 2.0 * products, 0.0)


def in_blocks(
    combine: Callable[[Any, Any, Array, Array], PyTree],
    start: PyTree,
    references: PyTree,
    rows: int,
    *,
    pairs: int = _PAIRS,
) -> PyTree:
    """Folds `combine` over blocks of references.

    Args:
      combine: `(carried, block, valid, first) -> carried`; block is `[c, ...]`, as many leaves as references; valid
        `[c]` tells what is not padding; first is the index of the block's first reference.
      start: what is carried to the first block.
      references: a tree of arrays `[m, ...]`.
      rows: of what they are compared with.
      pairs: the most, rows times c, in a block.

    Returns:
      What the last block carries.
    """
    count = jax.tree.leaves(references)[0].shape[0]
    size = max(1, min(count, pairs // rows))
    blocks = -(-count // size)

    def split(x: Array) -> Array:
        padded = jnp.pad(x, [(0, blocks * size - count)] + [(0, 0)] * (x.ndim - 1))
        return padded.reshape(blocks, size, *x.shape[1:])

    def step(carried: PyTree, item: tuple[PyTree, Array]) -> tuple[PyTree, None]:
        block, index = item
        first = index * size
        return combine(carried, block, first + jnp.arange(size) < count, first), None

    return jax.lax.scan(step, start, (jax.tree.map(split, references), jnp.arange(blocks)))[0]
