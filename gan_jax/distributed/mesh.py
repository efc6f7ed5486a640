"""The device mesh, the shardings of arrays on it, and global arrays assembled from the parts of each process."""

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
    """Arranges devices in a mesh with the axes `trial` (of size 1), `data` and `fsdp`; see `core.sharding`.

    The axes are of type Auto: with JAX's default of explicit axes, indexing an embedding by sharded labels raises.

    Args:
      devices: devices to use; by default all devices of all processes.
      fsdp: number of devices that each large array of a player is split over; 1 keeps a copy on every device.

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
    """Returns the sharding of an array that is whole on every device."""
    return NamedSharding(mesh, PartitionSpec())


def along_batch(mesh: Mesh, axis: int) -> NamedSharding:
    """Returns the sharding of an array whose batch axis is split over all devices."""
    return NamedSharding(mesh, batch_spec(mesh.axis_names, axis))


def constraints(jaxpr: Any) -> list[PartitionSpec]:
    """Returns, for each output of a traced function, the spec that it was constrained to, or an empty spec."""
    found: dict[int, PartitionSpec] = {}
    for equation in jaxpr.eqns:
        if equation.primitive.name == "sharding_constraint":
            found[id(equation.outvars[0])] = equation.params["sharding"].spec
        elif equation.primitive.name == "jit":
            inner = constraints(equation.params["jaxpr"].jaxpr)
            found |= dict(zip(map(id, equation.outvars), inner, strict=True))
    return [found.get(id(variable), PartitionSpec()) for variable in jaxpr.outvars]


def carried_shardings(carried: PyTree, constrained: PyTree, mesh: Mesh) -> PyTree:
    """Returns the shardings of what training carries from step to step: state, metric accumulator and counters.

    Args:
      carried: shapes and dtypes of `{'state', ...}`.
      constrained: result of `constraints` for the function that initialises it, as a tree like `carried`. Arrays that
        it constrains to the batch axis, such as image pools, keep that sharding.
      mesh: mesh of the devices.

    Returns:
      The shardings: `core.sharding.fsdp_spec` for parameters, optimiser states and averaged parameters; the
      constrained ones; everything else is replicated.
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
    """Returns the sharding of an array that is split over `fsdp` if it is large; see `core.sharding.fsdp_spec`."""
    return NamedSharding(mesh, fsdp_spec(tuple(x.shape), mesh.shape[FSDP_AXIS]))


def check_batch_size(batch_size: int, mesh: Mesh) -> None:
    """Refuses a batch that does not divide into equal parts over the devices."""
    if batch_size % mesh.size:
        below = batch_size - batch_size % mesh.size
        near = " or ".join(str(size) for size in (below, below + mesh.size) if size)
        raise InvalidInputError(
            f"batch_size={batch_size} does not divide over {mesh.size} devices: take a multiple of {mesh.size}, "
            f"such as {near}"
        )


def local_indices(mesh: Mesh, batch_size: int) -> np.ndarray:
    """Returns the indices, ascending, of the batch's examples on this process's devices: those that it must read."""
    indices = along_batch(mesh, 0).addressable_devices_indices_map((batch_size,)).values()
    return np.unique(np.concatenate([np.arange(batch_size)[index] for index in indices]))


def put_replicated(tree: PyTree, mesh: Mesh) -> PyTree:
    """Replicates arrays, which every process holds whole, on all devices of the mesh."""
    return jax.tree.map(lambda x: put(x, replicated(mesh)), tree)


def put_batch(tree: PyTree, mesh: Mesh, local_indices: np.ndarray, batch_size: int, axis: int) -> PyTree:
    """Assembles global arrays, split over all devices, from the examples that each process has read.

    Args:
      tree: arrays of this process's examples, `[..., len(local_indices), ...]`.
      mesh: mesh of the devices.
      local_indices: indices of this process's examples in the batch, from `local_indices`.
      batch_size: size of the whole batch.
      axis: index of the batch axis.

    Returns:
      Global arrays `[..., batch_size, ...]`.
    """
    sharding = along_batch(mesh, axis)
    if sharding.is_fully_addressable:
        return jax.device_put(tree, sharding)

    def put_part(local: np.ndarray) -> jax.Array:
        shape = (*local.shape[:axis], batch_size, *local.shape[axis + 1 :])

        def part(index: Any) -> np.ndarray:
            # `index` is global; local rows are in the order of the ascending `local_indices`.
            rows = np.searchsorted(local_indices, np.arange(batch_size)[index[axis]])
            return np.take(local, rows, axis=axis)

        return jax.make_array_from_callback(shape, sharding, part)

    return jax.tree.map(put_part, tree)
