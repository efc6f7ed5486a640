"""Which checkpoints of a run are kept, and how the others are deleted: a kill leaves none half-deleted."""

import os
import pathlib
import shutil
import threading
from collections.abc import Callable, Sequence
from typing import Any

BIN = "deleted"  # directory, beside the checkpoints, of those that are being deleted


class Policy:
    """An Orbax policy: which checkpoints to keep.

    These are the last ones on schedule, every k-th on schedule, the best, and the newest, which may be off schedule: a
    signal saves one. A checkpoint off schedule is otherwise ignored, so that a run that was stopped and continued keeps
    the same ones as a run that was not.
    """

    def __init__(self, count: int, every: int, keep_every: int, best: Callable[[Sequence[int]], set[int]]) -> None:
        self._count, self._every, self._keep_every, self._best = count, every, keep_every, best

    def kept(self, steps: Sequence[int]) -> set[int]:
        """Returns which of the steps to keep, given in order."""
        scheduled = [step for step in steps if step % self._every == 0]
        for_good = [step for step in scheduled if self._keep_every and step % self._keep_every == 0]
        return {*scheduled[-self._count :], *for_good, *steps[-1:], *self._best(steps)}

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        """Answers Orbax."""
        del context
        kept = self.kept(sorted(info.step for info in checkpoints))
        return [info.step in kept for info in checkpoints]


class Bin:
    """The directory into which checkpoints are moved before they are deleted, which takes longer.

    Without it a process that is killed meanwhile would leave half a checkpoint under its name, which readers would see.
    """

    def __init__(self, directory: pathlib.Path) -> None:
        """Deletes what an earlier process has left in the bin of a directory of checkpoints."""
        self._directory, self._path = directory, directory / BIN
        self._thread: threading.Thread | None = None
        self.close()

    def put(self, step: int) -> None:
        """Moves a checkpoint into the bin."""
        self._path.mkdir(exist_ok=True)
        os.replace(self._directory / str(step), self._path / str(step))

    def empty(self) -> None:
        """Starts to delete what is in the bin, in the background."""
        busy = self._thread is not None and self._thread.is_alive()
        if not busy and self._path.is_dir() and any(self._path.iterdir()):
            self._thread = threading.Thread(target=self._delete, daemon=True)
            self._thread.start()

    def _delete(self) -> None:
        for path in self._path.iterdir():
            shutil.rmtree(path, ignore_errors=True)

    def wait(self) -> None:
        """Waits until what `empty` has begun to delete is gone: the same step may be moved there again."""
        if self._thread is not None:
            self._thread.join()

    def close(self) -> None:
        """Deletes the bin with all that is in it."""
        self.wait()
        shutil.rmtree(self._path, ignore_errors=True)
