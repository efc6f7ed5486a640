"""The mesh, where arrays lie on it, and how every process hands in its part of them."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree

from gan_jax.core.sharding import DATA_AXIS, FSDP_AXIS, TRIAL_AXIS, batch_spec, fsdp_spec
from gan_jax.host import put
from gan_jax.types import InvalidInputError


def make_mesh(devices: Sequence[jax.Device] | None = None, *, fsdp: int = 1) -> Mesh:
    """All devices of all processes on the axes `trial` (one), `data` and `fsdp`; see `core.sharding`.

    The axes are Auto: under JAX's default of explicit axes, indexing an embedding by sharded labels raises.

    Args:
      devices: those to use; all by default.
      fsdp: over how many devices each large array of a player is split; 1 keeps a copy on every device.

    Returns:
      The mesh.

    Raises:
      InvalidInputError: if `fsdp` does not divide the number of devices.
    """
    devices = jax.devices() if devices is None else devices
    if fsdp < 1 or len(devices) % fsdp:
        raise InvalidInputError(f"fsdp={fsdp}: expected a divisor of the number of devices, {len(devices)}")
    shape, names = (1, len(devices) // fsdp, fsdp), (TRIAL_AXIS, DATA_AXIS, FSDP_AXIS)
    return jax.make_mesh(shape, names, (AxisType.Auto,) * 3, devices=devices)


def replicated(mesh: Mesh) -> NamedSharding:
    """The same on every device."""
    return NamedSharding(mesh, PartitionSpec())


def along_batch(mesh: Mesh, axis: int) -> NamedSharding:
    """Split over the devices along a batch axis."""
    return NamedSharding(mesh, batch_spec(mesh.axis_names, axis))


def constraints(jaxpr: Any) -> list[PartitionSpec]:
    """For each output of a traced function the sharding that it was constrained to, empty where it was not."""
    found: dict[int, PartitionSpec] = {}
    for equation in jaxpr.eqns:
        if equation.primitive.name == "sharding_constraint":
            found[id(equation.outvars[0])] = equation.params["sharding"].spec
        elif equation.primitive.name == "jit":
            inner = constraints(equation.params["jaxpr"].jaxpr)
            found |= dict(zip(map(id, equation.outvars), inner, strict=True))
    return [found.get(id(variable), PartitionSpec()) for variable in jaxpr.outvars]


def carried_shardings(carried: PyTree, constrained: PyTree, mesh: Mesh) -> PyTree:
    """Shardings of what training carries: its state, its metrics and its counters.

    Args:
      carried: shapes and dtypes of `{'state', ...}`.
      constrained: from `constraints`, of `init`: what it constrained to the batch (image pools) stays there.
      mesh: over which devices.

    Returns:
      The shardings: of parameters, optimiser states and averages by `core.sharding.fsdp_spec`; the rest replicated.
    """

    def split(shapes: PyTree) -> PyTree:
        return jax.tree.map(lambda x: split_sharding(x, mesh), shapes)

    state = carried["state"]
    kept = jax.tree.map(lambda spec: NamedSharding(mesh, spec), constrained)
    players = {
        name: player.replace(params=split(shapes.params), opt_state=split(shapes.opt_state))
        for (name, player), shapes in zip(kept["state"].players.items(), state.players.values(), strict=True)
    }
    ema = {name: kept["state"].ema[name] | {"params": split(shapes["params"])} for name, shapes in state.ema.items()}
    return kept | {"state": kept["state"].replace(players=players, ema=ema)}


def split_sharding(x: Any, mesh: Mesh) -> NamedSharding:
    """Over `fsdp`, if it is large; see `core.sharding.fsdp_spec`."""
    return NamedSharding(mesh, fsdp_spec(tuple(x.shape), mesh.shape[FSDP_AXIS]))


def check_batch_size(batch_size: int, mesh: Mesh) -> None:
    """The batch must fall into equal parts."""
    if batch_size % mesh.size:
        below = batch_size - batch_size % mesh.size
        raise InvalidInputError(
            f"batch_size={batch_size} does not divide over {mesh.size} devices: take a multiple of {mesh.size}, "
            f"such as {below or mesh.size} or {below + mesh.size}"
        )


def local_indices(mesh: Mesh, batch_size: int) -> np.ndarray:
    """Which examples of a batch this process's devices hold, and so which it must read; ascending."""
    indices = along_batch(mesh, 0).addressable_devices_indices_map((batch_size,)).values()
    return np.unique(np.concatenate([np.arange(batch_size)[index] for index in indices]))


def put_replicated(tree: PyTree, mesh: Mesh) -> PyTree:
    """Arrays that every process has whole, on all devices."""
    return jax.tree.map(lambda x: put(x, replicated(mesh)), tree)


def put_batch(tree: PyTree, mesh: Mesh, local_indices: np.ndarray, batch_size: int, axis: int) -> PyTree:
    """Arrays of which every process has the part that `local_indices` names, as one array over all devices.

    Args:
      tree: arrays `[..., len(places), ...]`.
      mesh: over which devices.
      local_indices: of this process.
      batch_size: of the whole batch.
      axis: the batch axis.

    Returns:
      Arrays `[..., batch_size, ...]`.
    """
    sharding = along_batch(mesh, axis)
    if sharding.is_fully_addressable:
        return jax.device_put(tree, sharding)

    def put_part(local: np.ndarray) -> jax.Array:
        shape = (*local.shape[:axis], batch_size, *local.shape[axis + 1 :])

        def part(index: Any) -> np.ndarray:
            rows = np.searchsorted(local_indices, np.arange(batch_size)[index[axis]])
            return np.take(local, rows, axis=axis)

        return jax.make_array_from_callback(shape, sharding, part)

    return jax.tree.map(put_part, tree)
