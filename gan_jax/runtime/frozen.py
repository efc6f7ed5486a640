"""Networks that a game uses and nothing trains: a teacher, a feature network, another run's generator."""

import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import PyTree

from gan_jax.distributed import mesh as meshes
from gan_jax.host import put
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


class Networks(Mapping[str, Frozen]):
    """Networks that nothing trains, each read, and put on the devices, when it is first asked for."""

    def __init__(self, readers: Mapping[str, Callable[[], Frozen]]) -> None:
        """Reads nothing.

        Args:
          readers: a function for each that reads it.
        """
        self._readers = dict(readers)
        self._read: dict[str, Frozen] = {}
        self._placed: dict[tuple[str, Mesh], PyTree] = {}

    def __getitem__(self, name: str) -> Frozen:
        if name not in self._read:
            with jax.ensure_compile_time_eval():  # it may be asked for within a trace, and is no part of that
                self._read[name] = self._readers[name]()
        return self._read[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._readers)

    def __len__(self) -> int:
        return len(self._readers)

    def shapes(self) -> dict[str, PyTree]:
        """Shapes and dtypes of all of them."""
        params = {name: network.params for name, network in self.items()}
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(np.shape(x), x.dtype), params)

    def on(self, mesh: Mesh, names: Iterable[str] | None = None) -> dict[str, PyTree]:
        """Their arrays on the devices of a mesh: replicated, or split over `fsdp` like the arrays of players.

        Args:
          mesh: which; an empty one for the arrays as they were read.
          names: of those that are wanted; all by default.

        Returns:
          What `state.frozen` is.
        """
        return {name: self._on(mesh, name) for name in (self if names is None else names)}

    def _on(self, mesh: Mesh, name: str) -> PyTree:
        if mesh.empty:
            return self[name].params
        if (name, mesh) not in self._placed:
            self._placed[name, mesh] = jax.tree.map(lambda x: put(x, meshes.split_sharding(x, mesh)), self[name].params)
        return self._placed[name, mesh]


class _Asked(Mapping[str, PyTree]):
    """In place of `state.frozen` while a function is traced: notes which networks the function takes."""

    def __init__(self, networks: Networks) -> None:
        self._networks, self.names = networks, set[str]()

    def __getitem__(self, name: str) -> PyTree:
        params = self._networks[name].params
        self.names.add(name)
        return params

    def __iter__(self) -> Iterator[str]:
        return iter(self._networks)

    def __len__(self) -> int:
        return len(self._networks)


jax.tree_util.register_pytree_node(  # a function that takes the whole mapping takes all networks
    _Asked,
    lambda asked: ([asked[name] for name in asked], list(asked)),
    lambda names, values: dict(zip(names, values, strict=True)),  # type: ignore[arg-type,return-value]
)


def used(networks: Networks, function: Callable[[Mapping[str, PyTree]], PyTree]) -> frozenset[str]:
    """The networks that a function takes, found by tracing it; the others are not read.

    Args:
      networks: which there are.
      function: of what is in place of `state.frozen`.

    Returns:
      Their names.
    """
    asked = _Asked(networks)
    jax.eval_shape(lambda: function(asked))
    return frozenset(asked.names)
