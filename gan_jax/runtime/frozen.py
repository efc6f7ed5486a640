"""Networks that a game uses but does not train: a teacher, a feature network, another run's generator."""

import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple, TypedDict

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import PyTree

from gan_jax.data import Source
from gan_jax.distributed import mesh as meshes
from gan_jax.host import put, read_json, user_path
from gan_jax.runtime import environment
from gan_jax.runtime import identity as identities
from gan_jax.runtime.arrays import state_sha256
from gan_jax.runtime.checkpoint import Checkpointer
from gan_jax.runtime.reference import Reference
from gan_jax.types import InvalidInputError


class Frozen(NamedTuple):
    """A network that is not trained.

    Attributes:
      params: arrays of the network, any tree; the value of `state.frozen[name]`.
      source: origin of the arrays, for people. Checkpoints keep only the network's name and the sha256 of its arrays.
    """

    params: PyTree
    source: str

    def sha256(self) -> str:
        """Returns a hash of the arrays. A run cannot be continued with other arrays."""
        return state_sha256(self.params)


class _Ended(TypedDict):
    best_checkpoint: int | None


def trained_player(workdir: str | pathlib.Path, name: str = "ema.generator", *, step: int | str = "newest") -> Frozen:
    """Loads a player from another run's checkpoint as a frozen network.

    Args:
      workdir: workdir of the other run.
      name: name of a player, or `ema.` and the name of an average.
      step: step of the checkpoint, or `newest`, or `best` once the run has ended. A run can only be continued with the
        same arrays: give the number if the other run may train on.

    Returns:
      The network, for `Experiment.frozen`; its `params` are `{'params': ..., 'model_state': ...}`.

    Raises:
      InvalidInputError: if the workdir has no such checkpoint, or the checkpoint no such player.
    """
    home = user_path(workdir, "workdir", bucket=True) / "checkpoints"
    if not home.is_dir():
        raise InvalidInputError(f"{home} is not there: expected the workdir of a run with checkpoints")
    identity = identities.read(home.parent)
    with Checkpointer(home, keep_last=1, identity=identity, read_only=True) as saved:
        result = home.parent / "result.json"
        remedy = "restore it from a copy of the workdir, or give the number of the step"
        best = read_json(result, _Ended, remedy=remedy)["best_checkpoint"] if result.exists() else None
        found = {"newest": max(saved.steps(), default=None), "best": best}.get(str(step), step)
        if found not in saved.steps():
            raise InvalidInputError(f"{home} has no checkpoint {step!r}: it has {saved.steps()}")
        part = f"state.{name if name.startswith('ema.') else f'players.{name}'}."
        try:
            stored = saved.restore_part(int(found), (f"{part}params", f"{part}model_state"))
        except OSError as error:
            raise InvalidInputError(f"{home / str(found)} cannot be read: {error}; choose another step") from error
    if not stored:
        raise InvalidInputError(f"{home / str(found)} has no {name!r}: expected a player, or an average as 'ema.NAME'")
    whole: dict[str, Any] = {"params": {}, "model_state": {}}
    for path, values in stored.items():
        *parents, last = path.removeprefix(part).split(".")
        inner = whole
        for parent in parents:
            inner = inner.setdefault(parent, {})
        inner[last] = values
    return Frozen(whole, f"{name} of {home / str(found)}")


def trained_classifier(source: Source, cache: pathlib.Path | None = None) -> Frozen:
    """Trains the classifier of `fcd` on a data source, or reads it from the cache, as a frozen network.

    Args:
      source: data source with labels, the same as the experiment's `reference`.
      cache: directory that keeps it; by default the user's cache directory. A run on a machine of another kind may only
        be continued with the file of the first one, since another training would give slightly other weights.

    Returns:
      The network, for `Experiment.frozen`; its `params` are those that `nets.classifier_maps` takes.

    Raises:
      InvalidInputError: if the source has no labels.
    """
    home = cache or environment.cache_directory() / "evaluation"
    made = Reference(source, home, print, 600.0).extractor("classifier", None)
    return Frozen(made.params, f"classifier of {source.name}, {made.record['accuracy']:.2%} right")


class Networks(Mapping[str, Frozen]):
    """Networks that are not trained. Each is read, and placed on the devices, on first use."""

    def __init__(self, readers: Mapping[str, Callable[[], Frozen]]) -> None:
        """Stores the readers; nothing is read yet.

        Args:
          readers: functions that read the networks, by name.
        """
        self._readers = dict(readers)
        self._read: dict[str, Frozen] = {}
        self._placed: dict[tuple[str, Mesh], PyTree] = {}

    def __getitem__(self, name: str) -> Frozen:
        if name not in self._read:
            with jax.ensure_compile_time_eval():  # a reader may run during a trace; its arrays must not be traced
                self._read[name] = self._readers[name]()
        return self._read[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._readers)

    def __len__(self) -> int:
        return len(self._readers)

    def shapes(self, names: Iterable[str] | None = None, mesh: Mesh | None = None) -> dict[str, PyTree]:
        """Returns the shapes and dtypes of networks, all by default; with a mesh, also the shardings of `on`."""

        def shape(x: Any) -> jax.ShapeDtypeStruct:
            sharding = None if mesh is None else meshes.split_sharding(x, mesh)
            return jax.ShapeDtypeStruct(np.shape(x), x.dtype, sharding=sharding)

        return {name: jax.tree.map(shape, self[name].params) for name in (self if names is None else names)}

    def on(self, mesh: Mesh, names: Iterable[str] | None = None) -> dict[str, PyTree]:
        """Places the networks on the devices of a mesh: replicated, or split over `fsdp` like the arrays of players.

        Args:
          mesh: target mesh; an empty one returns the arrays as they were read.
          names: names of the networks to place; all by default.

        Returns:
          The value of `state.frozen`.
        """
        return {name: self._on(mesh, name) for name in (self if names is None else names)}

    def _on(self, mesh: Mesh, name: str) -> PyTree:
        if mesh.empty:
            return self[name].params
        if (name, mesh) not in self._placed:
            self._placed[name, mesh] = jax.tree.map(lambda x: put(x, meshes.split_sharding(x, mesh)), self[name].params)
        return self._placed[name, mesh]


class _Asked(Mapping[str, PyTree]):
    """A stand-in for `state.frozen` while a function is traced; it notes which networks the function uses."""

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


jax.tree_util.register_pytree_node(  # a function that uses the whole mapping as a tree uses all networks
    _Asked,
    lambda asked: ([asked[name] for name in asked], list(asked)),
    lambda names, values: dict(zip(names, values, strict=True)),  # type: ignore[arg-type,return-value]
)


def used(networks: Networks, function: Callable[..., PyTree], *arguments: PyTree) -> frozenset[str]:
    """Finds the networks that a function uses by tracing it; the others are not read.

    Args:
      networks: available networks.
      function: function of the value of `state.frozen` and of the arguments.
      *arguments: arrays, or their shapes.

    Returns:
      The names of the networks that it uses.
    """
    asked = _Asked(networks)
    jax.eval_shape(lambda *given: function(asked, *given), *arguments)
    return frozenset(asked.names)
