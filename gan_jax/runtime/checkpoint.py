"""Checkpoints of the whole state by Orbax, and the hash that proves two states equal."""

import hashlib
import pathlib
import shutil
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jaxtyping import PyTree

from gan_jax.types import InvalidInputError

_DIGEST = "sha256"  # saved beside the arrays: Orbax does not notice every damaged byte


def flatten(tree: PyTree) -> dict[str, Any]:
    """The arrays of a tree by name; a key array as its data."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="."): _data(leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


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
    """A hash over every array of a state: its name, dtype, shape and bytes.

    Args:
      state: any tree of arrays.

    Returns:
      64 hexadecimal digits; equal states have equal ones, on any number of devices.
    """
    return _digest(flatten(state)).tobytes().hex()


def _digest(arrays: dict[str, Any]) -> np.ndarray:
    digest = hashlib.sha256()
    for name, leaf in sorted(arrays.items()):
        array = np.asarray(jax.device_get(leaf))
        digest.update(f"{name} {array.dtype} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return np.frombuffer(digest.digest(), np.uint8)


@jax.jit
def all_finite(tree: PyTree) -> jax.Array:
    """Whether every floating-point array of a tree is finite."""
    leaves = [x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.floating)]
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(x)) for x in leaves]))


class Checkpointer:
    """Saves asynchronously, keeps the last few and every k-th, restores the newest that can be read."""

    def __init__(
        self, directory: pathlib.Path, *, keep_last: int, keep_every: int = 0, read_only: bool = False
    ) -> None:
        """Opens a directory of checkpoints.

        Args:
          directory: one sub-directory per step.
          keep_last: how many of the newest to keep.
          keep_every: keep for good each whose step this divides; 0 for none.
          read_only: never write or delete.
        """
        self.directory, self._read_only = directory.absolute(), read_only
        self._manager = ocp.CheckpointManager(
            self.directory,
            item_handlers=ocp.StandardCheckpointHandler(),  # without it a new process cannot read metadata
            options=ocp.CheckpointManagerOptions(
                max_to_keep=None if read_only else keep_last,
                keep_period=keep_every or None,
                cleanup_tmp_directories=not read_only,
                read_only=read_only,
                save_interval_steps=0 if read_only else 1,
                create=not read_only,
            ),
        )

    def steps(self) -> list[int]:
        """The steps that have a finished checkpoint, oldest first."""
        self._manager.reload()
        return sorted(self._manager.all_steps())

    def save(self, step: int, tree: PyTree) -> None:
        """Saves a tree of arrays; returns once it is copied, and writes in the background.

        A checkpoint of that step that is there already is left as it is.
        """
        if step not in self._manager.all_steps():
            arrays = flatten(tree)
            self._manager.save(step, args=ocp.args.StandardSave(arrays | {_DIGEST: _digest(arrays)}))

    def wait(self) -> None:
        """Returns when every save is on disk; raises what went wrong with one."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits, and lets go of the directory."""
        self._manager.close()

    def restore(self, step: int, abstract: PyTree) -> PyTree:
        """One checkpoint, exactly as `abstract` describes it.

        Args:
          step: which.
          abstract: tree of `jax.ShapeDtypeStruct`s with shardings.

        Returns:
          The tree.

        Raises:
          InvalidInputError: if names, shapes or dtypes differ; the message lists the differences.
        """
        wanted = flatten(abstract)
        digest = jax.ShapeDtypeStruct((32,), np.uint8, sharding=jax.tree.leaves(abstract)[0].sharding)
        stored = self._manager.item_metadata(step)
        if stored is None:
            raise OSError("its metadata cannot be read")
        differences = _differences(wanted, {name: x for name, x in stored.items() if name != _DIGEST})
        if differences:
            shown = "\n  ".join(differences[:20]) + (
                f"\n  and {len(differences) - 20} more" if differences[20:] else ""
            )
            raise InvalidInputError(
                f"checkpoint {self.directory / str(step)} is of another game or configuration:\n  {shown}\n"
                "resume with the configuration that made it, or use another workdir"
            )
        arrays = self._manager.restore(step, args=ocp.args.StandardRestore(wanted | {_DIGEST: digest}))
        if not np.array_equal(arrays.pop(_DIGEST), _digest(arrays)):
            raise OSError("its arrays are not those that were saved: the hashes differ")
        leaves = [
            jax.random.wrap_key_data(arrays[name], impl=jax.random.key_impl(jnp.empty((), leaf.dtype)))
            if _is_key(leaf)
            else arrays[name]
            for name, leaf in zip(wanted, jax.tree.leaves(abstract), strict=True)
        ]
        return jax.tree.unflatten(jax.tree.structure(abstract), leaves)

    def restore_latest(self, abstract: PyTree, say: Callable[[str], None] = print) -> tuple[int, PyTree] | None:
        """The newest checkpoint that can be read; damaged ones are named and kept aside in `damaged/`.

        Args:
          abstract: as for `restore`.
          say: gets the messages.

        Returns:
          Its step and the tree, or None where there is no checkpoint at all.

        Raises:
          InvalidInputError: if it is of another game, or if there are checkpoints and none can be read.
        """
        steps, damaged = self.steps(), []
        for step in reversed(steps):
            try:
                restored = self.restore(step, abstract)
            except (InvalidInputError, MemoryError):
                raise
            except Exception as error:  # whatever Orbax, TensorStore or JSON raise on damaged files
                say(f"checkpoint {step} is damaged: {_first_line(error)}")
                damaged.append(step)
                continue
            for step_aside in damaged if not self._read_only else ():
                say(f"checkpoint {step_aside} is kept aside in {self._put_aside(step_aside)}")
            return step, restored
        if steps:
            raise InvalidInputError(
                f"none of the checkpoints {steps} in {self.directory} can be read; they are left as they are: mend "
                "them, or start again in another workdir"
            )
        return None

    def _put_aside(self, step: int) -> pathlib.Path:
        """Moves a damaged checkpoint out of the way, and tells where to."""
        aside = self.directory.parent / "damaged" / str(step)
        aside.parent.mkdir(exist_ok=True)
        shutil.rmtree(aside, ignore_errors=True)
        (self.directory / str(step)).rename(aside)
        self._manager.reload()
        return aside


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0][:200] if str(error).strip() else ''}"


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
