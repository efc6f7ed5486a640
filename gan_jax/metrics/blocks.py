"""Computations over all pairs of two sets, one block at a time so that memory stays bounded.

The rows stay on the devices that hold them.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

_PAIRS = 2**26  # pairs in a block: 256 MiB of float32


def in_blocks(
    combine: Callable[[Any, Any, Array, Array], PyTree],
    start: PyTree,
    references: PyTree,
    rows: int,
    *,
    pairs: int = _PAIRS,
) -> PyTree:
    """Folds `combine` over blocks of the references.

    Args:
      combine: `(carry, block, valid, first) -> carry`. `block` is the tree of references with leaves `[c, ...]`;
        `valid`, `[c]`, is false for padding; `first` is the index of the block's first reference.
      start: carry for the first block.
      references: tree of arrays `[m, ...]`.
      rows: number of rows that the references are compared with.
      pairs: maximum number of pairs in a block, rows times c.

    Returns:
      The carry after the last block.
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

    return jax.lax.scan(step, start, (jax.tree.map(split, references), jnp.arange(blocks, dtype=jnp.int32)))[0]
