"""Sharding constraints that a compiled step puts on its arrays.

A mesh has three axes. `data` splits the batch. `fsdp` splits the batch further, and also splits the large arrays of the
players (Rajbhandari et al., "ZeRO: Memory Optimizations Toward Training Trillion Parameter Models", arXiv:1910.02054,
2020, stage 3). `trial` splits populations of runs; it has size 1 for a single run.
"""

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import PyTree

TRIAL_AXIS, DATA_AXIS, FSDP_AXIS = "trial", "data", "fsdp"
MIN_SPLIT = 1024  # in elements; gathering a smaller array costs more than keeping a copy on every device


def constrain_batch(tree: PyTree, axis: int = 0) -> PyTree:
    """Splits arrays that are created inside the step (latents, fakes) over the devices like the data.

    Without this constraint XLA may give every device the whole batch of latents. Every device would then run the
    generator on all of it.

    Args:
      tree: arrays with a batch axis.
      axis: index of the batch axis.

    Returns:
      The same arrays, split over the mesh axes `data` and `fsdp`; unchanged if no mesh is set or it has no axis `data`.
      So are arrays without a batch axis, such as scalars.
    """
    names = jax.sharding.get_abstract_mesh().axis_names
    if DATA_AXIS not in names:
        return tree
    spec = batch_spec(names, axis)
    split = lambda array: jax.lax.with_sharding_constraint(array, spec)  # noqa: E731
    return jax.tree.map(lambda array: array if jnp.ndim(array) <= axis else split(array), tree)


def batch_spec(names: tuple[str, ...], axis: int) -> PartitionSpec:
    """Returns the spec that splits the batch axis over `data` and `fsdp`, or the one of them that the mesh has."""
    present = tuple(name for name in (DATA_AXIS, FSDP_AXIS) if name in names)
    return PartitionSpec(*(None,) * axis, present if len(present) > 1 else present[0])


def fsdp_spec(shape: tuple[int, ...], parts: int) -> PartitionSpec:
    """Returns the spec of a player's array: a large array is split along its longest axis that `parts` divides.

    Args:
      shape: shape of the array.
      parts: size of the mesh axis `fsdp`.

    Returns:
      The spec. The array is replicated if `parts` is 1, if it has fewer than `MIN_SPLIT` elements, or if `parts`
      divides none of its axes.
    """
    size = 1
    for length in shape:
        size *= length
    candidates = [axis for axis, length in enumerate(shape) if length % parts == 0]
    if parts == 1 or size < MIN_SPLIT or not candidates:
        return PartitionSpec()
    longest = max(candidates, key=lambda axis: shape[axis])
    return PartitionSpec(*(None,) * longest, FSDP_AXIS)


def _fsdp_parts() -> int:
    """Returns the size of the axis `fsdp` of the current mesh; 1 without a mesh or without this axis."""
    return dict(jax.sharding.get_abstract_mesh().shape).get(FSDP_AXIS, 1)


def gather(params: PyTree) -> PyTree:
    """Gathers parameters that are split over `fsdp`, so that every device has them whole; no-op without `fsdp`."""
    if _fsdp_parts() == 1:
        return params
    return jax.tree.map(lambda x: jax.lax.with_sharding_constraint(x, PartitionSpec()), params)


def scatter(params: PyTree) -> PyTree:
    """Splits a tree that is like the parameters (a gradient) over `fsdp`, as `gather` found them; no-op without it."""
    parts = _fsdp_parts()
    if parts == 1:
        return params
    return jax.tree.map(lambda x: jax.lax.with_sharding_constraint(x, fsdp_spec(x.shape, parts)), params)
