"""The order of the examples, as a function of (seed, position).

Every example occurs once per epoch, and each epoch has its own shuffled order. "The endless sequence" is the
concatenation of all epochs; batches are consecutive parts of it.
"""

import functools

import numpy as np

LocalIndices = range | np.ndarray  # the indices, within a batch, of the examples that this process reads, ascending


@functools.lru_cache(maxsize=4)
def permutation(seed: int, epoch: int, size: int) -> np.ndarray:
    """Returns the order of the examples in one epoch.

    The order comes from sorting the raw output of the Philox counter generator. NumPy keeps that stream the same across
    versions, which it does not promise for `Generator.permutation`.

    Args:
      seed: seed of the run.
      epoch: number of the epoch, from 0.
      size: number of examples in the data set.

    Returns:
      A permutation of 0 to size - 1, int64 `[size]`, read-only because it is cached.
    """
    bits = np.random.Philox(key=np.array([seed % 2**64, epoch], np.uint64)).random_raw(size)
    order = np.argsort(bits, kind="stable")
    order.flags.writeable = False
    return order


def indices(seed: int, positions: np.ndarray, size: int) -> np.ndarray:
    """Returns the examples at the given positions of the endless shuffled sequence.

    Args:
      seed: seed of the run.
      positions: positions from 0, an array of any shape.
      size: number of examples in the data set.

    Returns:
      Indices of the examples, from 0 to size - 1, int32 of the shape of `positions`.
    """
    positions = np.asarray(positions, np.int64)
    epochs, offsets = np.divmod(positions, size)
    result = np.empty(positions.shape, np.int32)
    for epoch in np.unique(epochs):
        chosen = epochs == epoch
        result[chosen] = permutation(seed, int(epoch), size)[offsets[chosen]]
    return result


def positions(step: int, draws: int, batch_size: int, local_indices: LocalIndices) -> np.ndarray:
    """Returns the positions of one iteration's batches in the endless sequence, for the examples of this process.

    Args:
      step: number of the iteration.
      draws: number of batches per iteration.
      batch_size: size of the global batch, over all hosts.
      local_indices: indices, within a batch, of the examples that this process reads, ascending.

    Returns:
      Positions, int64 `[draws, len(local_indices)]`.
    """
    first = (step * draws + np.arange(draws, dtype=np.int64)) * batch_size
    return first[:, None] + np.asarray(local_indices, np.int64)
