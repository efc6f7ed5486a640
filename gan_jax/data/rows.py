"""Data sets on the device: arrays of rows, from which TPUs gather examples without copying them first."""

import math

import jax
import numpy as np

_LANES = 128


def rows(values: np.ndarray) -> np.ndarray:
    """Flattens each example to a row of whole lanes, `[n, ...] -> [n, size]`, for `gathered`.

    Accelerators hold arrays in tiles. With axes of few pixels and channels, TPUs would copy the whole data set in every
    dispatch to a layout from which examples can be gathered, padded to four times its size. Rows whose length is a
    multiple of 128 are gathered from as they are. Others, such as those of 28x28 pixels, get zeros at their end: TPUs
    would hold them as columns, which need less padding, and copy them too.
    """
    if values.ndim < 3:
        return values
    flat = values.reshape(len(values), -1)
    missing = -flat.shape[1] % _LANES
    return np.pad(flat, ((0, 0), (0, missing))) if missing else flat


def gathered(values: jax.Array, index: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Gathers examples of a shape by their index from an array that `rows` has flattened."""
    if len(shape) < 2:
        return values[index]
    return values[index][..., : math.prod(shape)].reshape(*index.shape, *shape)
