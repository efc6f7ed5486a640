"""Where arrays lie on the mesh, said from inside a compiled step.

A mesh has three axes. `data` splits the batch. `fsdp` splits it too, and the large arrays of the players beside it
(Rajbhandari et al., "ZeRO: Memory Optimizations Toward Training Trillion Parameter Models", arXiv:1910.02054, 2020,
stage 3). `trial` is for populations of runs, and of size 1 where there is one run.
"""

import jax
from jax.sharding import PartitionSpec
from jaxtyping import PyTree

TRIAL_AXIS, DATA_AXIS, FSDP_AXIS = "trial", "data", "fsdp"
MIN_SPLIT = 1024  # numbers; smaller arrays cost more to gather than to keep


def constrain_batch(tree: PyTree, axis: int = 0) -> PyTree:
    """Keeps arrays that are made inside the step (latents, fakes) split over the devices like the data.

    Without it XLA may give every device the whole batch of latents, and the generator's work is done once per device.

    Args:
      tree: arrays with a batch axis.
      axis: which axis that is.

    Returns:
      The same arrays, constrained to the mesh axes `data` and `fsdp`; untouched where no mesh is set or it lacks them.
    """
    names = jax.sharding.get_abstract_mesh().axis_names
    if DATA_AXIS not in names:
        return tree
    spec = batch_spec(names, axis)
    return jax.tree.map(lambda array: jax.lax.with_sharding_constraint(array, spec), tree)


def batch_spec(names: tuple[str, ...], axis: int) -> PartitionSpec:
    """The batch axis split over all of `data` and `fsdp` that a mesh has."""
    present = tuple(name for name in (DATA_AXIS, FSDP_AXIS) if name in names)
    return PartitionSpec(*(None,) * axis, present if len(present) > 1 else present[0])


def fsdp_spec(shape: tuple[int, ...], parts: int) -> PartitionSpec:
    """How an array of a player lies on the mesh: its longest axis that `parts` divides is split, if it is large.

    Args:
      shape: of the array.
      parts: size of the mesh axis `fsdp`.

    Returns:
      The spec; that of a replicated array for `parts` 1 and for small arrays.
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
    return dict(jax.sharding.get_abstract_mesh().shape).get(FSDP_AXIS, 1)


def gather(params: PyTree) -> PyTree:
    """The whole of parameters that are split over `fsdp`, on every device; without `fsdp`, the parameters."""
    if _fsdp_parts() == 1:
        return params
    return jax.tree.map(lambda x: jax.lax.with_sharding_constraint(x, PartitionSpec()), params)


def scatter(params: PyTree) -> PyTree:
    """Each device's part of a tree like the parameters (a gradient); without `fsdp`, the tree."""
    parts = _fsdp_parts()
    if parts == 1:
        return params
    return jax.tree.map(lambda x: jax.lax.with_sharding_constraint(x, fsdp_spec(x.shape, parts)), params)
