"""Checkpoints in a bucket: Orbax writes and reads them on this machine's disk, from where they are copied.

Orbax itself knows gs:// but not s3://, and takes half a checkpoint for none by another rule in each place. Here the
manifest, which names every file with its hash, is copied last: a checkpoint without one does not exist.
"""

import concurrent.futures
import itertools
import json
import os
import pathlib
import shutil
import tempfile
import threading
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from gan_jax import buckets
from gan_jax.buckets import BucketPath
from gan_jax.distributed import hosts
from gan_jax.host import put, take_lock
from gan_jax.runtime import manifest as manifests
from gan_jax.runtime.identity import steps_in
from gan_jax.types import InvalidInputError

_PATIENCE = 600.0  # seconds in which process 0 lists the checkpoints of a bucket
_AT_ONCE = 16  # files that are copied at a time


class Stage:
    """A directory of checkpoints in a bucket, and the one on this machine's disk in which Orbax works for it.

    Attributes:
      local: directory on this machine's disk, of this object alone.
    """

    def __init__(self, home: BucketPath, *, writes: bool) -> None:
        """Takes an empty directory on the disk; with `writes`, removes what a save that was cut has left in the bucket.

        Args:
          home: directory of checkpoints in the bucket.
          writes: whether this process saves there.
        """
        self._home, self._error = home, list[Exception]()
        self._thread: threading.Thread | None = None
        self.local, self._lock = _scratch()
        self.saved = False  # whether a checkpoint was copied to the bucket
        self._steps = set(steps_in(home)) if writes else set[int]()
        if writes:
            names = {path.parts[len(home.parts)] for path in home.files()}
            for name in names - {str(step) for step in self._steps}:
                if name.isdecimal():
                    (home / name).remove_tree()

    def options(self) -> dict[str, Any]:
        """Returns the options of Orbax's manager: every process of a run works in a directory of its own, alone."""
        if hosts.client() is None:
            return {"create": False}
        me = jax.process_index()
        alone = ocp.options.MultiprocessingOptions(
            primary_host=me, active_processes={me}, barrier_sync_key_prefix=f"process{me}"
        )
        return {"create": False, "multiprocessing_options": alone}

    def restored(self, manager: ocp.CheckpointManager, step: int, whole: dict[str, Any]) -> dict[str, jax.Array]:
        """Restores a checkpoint that was fetched.

        Args:
          manager: Orbax's manager of `local`.
          step: step of the checkpoint.
          whole: shapes, dtypes and shardings of all of its arrays, by name.

        Returns:
          The arrays. With several processes, each takes from its own copy what its devices need.
        """
        if hosts.client() is None:
            return manager.restore(step, args=ocp.args.StandardRestore(whole))
        empty = {name: np.empty(x.shape, x.dtype) for name, x in whole.items()}
        found = manager.restore(step, args=ocp.args.StandardRestore(empty))
        return {name: put(np.asarray(x), whole[name].sharding) for name, x in found.items()}

    def is_new(self, step: int) -> bool:
        """Whether there is no checkpoint of a step. All processes take part in a save, so process 0 decides."""
        return hosts.decide("new checkpoint", lambda: step not in self._steps, _PATIENCE)

    def fetch(self, step: int) -> pathlib.Path:
        """Copies a checkpoint to the disk, unless it is there; returns its directory, where files may be missing."""
        there, here = self._home / str(step), self.local / str(step)
        sealed = there.at.read((there / manifests.NAME).key)[0]
        if sealed is not None and (here / manifests.NAME).is_file() and (here / manifests.NAME).read_bytes() == sealed:
            return here
        shutil.rmtree(here, ignore_errors=True)
        if sealed is None:
            return here
        names = [*_listed(sealed), manifests.ORBAX]
        for some in (names[low : low + _AT_ONCE] for low in range(0, len(names), _AT_ONCE)):
            found = there.at.read_all((there / name).key for name in some)
            for name in some:
                if (content := found.get((there / name).key)) is not None:
                    (here / name).parent.mkdir(parents=True, exist_ok=True)
                    (here / name).write_bytes(content)
        (here / manifests.NAME).write_bytes(sealed)
        try:
            manifests.check_orbax(here)
        except InvalidInputError:  # a checkpoint can be read without Orbax's record, but not with a damaged one
            (here / manifests.ORBAX).unlink()
        return here

    def is_there(self, step: int) -> bool:
        """Whether a checkpoint has not been deleted, as by a run that keeps only newer ones."""
        return (self._home / str(step) / manifests.NAME).is_file()

    def begin(self, step: int, written: Callable[[], Any], kept: Callable[[Sequence[int]], set[int]]) -> None:
        """Starts to copy a checkpoint to the bucket, in the background, and then to delete those that are not kept.

        Args:
          step: step of the checkpoint.
          written: waits until Orbax has written it.
          kept: returns which of the given steps are kept.
        """

        def copy() -> None:
            try:
                written()
                self._copy(step)
                self.remove_surplus(kept)
            except Exception as error:
                self._error.append(error)

        self._thread = threading.Thread(target=copy, daemon=True, name="checkpoints")
        self._thread.start()

    def _copy(self, step: int) -> None:
        here, there = self.local / str(step), self._home / str(step)
        there.remove_tree()  # what a save that was cut has left
        names = [path.relative_to(here) for path in here.rglob("*") if path.is_file() and path.name != manifests.NAME]
        lease = there.lease

        def copy(name: pathlib.Path) -> None:
            key, content = (there / name).key, (here / name).read_bytes()
            if lease is None:
                there.at.write(key, content)
                return
            lease.put(key, content, new=True)
            lease.forget(key)

        with concurrent.futures.ThreadPoolExecutor(_AT_ONCE) as pool:
            list(pool.map(copy, names))
        buckets.settle()  # a checkpoint is never ahead of the log
        copy(pathlib.Path(manifests.NAME))
        self._steps.add(step)
        self.saved = True

    def remove_surplus(self, kept: Callable[[Sequence[int]], set[int]]) -> None:
        """Deletes the checkpoints that are not kept from the bucket, each one's manifest first."""
        steps = steps_in(self._home)
        for step in sorted(set(steps) - kept(steps)):
            (self._home / str(step) / manifests.NAME).unlink(missing_ok=True)
            (self._home / str(step)).remove_tree()
            self._steps.discard(step)

    def put_aside(self, step: int) -> pathlib.Path:
        """Moves a damaged checkpoint to `damaged/`, and returns its new path."""
        there, aside = self._home / str(step), self._home.parent / "damaged" / str(step)
        for path in there.files():
            aside.joinpath(*path.parts[len(there.parts) :]).write_bytes(path.read_bytes())
        (there / manifests.NAME).unlink(missing_ok=True)
        there.remove_tree()
        self._steps.discard(step)
        shutil.rmtree(self.local / str(step), ignore_errors=True)
        return aside  # type: ignore[return-value]  # it has the methods of a path

    def check(self) -> None:
        """Raises the error of a copy in the background, if one has failed."""
        if self._error:
            raise self._error[0]

    def wait(self) -> None:
        """Waits until the copy in the background is in the bucket; raises its error."""
        if self._thread is not None:
            self._thread.join()
        self.check()

    def close(self) -> None:
        """Waits for the copy in the background, and deletes the directory on the disk."""
        if self._thread is not None:
            self._thread.join()
        shutil.rmtree(self.local, ignore_errors=True)
        self._lock.release()


