"""Orbax checkpoints of the whole state, manifests that detect damage, and a hash to check that two states are equal."""

import contextlib
import hashlib
import json
import logging
import math
import pathlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import PyTree
from orbax.checkpoint import checkpoint_managers

from gan_jax.distributed import hosts
from gan_jax.distributed import mesh as meshes
from gan_jax.host import write_json
from gan_jax.types import InvalidInputError

_MANIFEST = "gan_jax.json"  # in each checkpoint: its description, and the size and hash of every other file
# Files that the manifest does not cover: itself, and those that Orbax writes later, while it commits the checkpoint.
_UNSEALED = {_MANIFEST, "_CHECKPOINT_METADATA", "commit_success.txt"}
# Orbax warns about a directory that it was asked to open for reading only.
logging.getLogger("absl").addFilter(lambda record: "Given directory is read only" not in record.getMessage())
_TEMPORARY = ".orbax-checkpoint-tmp"  # in the name until Orbax renames the complete directory, manifest included


def flatten(tree: PyTree) -> dict[str, Any]:
    """Returns the arrays of a tree by name; a PRNG key array is replaced by its key data."""
    return {path_name(path): _data(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def path_name(path: Any) -> str:
    """Returns the name of an array in a checkpoint, from its path in the tree."""
    return jax.tree_util.keystr(path, simple=True, separator=".")


def _is_key(x: Any) -> bool:
    return jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


def _data(x: Any) -> Any:
    if not _is_key(x):
        return x
    if not isinstance(x, jax.ShapeDtypeStruct):
        return jax.random.key_data(x)
    data = jax.eval_shape(jax.random.key_data, x)
    return jax.ShapeDtypeStruct(data.shape, data.dtype, sharding=x.sharding)


def state_sha256(state: PyTree) -> str:
    """Computes a hash of a state: name, dtype, shape and bytes of every array. All processes of a run must call it.

    Args:
      state: any tree of arrays.

    Returns:
      64 hexadecimal digits. Equal states have equal hashes, on any number of devices and processes.
    """
    digest = hashlib.sha256()
    for name, leaf in sorted(flatten(state).items()):
        local = not isinstance(leaf, jax.Array) or leaf.is_fully_addressable or leaf.is_fully_replicated
        # An allgather is a collective, so all processes must reach it, in the same (sorted) order.
        array = np.asarray(leaf if local else multihost_utils.process_allgather(leaf, tiled=True))
        digest.update(f"{name} {array.dtype} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _files(directory: pathlib.Path) -> dict[str, list[Any]]:
    """Returns the size and hash of every file of a checkpoint that the manifest covers."""
    found = {}
    for path in sorted(directory.rglob("*")):
        if path.is_file() and path.name not in _UNSEALED:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            found[str(path.relative_to(directory))] = [path.stat().st_size, digest]
    return found


def _hash(body: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


class _Scheduled:
    """An Orbax policy: keeps the last `count` checkpoints on schedule, and the newest, which may be off schedule.

    A signal saves a checkpoint off schedule.
    """

    def __init__(self, count: int, every: int) -> None:
        self._count, self._every = count, every

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        del context
        steps = sorted(info.step for info in checkpoints)
        kept = {*[step for step in steps if step % self._every == 0][-self._count :], *steps[-1:]}
        return [info.step in kept for info in checkpoints]


class _Manager(ocp.CheckpointManager):
    """Orbax's manager without its preemption check, whose step numbers would interfere with `hosts.preempted`."""

    def reached_preemption(self, step: int) -> bool:
        del step
        return False


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
        read_only: bool = False,
    ) -> None:
        """Opens a directory of checkpoints.

        Args:
          directory: directory with one sub-directory per step; all processes of a run must see the same one.
          keep_last: number of newest checkpoints to keep, in addition to one that was saved off schedule.
          every: interval of the schedule: checkpoints whose step is a multiple of it are on schedule.
          keep_every: checkpoints whose step is a multiple of it are kept for good; 0 for none.
          best_metric: metric whose best checkpoint is kept too; empty for none.
          best_mode: `min` or `max`, the direction in which the metric is better.
          about: description of the experiment, stored in each manifest. Checkpoints with another description are not
            restored; None restores any checkpoint.
          read_only: whether to never write or delete.
        """
        self.directory, self._read_only, self._about = directory.absolute(), read_only, about
        self._best = best_metric
        policies: list[Any] = [_Scheduled(keep_last, every)]
        policies += [checkpoint_managers.EveryNSteps(keep_every)] if keep_every else []
        worst = math.inf if best_mode == "min" else -math.inf

        def value(metrics: dict[str, float]) -> float:
            return metrics.get(best_metric, worst)

        if best_metric:
            best = checkpoint_managers.BestN(
                get_metric_fn=value, reverse=best_mode == "min", n=1, keep_checkpoints_without_metrics=False
            )
            policies.append(best)
        keep_all = checkpoint_managers.LatestN()
        self._manager = _Manager(
            self.directory,
            item_handlers=ocp.StandardCheckpointHandler(),  # without it a new process cannot read metadata
            options=ocp.CheckpointManagerOptions(
                preservation_policy=keep_all if read_only else checkpoint_managers.AnyPreservationPolicy(policies),
                best_fn=value if best_metric else None,
                best_mode="min" if best_mode == "min" else "max",
                cleanup_tmp_directories=not read_only,
                read_only=read_only,
                save_interval_steps=0 if read_only else 1,
                create=not read_only,
                async_options=ocp.AsyncOptions(post_finalization_callback=self._write_manifest),
            ),
        )

    def steps(self) -> list[int]:
        """Returns the steps of the finished checkpoints, oldest first."""
        self._manager.reload()
        return sorted(self._manager.all_steps())

    def best_step(self) -> int | None:
        """Returns the step of the best checkpoint by the metric; None if there is none."""
        return self._manager.best_step() if self._best else None

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
        if step not in self._manager.all_steps():
            with _telling("the previous checkpoint"):
                self._manager.save(step, args=ocp.args.StandardSave(flatten(tree)), metrics=metrics)

    def _write_manifest(self) -> None:
        """Writes the manifest, just before Orbax renames the checkpoint to its final name."""
        # There is exactly one: saves do not overlap, and the manager deletes what a killed process left.
        [temporary] = self.directory.glob(f"*{_TEMPORARY}*")
        body = {"about": self._about, "files": _files(temporary)}
        write_json(temporary / _MANIFEST, body | {"sha256": _hash(body)})

    def check(self) -> None:
        """Raises the error of a background save, if one has failed."""
        with _telling("a checkpoint"):
            self._manager.check_for_errors()

    def wait(self) -> None:
        """Waits until every save is on disk; raises the error of a save that failed."""
        with _telling("a checkpoint"):
            self._manager.wait_until_finished()
            self._manager.check_for_errors()

    def close(self) -> None:
        """Waits for a save in progress, and closes the directory."""
        self._manager.close()

    def __enter__(self) -> "Checkpointer":
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if error is None:
            self.close()
        elif hosts.client() is None:
            # close() waits for the background save. With several processes that might be a wait for a lost one.
            try:
                self.close()
            except Exception as another:
                error.add_note(f"and a checkpoint could not be written: {_in_short(another)}")

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
        about = json.loads((self.directory / str(step) / _MANIFEST).read_text(encoding="utf-8"))["about"]
        differences = [] if self._about is None else _compare(about or {}, self._about)
        differences += _differences(wanted, looked_at)
        if differences:
            shown = "\n  ".join(differences[:20]) + (
                f"\n  and {len(differences) - 20} more" if differences[20:] else ""
            )
            raise InvalidInputError(
                f"checkpoint {self.directory / str(step)} is of another game or configuration:\n  {shown}\n"
                "resume with the configuration that made it, or use another workdir"
            )
        return _rebuild(abstract, self._whole(step, wanted))

    def _whole(self, step: int, wanted: dict[str, jax.ShapeDtypeStruct]) -> dict[str, jax.Array]:
        """Restores all arrays of a checkpoint, as Orbax cannot restore a subset; `wanted` ones as `wanted` says."""

        def unasked(x: Any) -> jax.ShapeDtypeStruct:
            mesh = jax.tree.leaves(wanted)[0].sharding.mesh
            return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=meshes.split_sharding(x, mesh))

        whole = {name: wanted[name] if name in wanted else unasked(x) for name, x in self._stored(step).items()}
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
        differences = _differences(wanted, {name: x for name, x in stored.items() if name in wanted})
        if differences:
            raise InvalidInputError(
                f"checkpoint {self.directory / str(step)} does not have the networks of this game:\n  "
                + "\n  ".join(differences[:20])
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
        return json.loads((self.directory / str(step) / _MANIFEST).read_text(encoding="utf-8"))["sha256"]

    def names(self, step: int) -> list[str]:
        """Returns the names of the arrays in a checkpoint."""
        return list(self._stored(step))

    def _stored(self, step: int) -> dict[str, Any]:
        stored = self._manager.item_metadata(step)
        if stored is None:
            raise OSError("its metadata cannot be read")
        return dict(stored.items())

    def _check_whole(self, step: int) -> None:
        if fault := self._fault(step):
            raise OSError(fault)

    def _fault(self, step: int) -> str:
        """Describes what is wrong with the files of a checkpoint; empty if they are intact."""
        directory = self.directory / str(step)
        try:
            manifest = json.loads((directory / _MANIFEST).read_text(encoding="utf-8"))
            files = _files(directory)
            own = manifest.pop("sha256")
        except (OSError, ValueError, AttributeError, KeyError) as error:
            return f"its manifest {_MANIFEST} is missing or damaged ({type(error).__name__}: {error})"
        if own != _hash(manifest):
            return f"its manifest {_MANIFEST} has changed"
        for name in sorted(files.keys() | manifest["files"].keys()):
            was, now = manifest["files"].get(name), files.get(name)
            if was is None or now is None:
                return f"{name} is {'missing' if now is None else 'not part of it'}"
            if was != now:
                changed = "content" if was[0] == now[0] else f"size ({was[0]} bytes when saved, {now[0]} now)"
                return f"{name} has changed in {changed}"
        return ""

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
        steps, damaged = [step for step in self.steps() if step % every == 0], []
        for step in reversed(steps):
            if fault := self._fault(step):
                log(f"checkpoint {step} is damaged: {fault}")
                damaged.append(step)
                continue
            for step_aside in damaged if not self._read_only else ():
                log(f"checkpoint {step_aside} is kept aside in {self._put_aside(step_aside)}")
            return step
        if steps:
            raise InvalidInputError(
                f"none of the checkpoints {steps} in {self.directory} can be read; they are left as they are: repair "
                "them, or start again in another workdir"
            )
        return None

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
        step = hosts.decide("checkpoint", lambda: self.newest(log, every=every), timeout)
        self._manager.reload()  # process 0 may have moved damaged checkpoints
        return None if step is None else (step, self._restore(step, abstract))

    def _put_aside(self, step: int) -> pathlib.Path:
        """Moves a damaged checkpoint to `damaged/`, and returns its new path."""
        aside = self.directory.parent / "damaged" / str(step)
        aside.parent.mkdir(exist_ok=True)
        shutil.rmtree(aside, ignore_errors=True)
        (self.directory / str(step)).rename(aside)
        self._manager.reload()
        return aside


@contextlib.contextmanager
def _telling(what: str) -> Iterator[None]:
    """Turns an error of Orbax into an `InvalidInputError` that says what to do, or a `LostProcessError`."""
    try:
        yield
    except Exception as error:
        if hosts.client() is not None and hosts.told_by_another(error):
            raise hosts.LostProcessError(_in_short(error)) from error
        raise InvalidInputError(
            f"{what} could not be written: {_in_short(error)}; existing checkpoints are untouched: free some space or "
            "fix the storage, and run the same command again"
        ) from error


def _in_short(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text if len(text) < 400 else text[:150] + ' ... ' + text[-200:]}"


def _rebuild(abstract: PyTree, arrays: dict[str, jax.Array]) -> PyTree:
    """Builds the tree that `abstract` describes from arrays by name; key data become PRNG keys again."""
    leaves = [
        jax.random.wrap_key_data(arrays[name], impl=jax.random.key_impl(jnp.empty((), leaf.dtype)))
        if _is_key(leaf)
        else arrays[name]
        for name, leaf in zip(flatten(abstract), jax.tree.leaves(abstract), strict=True)
    ]
    return jax.tree.unflatten(jax.tree.structure(abstract), leaves)


def _compare(stored: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    return [
        f"{name}: {stored.get(name)} in the checkpoint, {wanted.get(name)} here"
        for name in sorted(stored.keys() | wanted.keys())
        if stored.get(name) != wanted.get(name)
    ]


def _differences(wanted: dict[str, Any], stored: dict[str, Any]) -> list[str]:
    missing = [f"missing from the checkpoint: {name}" for name in sorted(set(wanted) - set(stored))]
    extra = [f"only in the checkpoint: {name}" for name in sorted(set(stored) - set(wanted))]
    changed = [
        f"{name}: {tuple(stored[name].shape)} {stored[name].dtype} in the checkpoint, "
        f"{tuple(wanted[name].shape)} {wanted[name].dtype} in the game"
        for name in sorted(set(wanted) & set(stored))
        if (tuple(stored[name].shape), stored[name].dtype) != (tuple(wanted[name].shape), wanted[name].dtype)
    ]
    return missing + extra + changed
