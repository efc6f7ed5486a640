"""Orbax checkpoints of the whole state: saved in the background, kept by a policy, restored where they are intact."""

import logging
import math
import pathlib
import shutil
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import PyTree
from orbax.checkpoint import checkpoint_managers

from gan_jax.buckets import BucketPath
from gan_jax.distributed import hosts
from gan_jax.distributed import mesh as meshes
from gan_jax.runtime import manifest as manifests
from gan_jax.runtime.arrays import compare, differences, flatten, gathered, rebuild
from gan_jax.runtime.failures import in_short, telling
from gan_jax.runtime.identity import Identity, steps_in
from gan_jax.runtime.retention import BIN, Bin, Policy
from gan_jax.runtime.staging import Stage
from gan_jax.types import InvalidInputError

# Orbax warns about a directory that it was asked to open for reading only.
logging.getLogger("absl").addFilter(lambda record: "Given directory is read only" not in record.getMessage())
_ATTEMPTS = 20  # at a checkpoint that another process deletes while it is read
_TEMPORARY = ".orbax-checkpoint-tmp"  # in the name until Orbax renames the complete directory, manifest included


class _Manager(ocp.CheckpointManager):
    """Orbax's manager without its preemption check, whose step numbers would interfere with `hosts.preempted`.

    It does not read metrics either: those of the manifest count.
    """

    def reached_preemption(self, step: int) -> bool:
        del step
        return False

    def metrics(self, step: int) -> None:
        del step


