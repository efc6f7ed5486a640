"""Where a batch lies on the mesh, said from inside a compiled step."""

import jax
from jax.sharding import PartitionSpec
from jaxtyping import PyTree

BATCH_AXIS = "data"


def constrain_batch(tree: PyTree, axis: int = 0) -> PyTree:
    """Keeps arrays that are made inside the step (latents, fakes) split over the devices like the data.

    Without it XLA may give every device the whole batch of latents, and the generator's work is done once per device.

    Args:
      tree: arrays with a batch axis.
      axis: which axis that is.

    Returns:
      The same arrays, constrained to the mesh axis `data`; untouched where no mesh is set or it lacks that axis.
    """
    if BATCH_AXIS not in jax.sharding.get_abstract_mesh().axis_names:
        return tree
    spec = PartitionSpec(*(None,) * axis, BATCH_AXIS)
    return jax.tree.map(lambda array: jax.lax.with_sharding_constraint(array, spec), tree)