def _listed(sealed: bytes) -> list[str]:
    """Returns the names of a manifest's files; none if it is damaged, which is found when it is read on the disk."""
    try:
        names = list(json.loads(sealed)["files"])
    except (ValueError, TypeError, KeyError):
        return []
    return [name for name in names if not pathlib.PurePosixPath(name).is_absolute() and ".." not in name.split("/")]


def _scratch() -> tuple[pathlib.Path, Any]:
    """Returns an empty directory for this process, and its lock; deletes those of dead processes."""
    base = pathlib.Path(tempfile.gettempdir()) / f"gan_jax_{os.getuid()}"
    try:
        base.mkdir(mode=0o700, exist_ok=True)
        if base.stat().st_uid != os.getuid():
            raise PermissionError(f"{base} is another user's")
        mine = None
        for number in itertools.count():
            directory, lock = base / str(number), take_lock(base / f"{number}.lock")
            if isinstance(lock, str):
                continue
            known = directory.exists()
            shutil.rmtree(directory, ignore_errors=True)
            if mine is None:
                directory.mkdir()
                mine = directory, lock
            else:
                lock.release()
                if not known:
                    return mine
        raise AssertionError("numbers do not end")
    except OSError as error:
        raise InvalidInputError(
            f"checkpoints of a bucket pass through {base}, which cannot be written: {error}; set TMPDIR to a directory "
            "with space for two checkpoints"
        ) from error
