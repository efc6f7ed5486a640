"""Networks that a game uses and nothing trains: a teacher, a feature network, another run's generator."""

import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import PyTree

from gan_jax.host import put
from gan_jax.runtime import mesh as meshes
from gan_jax.runtime.checkpoint import Checkpointer, state_sha256
from gan_jax.types import InvalidInputError


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


def trained_player(workdir: str | pathlib.Path, name: str = "ema.generator", *, step: int | str = "newest") -> Frozen:
    """A player of another run's checkpoint, as a frozen network.

    Args:
      workdir: of the other run.
      name: of one of its players, or `ema.` and the name of an average.
      step: of the checkpoint, or `newest` or `best`. A run goes on with the same arrays only: give the number where the
        other run may go on too.

    Returns:
      `{'params': ..., 'model_state': ...}`, for `Experiment.frozen`.

    Raises:
      InvalidInputError: for a workdir without such a checkpoint, or a checkpoint without such a player.
    """
    home = pathlib.Path(workdir) / "checkpoints"
    if not home.is_dir():
        raise InvalidInputError(f"{home} is not there: expected the workdir of a run with checkpoints")
    with Checkpointer(home, keep_last=1, read_only=True) as saved:
        found = {"newest": max(saved.steps(), default=None), "best": saved.best_step()}.get(str(step), step)
        if found not in saved.steps():
            raise InvalidInputError(f"{home} has no checkpoint {step!r}: it has {saved.steps()}")
        part = f"state.{name if name.startswith('ema.') else f'players.{name}'}."
        stored = saved.restore_part(int(found), (f"{part}params", f"{part}model_state"))
    if not stored:
        raise InvalidInputError(f"{home / str(found)} has no {name!r}: name a player, or ema. and an average")
    whole: dict[str, Any] = {"params": {}, "model_state": {}}
    for path, values in stored.items():
        *parents, last = path.removeprefix(part).split(".")
        inner = whole
        for parent in parents:
            inner = inner.setdefault(parent, {})
        inner[last] = values
    return Frozen(whole, f"{name} of {home / str(found)}")


def arrays(frozen: Mapping[str, Frozen]) -> dict[str, PyTree]:
    """What `state.frozen` is."""
    return {name: network.params for name, network in frozen.items()}


def shapes(frozen: Mapping[str, Frozen]) -> dict[str, PyTree]:
    """Shapes and dtypes of frozen networks."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(np.shape(x), x.dtype), arrays(frozen))


def place(frozen: Mapping[str, Frozen], mesh: Mesh) -> dict[str, PyTree]:
    """Frozen networks on the devices of a mesh: replicated, or split over `fsdp` like the arrays of players."""
    return jax.tree.map(lambda x: put(x, meshes.split_sharding(x, mesh)), arrays(frozen))
