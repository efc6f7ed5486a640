"""The arrays of a state by name, as in a checkpoint: flattened, rebuilt, compared, and hashed."""

import hashlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import PyTree


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


def gathered(arrays: dict[str, Any]) -> dict[str, Any]:
    """Returns arrays of which every process holds the whole. All processes of a run must call it.

    Args:
      arrays: arrays by name, on the devices of any number of processes.

    Returns:
      The arrays by name: as they are with a single process, else on the host. Only process 0 copies those that every
      process holds anyway.
    """
    if jax.process_count() == 1:
        return arrays
    found = dict[str, Any]()
    for name, x in sorted(arrays.items()):  # an allgather is a collective, reached in the same order everywhere
        if isinstance(x, jax.Array) and not (x.is_fully_addressable or x.is_fully_replicated):
            found[name] = np.asarray(multihost_utils.process_allgather(x, tiled=True))
        elif jax.process_index() == 0:
            found[name] = np.asarray(x)
    return found


def rebuild(abstract: PyTree, arrays: dict[str, jax.Array]) -> PyTree:
    """Builds the tree that `abstract` describes from arrays by name; key data become PRNG keys again."""
    leaves = [
        jax.random.wrap_key_data(arrays[name], impl=jax.random.key_impl(jnp.empty((), leaf.dtype)))
        if _is_key(leaf)
        else arrays[name]
        for name, leaf in zip(flatten(abstract), jax.tree.leaves(abstract), strict=True)
    ]
    return jax.tree.unflatten(jax.tree.structure(abstract), leaves)


def compare(stored: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    """Lists the entries in which two descriptions of an experiment differ."""
    return [
        f"{name}: {stored.get(name)} in the checkpoint, {wanted.get(name)} here"
        for name in sorted(stored.keys() | wanted.keys())
        if stored.get(name) != wanted.get(name)
    ]


def differences(wanted: dict[str, Any], stored: dict[str, Any]) -> list[str]:
    """Lists the differences in name, shape and dtype between arrays that a game wants and those of a checkpoint."""
    missing = [f"missing from the checkpoint: {name}" for name in sorted(set(wanted) - set(stored))]
    extra = [f"only in the checkpoint: {name}" for name in sorted(set(stored) - set(wanted))]
    changed = [
        f"{name}: {tuple(stored[name].shape)} {stored[name].dtype} in the checkpoint, "
        f"{tuple(wanted[name].shape)} {wanted[name].dtype} in the game"
        for name in sorted(set(wanted) & set(stored))
        if (tuple(stored[name].shape), stored[name].dtype) != (tuple(wanted[name].shape), wanted[name].dtype)
    ]
    return missing + extra + changed