class Checkpointer:
    """Saves checkpoints in the background, and restores the newest intact one.

    It keeps the last few checkpoints, every k-th one, and the best one by a metric.
    """

    def __init__(
        self,
        directory: pathlib.Path,
        *,
        keep_last: int,
        every: int = 1,
        keep_every: int = 0,
        best_metric: str = "",
        best_mode: str = "max",
        about: dict[str, Any] | None = None,
        identity: Identity | None = None,
        read_only: bool = False,
    ) -> None:
        """Opens a directory of checkpoints.

        Args:
          directory: directory with one sub-directory per step; all processes of a run must see the same one. One in a
            bucket passes through this machine's disk; with several processes, process 0 saves the whole of it.
          keep_last: number of newest checkpoints to keep, in addition to one that was saved off schedule.
          every: interval of the schedule: checkpoints whose step is a multiple of it are on schedule.
          keep_every: checkpoints whose step is a multiple of it are kept for good; 0 for none.
          best_metric: metric whose best checkpoint is kept too; empty for none.
          best_mode: `min` or `max`, the direction in which the metric is better.
          about: description of the experiment, stored in each manifest. Checkpoints with another description are not
            restored; None restores any checkpoint.
          identity: identity of the run. A checkpoint of another run counts as damaged; None accepts those of any run.
          read_only: whether to never write or delete.

        Raises:
          InvalidInputError: if Orbax's record of a checkpoint is damaged.
        """
        self.directory, self._read_only, self._about = directory.absolute(), read_only, about
        self._identity, self._best, self._sign = identity, best_metric, -1.0 if best_mode == "min" else 1.0
        self._saving: tuple[int, dict[str, Any]] = (-1, {})  # step and metrics of the newest save
        self._known: dict[int, float | None] = {}  # values of the metric, by step
        writes, in_bucket = not read_only and hosts.is_primary(), isinstance(self.directory, BucketPath)
        self._stage = Stage(self.directory, writes=writes) if isinstance(self.directory, BucketPath) else None
        self._local = self.directory if self._stage is None else self._stage.local  # where Orbax works
        for step in steps_in(self._local):
            manifests.check_orbax(self._local / str(step))
        self._policy = Policy(keep_last, every, keep_every, self._to_keep)
        self._bin = Bin(self.directory) if writes and not in_bucket else None
        self._manager = self._opened(checkpoint_managers.LatestN(1) if in_bucket or read_only else self._policy)

    def _opened(self, policy: Any) -> _Manager:
        """Opens Orbax's manager, again if a run that writes here deletes a checkpoint while the manager lists it."""
        others = {"create": not self._read_only} if self._stage is None else self._stage.options()
        for _ in range(_ATTEMPTS):
            try:
                return _Manager(
                    self._local,
                    item_handlers=ocp.StandardCheckpointHandler(),  # without it a new process cannot read metadata
                    options=ocp.CheckpointManagerOptions(
                        preservation_policy=policy,
                        cleanup_tmp_directories=not self._read_only,
                        read_only=self._read_only,
                        save_interval_steps=0 if self._read_only else 1,
                        todelete_subdir=None if self._read_only or self._stage else BIN,
                        **others,
                        async_options=ocp.AsyncOptions(post_finalization_callback=self._write_manifest),
                    ),
                )
            except FileNotFoundError:
                if not (self._read_only and self.directory.is_dir()):
                    raise
        raise self._too_fast()

    def _too_fast(self) -> InvalidInputError:
        return InvalidInputError(
            f"the checkpoints in {self.directory} are deleted faster than they can be read, {_ATTEMPTS} times: let the "
            "run that writes them keep more (keep_last) or save less often (checkpoint_every)"
        )

    def steps(self) -> list[int]:
        """Returns the steps of the finished checkpoints, oldest first."""
        if not self._read_only:
            self._manager.reload()
        return steps_in(self.directory)

    def best_step(self, log: Callable[[str], None] = print) -> int | None:
        """Returns the step of the best checkpoint by the metric; None if there is none.

        Args:
          log: receives a message for each checkpoint whose metrics are damaged; it is not compared.
        """
        best, damaged = self._compared(self.steps(), {})
        for step, fault in damaged.items():
            log(f"checkpoint {step} is damaged: {fault}; it is not compared with the others")
        return best

    def _compared(self, steps: Sequence[int], known: dict[int, float | None]) -> tuple[int | None, dict[int, str]]:
        """Compares checkpoints by the metric.

        Args:
          steps: steps of the checkpoints.
          known: values that were read before, by step; None where the metric was not measured. New ones are added.

        Returns:
          The step of the best, which is the newest of equal ones, or None; and the faults of those that are damaged.
        """
        damaged = {}
        for step in steps if self._best else ():
            if step not in known:
                try:
                    known[step] = manifests.metrics(self.directory / str(step)).get(self._best)
                except OSError as error:
                    if (self.directory / str(step)).is_dir():  # else a run that keeps only newer ones has deleted it
                        damaged[step] = str(error)
        values = {step: value for step in steps if (value := known.get(step)) is not None}
        signed = {step: -math.inf if math.isnan(value) else self._sign * value for step, value in values.items()}
        return max(signed, key=lambda step: (signed[step], step), default=None), damaged

    def _to_keep(self, steps: Sequence[int]) -> set[int]:
        """Returns the best checkpoint, of those on disk and the one being saved, and those that cannot be compared."""
        best, damaged = self._compared(steps, self._known)
        return {*damaged, *([] if best is None else [best])}

    def save(self, step: int, tree: PyTree, metrics: dict[str, float] | None = None) -> None:
        """Saves a tree of arrays. Returns once the arrays are copied; files are written in the background.

        A checkpoint that exists for this step is left as it is.

        Args:
          step: step of the checkpoint, which is its name.
          tree: arrays to save.
          metrics: values by which the best checkpoint is chosen; None where they were not measured at this step.

        Raises:
          InvalidInputError: if the previous save failed; the message says why.
        """
        if self._is_new(step):
            with telling("the previous checkpoint"):
                self._settle()
                if self._bin is not None:
                    self._bin.wait()
                self._saving = step, metrics or {}
                self._known[step] = self._saving[1].get(self._best)  # before there is a manifest to read it from
                arrays = flatten(tree) if self._stage is None else gathered(flatten(tree))
                if self._stage is None or hosts.is_primary():
                    self._manager.save(step, args=ocp.args.StandardSave(arrays))
                if self._stage is not None and hosts.is_primary():
                    self._stage.begin(step, self._manager.wait_until_finished, self._policy.kept)

    def _is_new(self, step: int) -> bool:
        return step not in self._manager.all_steps() if self._stage is None else self._stage.is_new(step)

    def _settle(self) -> None:
        """Waits until the last save is complete."""
        self._manager.wait_until_finished()
        if self._stage is not None:
            self._stage.wait()
        self._note_saved()

    def _write_manifest(self) -> None:
        """Writes the manifest, just before Orbax renames the checkpoint to its final name."""
        step, metrics = self._saving  # saves do not overlap
        # Other files and directories may be named like a temporary one; Orbax has written to its own last.
        named = [path for path in self._local.glob(f"{step}{_TEMPORARY}*") if path.is_dir()]
        temporary = max(named, key=lambda path: path.stat().st_mtime_ns)
        run = None if self._identity is None else self._identity.run
        manifests.write(temporary, step=step, run=run, about=self._about, metrics=metrics)

    def _note_saved(self) -> None:
        """Records in the run's identity that there is a checkpoint; deletes those that Orbax has moved away."""
        if self._bin is not None:
            self._bin.empty()
        if self._identity is not None and not self._identity.saved and self._has_saved():
            self._identity.note_saved()

    def _has_saved(self) -> bool:
        return bool(steps_in(self.directory)) if self._stage is None else self._stage.saved

    def check(self) -> None:
        """Raises the error of a background save, if one has failed."""
        with telling("a checkpoint"):
            self._manager.check_for_errors()
            if self._stage is not None:
                self._stage.check()
            self._note_saved()

    def wait(self) -> None:
        """Waits until every save is on disk; raises the error of a save that failed."""
        with telling("a checkpoint"):
            self._settle()
            self._manager.check_for_errors()

    def close(self) -> None:
        """Waits for a save in progress, and closes the directory."""
        self._manager.close()
        if self._stage is not None:
            self._stage.close()
        if self._bin is not None:
            self._bin.close()

    def _remove_surplus(self) -> None:
        """Moves away what an earlier process has not, because it was killed just after it had saved a newer one."""
        if self._stage is not None and not self._read_only and hosts.is_primary():
            self._stage.remove_surplus(self._policy.kept)
        if self._bin is not None:
            steps = steps_in(self.directory)
            for step in set(steps) - self._policy.kept(steps):
                self._bin.put(step)

    def __enter__(self) -> "Checkpointer":
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if error is None:
            self.wait()
            self._remove_surplus()
            self.close()
        elif hosts.client() is None:
            # close() waits for the background save. With several processes that might be a wait for a lost one.
            try:
                self.close()
            except Exception as another:
                error.add_note(f"and a checkpoint could not be written: {in_short(another)}")

    def restore(self, step: int, abstract: PyTree) -> PyTree:
        """Restores a checkpoint exactly as `abstract` describes it. All processes of a run must call it.

        With `read_only`, `abstract` may have fewer top-level entries than the checkpoint.

        Args:
          step: step of the checkpoint.
          abstract: tree of `jax.ShapeDtypeStruct`s with shardings, on any number of devices and processes.

        Returns:
          The tree.

        Raises:
          InvalidInputError: if the game, names, shapes or dtypes differ; the message lists the differences.
          OSError: if the checkpoint is damaged.
        """
        self._check_whole(step)
        return self._restore(step, abstract)

    def _restore(self, step: int, abstract: PyTree) -> PyTree:
        wanted, stored = flatten(abstract), self._stored(step)
        tops = {name.partition(".")[0] for name in wanted}
        looked_at = {name: x for name, x in stored.items() if not self._read_only or name.partition(".")[0] in tops}
        about = manifests.read(self._files(step))["about"]
        changed = [] if self._about is None else compare(about or {}, self._about)
        changed += differences(wanted, looked_at)
        if changed:
            shown = "\n  ".join(changed[:20]) + (f"\n  and {len(changed) - 20} more" if changed[20:] else "")
            raise InvalidInputError(
                f"checkpoint {self.directory / str(step)} is of another game or configuration:\n  {shown}\n"
                "resume with the configuration that made it, or use another workdir"
            )
        return rebuild(abstract, self._whole(step, wanted))

    def _whole(self, step: int, wanted: dict[str, jax.ShapeDtypeStruct]) -> dict[str, jax.Array]:
        """Restores all arrays of a checkpoint, as Orbax cannot restore a subset; `wanted` ones as `wanted` says."""

        def unasked(x: Any) -> jax.ShapeDtypeStruct:
            mesh = jax.tree.leaves(wanted)[0].sharding.mesh
            return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=meshes.split_sharding(x, mesh))

        whole = {name: wanted[name] if name in wanted else unasked(x) for name, x in self._stored(step).items()}
        if self._stage is not None:
            return self._stage.restored(self._manager, step, whole)
        return self._manager.restore(step, args=ocp.args.StandardRestore(whole))

    def restore_some(self, step: int, wanted: dict[str, jax.ShapeDtypeStruct]) -> dict[str, jax.Array]:
        """Restores some arrays of a checkpoint, to initialise another game.

        Args:
          step: step of the checkpoint.
          wanted: shapes, dtypes and shardings of the arrays, by the names of `flatten`.

        Returns:
          The arrays by name.

        Raises:
          InvalidInputError: if arrays are missing or differ in shape or dtype; the message lists the differences.
          OSError: if the checkpoint is damaged.
        """
        self._check_whole(step)
        stored = self._stored(step)
        changed = differences(wanted, {name: x for name, x in stored.items() if name in wanted})
        if changed:
            raise InvalidInputError(
                f"checkpoint {self.directory / str(step)} does not have the networks of this game:\n  "
                + "\n  ".join(changed[:20])
            )
        arrays = self._whole(step, wanted)
        return {name: arrays[name] for name in wanted}

    def restore_part(self, step: int, prefixes: tuple[str, ...]) -> dict[str, np.ndarray]:
        """Restores the arrays of a checkpoint whose names begin with one of `prefixes`, as numpy arrays.

        Raises:
          OSError: if the checkpoint is damaged.
        """
        everywhere = NamedSharding(meshes.make_mesh(), PartitionSpec())
        wanted = {
            name: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=everywhere)
            for name, x in self._stored(step).items()
            if name.startswith(prefixes)
        }
        found = self.restore_some(step, wanted) if wanted else {}
        return {name: np.asarray(x.addressable_data(0)) for name, x in found.items()}

    def manifest_hash(self, step: int) -> str:
        """Returns the hash of a checkpoint's manifest, which identifies the checkpoint.

        Raises:
          OSError: if the checkpoint is damaged.
        """
        self._check_whole(step)
        return manifests.read(self._files(step))["sha256"]

    def names(self, step: int) -> list[str]:
        """Returns the names of the arrays in a checkpoint."""
        return list(self._stored(step))

    def _files(self, step: int) -> pathlib.Path:
        """Returns the directory with the files of a checkpoint, which are copied here first if they are in a bucket."""
        if self._stage is None:
            return self.directory / str(step)
        directory = self._stage.fetch(step)
        self._manager.reload()
        return directory

    def _stored(self, step: int) -> dict[str, Any]:
        self._files(step)
        stored = self._manager.item_metadata(step)
        if stored is None:
            raise OSError("its metadata cannot be read")
        return dict(stored.items())

    def _check_whole(self, step: int) -> None:
        if fault := self._fault(step):
            raise OSError(fault)

    def _fault(self, step: int) -> str:
        """Describes what is wrong with the files of a checkpoint; empty if they are intact and of this run."""
        return manifests.fault(self._files(step), self._identity)

    def newest(self, log: Callable[[str], None], *, every: int = 1) -> int | None:
        """Finds the newest checkpoint with intact files. Newer, damaged ones are logged and moved to `damaged/`.

        With `read_only`, or where no checkpoint is intact, nothing is moved.

        Args:
          log: receives the messages.
          every: only steps that are multiples of it are considered.

        Returns:
          The step of the checkpoint, or None if there is none to consider.

        Raises:
          InvalidInputError: if there are checkpoints, but none is intact.
        """
        there = self.steps()
        steps = [step for step in there if step % every == 0]
        damaged: dict[int, str] = {}
        for step in reversed(steps):
            fault = self._fault(step)
            if fault and self.steps()[-1:] > there[-1:]:  # a run that writes here has deleted it, after saving another
                return self.newest(log, every=every)
            if not fault:
                break
            damaged[step] = fault
        for step, fault in damaged.items():
            log(f"checkpoint {step} is damaged: {fault}")
        if steps and len(damaged) == len(steps):
            raise InvalidInputError(
                f"none of the checkpoints {steps} in {self.directory} can be read; they are left as they are: repair "
                "them, or start again in another workdir"
            )
        for step in damaged if not self._read_only else ():
            log(f"checkpoint {step} is kept aside in {self._put_aside(step)}")
        return steps[-1 - len(damaged)] if steps else None

    def restore_latest(
        self, abstract: PyTree, log: Callable[[str], None] = print, *, every: int = 1, timeout: float = 600.0
    ) -> tuple[int, PyTree] | None:
        """Restores the newest intact checkpoint, which process 0 chooses; see `newest` and `restore`.

        Args:
          abstract: shapes, dtypes and shardings of the tree, as for `restore`.
          log: receives the messages.
          every: only steps that are multiples of it are considered.
          timeout: seconds to wait for process 0 to choose.

        Returns:
          The step and the tree, or None if there is no checkpoint to consider.
        """
        return self._restore_chosen(lambda: self.newest(log, every=every), abstract, timeout)

    def restore_best(
        self, abstract: PyTree, log: Callable[[str], None] = print, *, timeout: float = 600.0
    ) -> tuple[int, PyTree] | None:
        """Restores the best checkpoint, which process 0 chooses; see `best_step` and `restore`.

        Args:
          abstract: shapes, dtypes and shardings of the tree, as for `restore`.
          log: receives the messages.
          timeout: seconds to wait for process 0 to choose.

        Returns:
          The step and the tree, or None if there is no best checkpoint.
        """
        return self._restore_chosen(lambda: self.best_step(log), abstract, timeout)

    def _restore_chosen(
        self, choose: Callable[[], int | None], abstract: PyTree, timeout: float
    ) -> tuple[int, PyTree] | None:
        """Restores the checkpoint that `choose` names, and again if a run that writes here deletes it meanwhile."""
        for _ in range(_ATTEMPTS):
            step = hosts.decide("checkpoint", choose, timeout)
            if not self._read_only:
                self._manager.reload()  # process 0 may have moved damaged checkpoints
            if step is None:
                return None
            found = self._restore_unless_gone(step, abstract)
            if not hosts.any_of("checkpoint deleted", found is None, timeout):
                return step, found
        raise self._too_fast()

    def _restore_unless_gone(self, step: int, abstract: PyTree) -> PyTree | None:
        """Restores a checkpoint; None if its files are deleted meanwhile."""
        try:
            found = self._restore(step, abstract)
        except Exception:
            if self._is_there(step):
                raise
            return None
        return found if self._is_there(step) else None

    def _is_there(self, step: int) -> bool:
        return manifests.is_there(self.directory / str(step)) if self._stage is None else self._stage.is_there(step)

    def _put_aside(self, step: int) -> pathlib.Path:
        """Moves a damaged checkpoint to `damaged/`, and returns its new path."""
        if self._stage is not None:
            return self._stage.put_aside(step)
        aside = self.directory.parent / "damaged" / str(step)
        aside.parent.mkdir(exist_ok=True)
        shutil.rmtree(aside, ignore_errors=True)
        (self.directory / str(step)).rename(aside)
        self._manager.reload()
        return aside
