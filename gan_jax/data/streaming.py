"""Batches that grain's threads read on the host, ahead of the step."""

from collections.abc import Iterator
from typing import Any, cast


def streamed(batches: Any, draws: int, length: int, num_threads: int, prefetch: int) -> Iterator[Any]:
    """Reads batches in order, without end.

    Args:
      batches: random access to batches: item i is the i-th one.
      draws: number of batches per iteration.
      length: number of iterations per item.
      num_threads: number of threads that read and decode.
      prefetch: number of batches to read ahead.

    Yields:
      Trees with leaves `[length, draws, b, ...]`.
    """
    import grain  # noqa: PLC0415 - slow to import, and data in memory do not need it

    options = grain.ReadOptions(num_threads=num_threads, prefetch_buffer_size=prefetch)
    iterator = iter(grain.MapDataset.source(cast(Any, batches)).to_iter_dataset(options).batch(draws).batch(length))
    while True:
        yield next(iterator)
