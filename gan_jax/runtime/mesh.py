"""The mesh, and where arrays lie on it."""

from collections.abc import Sequence

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree

from gan_jax.core.sharding import BATCH_AXIS
from gan_jax.types import InvalidInputError


def make_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
    """All devices on one axis, `data`.

    The axis is Auto: under JAX's default of explicit axes, indexing an embedding by sharded labels raises.

    Args:
      devices: those to use; all by default.

    Returns:
      The mesh.
    """
    devices = jax.devices() if devices is None else devices
    return jax.make_mesh((len(devices),), (BATCH_AXIS,), (AxisType.Auto,), devices=devices)


def replicated(mesh: Mesh) -> NamedSharding:
    """The same on every device."""
    return NamedSharding(mesh, PartitionSpec())


def along_batch(mesh: Mesh, axis: int) -> NamedSharding:
    """Split over the devices along a batch axis."""
    return NamedSharding(mesh, PartitionSpec(*(None,) * axis, BATCH_AXIS))


def carried_shardings(shardings: PyTree, mesh: Mesh) -> PyTree:
    """What `init` constrained to the batch axis stays there (image pools), the rest is replicated."""

    def choose(sharding: jax.sharding.Sharding) -> NamedSharding:
        if isinstance(sharding, NamedSharding) and any(axis is not None for axis in sharding.spec):
            return NamedSharding(mesh, sharding.spec)
        return replicated(mesh)

    return jax.tree.map(choose, shardings)


def check_batch_size(batch_size: int, mesh: Mesh) -> None:
    """The batch must fall into equal parts."""
    if batch_size % mesh.size:
        below = batch_size - batch_size % mesh.size
        raise InvalidInputError(
            f"batch_size={batch_size} does not divide over {mesh.size} devices: take a multiple of {mesh.size}, "
            f"such as {below or mesh.size} or {below + mesh.size}"
        )
