"""Networks that a game uses and nothing trains: a teacher, a feature network, another run's generator."""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import PyTree

from gan_jax.runtime import mesh as meshes
from gan_jax.runtime.checkpoint import state_sha256


class Frozen(NamedTuple):
    """A network that nothing trains.

    Attributes:
      params: its arrays, any tree: what `state.frozen[name]` is.
      source: where they come from, for people; checkpoints name it, with the sha256 of the arrays.
    """

    params: PyTree
    source: str

    def sha256(self) -> str:
        """Of the arrays; a run is not continued with others."""
        return state_sha256(self.params)


def arrays(frozen: Mapping[str, Frozen]) -> dict[str, PyTree]:
    """What `state.frozen` is."""
    return {name: network.params for name, network in frozen.items()}


def shapes(frozen: Mapping[str, Frozen]) -> dict[str, PyTree]:
    """Shapes and dtypes of frozen networks."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(np.shape(x), x.dtype), arrays(frozen))


def place(frozen: Mapping[str, Frozen], mesh: Mesh) -> dict[str, PyTree]:
    """Frozen networks on the devices of a mesh: replicated, or split over `fsdp` like the arrays of players."""
    return jax.tree.map(lambda x: meshes.put(x, meshes.split_sharding(x, mesh)), arrays(frozen))
