"""The order of the examples: every example once an epoch, each epoch shuffled anew, a function of (seed, position)."""

import functools

import numpy as np

LocalIndices = range | np.ndarray  # examples of a batch: which of it this process reads, ascending


@functools.lru_cache(maxsize=4)
def permutation(seed: int, epoch: int, size: int) -> np.ndarray:
    """The order of one epoch.

    It sorts the raw output of the Philox counter generator, whose stream numpy keeps from version to version, unlike
    that of `Generator.permutation`.

    Args:
      seed: of the run.
      epoch: from 0.
      size: of the data set.

    Returns:
      int64 `[size]`, a permutation of 0 to size - 1.
    """
    bits = np.random.Philox(key=np.array([seed % 2**64, epoch], np.uint64)).random_raw(size)
    order = np.argsort(bits, kind="stable")
    order.flags.writeable = False
    return order


def indices(seed: int, positions: np.ndarray, size: int) -> np.ndarray:
    """The examples at the given positions of the endless shuffled sequence.

    Args:
      seed: of the run.
      positions: from 0, of any shape.
      size: of the data set.

    Returns:
      int32 of the shape of `positions`, each from 0 to size - 1.
    """
    positions = np.asarray(positions, np.int64)
    epochs, offsets = np.divmod(positions, size)
    result = np.empty(positions.shape, np.int32)
    for epoch in np.unique(epochs):
        chosen = epochs == epoch
        result[chosen] = permutation(seed, int(epoch), size)[offsets[chosen]]
    return result


def positions(step: int, draws: int, batch_size: int, local_indices: LocalIndices) -> np.ndarray:
    """Where the batches of one iteration lie in the endless sequence.

    Args:
      step: the iteration.
      draws: batches per iteration.
      batch_size: of the whole batch, over all hosts.
      local_indices: which examples of the batch this process reads, ascending.

    Returns:
      int64 `[draws, len(places)]`.
    """
    first = (step * draws + np.arange(draws, dtype=np.int64)) * batch_size
    return first[:, None] + np.asarray(local_indices, np.int64)
