"""Checkpoints of the whole state by Orbax, a manifest that detects damage, and a hash to prove two states equal."""

import contextlib
import hashlib
import json
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

_MANIFEST = "gan_jax.json"  # in a checkpoint: what it is of, and the size and hash of every other file
_UNSEALED = {_MANIFEST, "_CHECKPOINT_METADATA", "commit_success.txt"}  # Orbax writes the others as it commits
_TEMPORARY = ".orbax-checkpoint-tmp"  # Orbax renames the directory when all of it, the manifest included, is written


def flatten(tree: PyTree) -> dict[str, Any]:
    """The arrays of a tree by name; a key array as its data."""
    return {path_name(path): _data(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def path_name(path: Any) -> str:
    """The name of an array in a checkpoint, from its path in the tree."""
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
    """A hash over every array of a state: its name, dtype, shape and bytes; all processes of a run must call it.

    Args:
      state: any tree of arrays.

    Returns:
      64 hexadecimal digits; equal states have equal ones, on any number of devices and processes.
    """
    digest = hashlib.sha256()
    for name, leaf in sorted(flatten(state).items()):
        local = not isinstance(leaf, jax.Array) or leaf.is_fully_addressable or leaf.is_fully_replicated
        array = np.asarray(leaf if local else multihost_utils.process_allgather(leaf, tiled=True))
        digest.update(f"{name} {array.dtype} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _files(directory: pathlib.Path) -> dict[str, list[Any]]:
    """Size and hash of every file of a checkpoint that does not change any more."""
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
    """Orbax's policy: the last `count` of those on schedule, and the newest, which a signal may have had saved."""

    def __init__(self, count: int, every: int) -> None:
        self._count, self._every = count, every

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        del context
        steps = sorted(info.step for info in checkpoints)
        kept = {*[step for step in steps if step % self._every == 0][-self._count :], *steps[-1:]}
        return [info.step in kept for info in checkpoints]


class _Manager(ocp.CheckpointManager):
    """Orbax's, without its question for a preemption notice: its numbers would disturb `hosts.preempted`."""

    def reached_preemption(self, step: int) -> bool:
        del step
        return False


class Checkpointer:
    """Saves asynchronously, keeps the last few, every k-th and the best, restores the newest that is whole."""

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
          directory: one sub-directory per step; all processes of a run must see the same one.
          keep_last: how many of the newest to keep, beside one that was saved off schedule.
          every: the schedule: those whose step this divides.
          keep_every: keep for good each whose step this divides; 0 for none.
          best_metric: keep the one that was saved with the best value of this metric too; empty for none.
          best_mode: whether the smallest or the largest value is best.
          about: what the checkpoints are of; restoring refuses those of anything else. None restores anything.
          read_only: never write or delete.
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
        """The steps that have a finished checkpoint, oldest first."""
        self._manager.reload()
        return sorted(self._manager.all_steps())

    def best_step(self) -> int | None:
        """The step of the best checkpoint by the metric; None without one."""
        return self._manager.best_step() if self._best else None

    def save(self, step: int, tree: PyTree, metrics: dict[str, float] | None = None) -> None:
        """Saves a tree of arrays; returns once it is copied, and writes in the background.

        A checkpoint of that step that is there already is left as it is.

        Args:
          step: its name.
          tree: of arrays.
          metrics: for choosing the best; None where they were not measured at this step.

        Raises:
          InvalidInputError: what went wrong with the save before, if something did.
        """
        if step not in self._manager.all_steps():
            with _telling("the checkpoint before"):
                self._manager.save(step, args=ocp.args.StandardSave(flatten(tree)), metrics=metrics)

    def _write_manifest(self) -> None:
        """Writes what the checkpoint is, and what its files are, just before Orbax gives it its name."""
        [temporary] = self.directory.glob(f"*{_TEMPORARY}*")
        body = {"about": self._about, "files": _files(temporary)}
        write_json(temporary / _MANIFEST, body | {"sha256": _hash(body)})

    def check(self) -> None:
        """Raises what went wrong with a save in the background, if something did."""
        with _telling("a checkpoint"):
            self._manager.check_for_errors()

    def wait(self) -> None:
        """Returns when every save is on disk; raises what went wrong with one."""
        with _telling("a checkpoint"):
            self._manager.wait_until_finished()
            self._manager.check_for_errors()

    def close(self) -> None:
        """Lets go of the directory."""
        self._manager.close()

    def __enter__(self) -> "Checkpointer":
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if error is None:
            self.close()
        elif hosts.client() is None:  # a save goes on in the background; among processes it might wait for a lost one
            try:
                self.close()
            except Exception as another:
                error.add_note(f"and a checkpoint could not be written: {_in_short(another)}")

    def restore(self, step: int, abstract: PyTree) -> PyTree:
        """One checkpoint, exactly as `abstract` describes it; all processes of a run must call it.

        Where a run is only looked at (`read_only`), `abstract` may have fewer entries at the top than the checkpoint.

        Args:
          step: which.
          abstract: tree of `jax.ShapeDtypeStruct`s with shardings, on any number of devices and processes.

        Returns:
          The tree.

        Raises:
          InvalidInputError: if the game, names, shapes or dtypes differ; the message lists the differences.
          OSError: if it is damaged.
        """
        self._check_whole(step)
        return self._restore(step, abstract)

    def _restore(self, step: int, abstract: PyTree) -> PyTree:
        wanted, stored = flatten(abstract), self._stored(step)
        tops = {name.partition(".")[0] for name in wanted}
        looked_at = {name: x for name, x in stored.items() if not self._read_only or name.partition(".")[0] in tops}
        about = json.loads((self.directory / str(step) / _MANIFEST).read_text())["about"]
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
        """All arrays of a checkpoint, since Orbax restores no part of one; those that are wanted as they are wanted."""

        def unasked(x: Any) -> jax.ShapeDtypeStruct:
            mesh = jax.tree.leaves(wanted)[0].sharding.mesh
            return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=meshes.split_sharding(x, mesh))

        whole = {name: wanted[name] if name in wanted else unasked(x) for name, x in self._stored(step).items()}
        return self._manager.restore(step, args=ocp.args.StandardRestore(whole))

    def restore_some(self, step: int, wanted: dict[str, jax.ShapeDtypeStruct]) -> dict[str, jax.Array]:
        """Arrays of a checkpoint by the names of `flatten`, whatever else it holds, for another game to begin with.

        Raises:
          InvalidInputError: if it lacks some, or they differ in shape or dtype; the message lists the differences.
          OSError: if it is damaged.
        """
        self._check_whole(step)
        stored = self._stored(step)
        differences = _differences(wanted, {name: x for name, x in stored.items() if name in wanted})
        if differences:
            raise InvalidInputError(
                f"checkpoint {self.directory / str(step)} has not the networks of this game:\n  "
                + "\n  ".join(differences[:20])
            )
        arrays = self._whole(step, wanted)
        return {name: arrays[name] for name in wanted}

    def restore_part(self, step: int, prefixes: tuple[str, ...]) -> dict[str, np.ndarray]:
        """The arrays of a checkpoint whose names begin so, on the host.

        Raises:
          OSError: if it is damaged.
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
        """What tells a checkpoint from all others; damaged ones have none.

        Raises:
          OSError: if it is damaged.
        """
        self._check_whole(step)
        return json.loads((self.directory / str(step) / _MANIFEST).read_text())["sha256"]

    def names(self, step: int) -> list[str]:
        """The arrays that a checkpoint holds."""
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
        """What is wrong with the files of a checkpoint; empty if nothing is."""
        directory = self.directory / str(step)
        try:
            manifest = json.loads((directory / _MANIFEST).read_text())
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
        """The newest checkpoint whose files are whole; damaged ones are named and kept aside in `damaged/`.

        Args:
          log: gets the messages.
          every: only those whose step this divides.

        Returns:
          Its step, or None where there is no checkpoint at all.

        Raises:
          InvalidInputError: if there are checkpoints and none is whole.
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
                f"none of the checkpoints {steps} in {self.directory} can be read; they are left as they are: mend "
                "them, or start again in another workdir"
            )
        return None

    def restore_latest(
        self, abstract: PyTree, log: Callable[[str], None] = print, *, every: int = 1, timeout: float = 600.0
    ) -> tuple[int, PyTree] | None:
        """The newest checkpoint that is whole, which process 0 chooses; see `newest` and `restore`.

        Args:
          abstract: as for `restore`.
          log: gets the messages.
          every: only those whose step this divides.
          timeout: seconds to wait for process 0 to choose.

        Returns:
          Its step and the tree, or None where there is no checkpoint at all.
        """
        step = hosts.decide("checkpoint", lambda: self.newest(log, every=every), timeout)
        self._manager.reload()
        return None if step is None else (step, self._restore(step, abstract))

    def _put_aside(self, step: int) -> pathlib.Path:
        """Moves a damaged checkpoint out of the way, and tells where to."""
        aside = self.directory.parent / "damaged" / str(step)
        aside.parent.mkdir(exist_ok=True)
        shutil.rmtree(aside, ignore_errors=True)
        (self.directory / str(step)).rename(aside)
        self._manager.reload()
        return aside


@contextlib.contextmanager
def _telling(what: str) -> Iterator[None]:
    """Turns what Orbax raises for a failed write into one error that says what to do."""
    try:
        yield
    except Exception as error:
        if hosts.client() is not None and hosts.told_by_another(error):
            raise hosts.LostProcessError(_in_short(error)) from error
        raise InvalidInputError(
            f"{what} could not be written: {_in_short(error)}; those already there are untouched: make room or mend "
            "the storage, and run the same command again"
        ) from error


def _in_short(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text if len(text) < 400 else text[:150] + ' ... ' + text[-200:]}"


def _rebuild(abstract: PyTree, arrays: dict[str, jax.Array]) -> PyTree:
    """The tree that `abstract` describes, of arrays by name."""
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
