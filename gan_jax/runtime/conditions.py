"""Inputs for a game's functions that are not drawn from a prior: examples of a data source, read once."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from gan_jax.data import Source, to_model
from gan_jax.types import InvalidInputError

INPUTS, TARGET, LABEL = "inputs", "target", "label"
_CHUNK = 256  # examples that are read and cached together


class Domain(NamedTuple):
    """The data of a function that translates between other domains than `sample` does, such as `translate_back`.

    Attributes:
      conditions: function that opens the source of the inputs that the function maps, as `Experiment.conditions`.
      reference: function that opens the source that metrics compare its outputs with, as `Experiment.reference`. By
        default the targets of the conditions.
    """

    conditions: Callable[[], Source]
    reference: Callable[[], Source] | None = None


class Conditions:
    """Examples whose inputs a game's functions map, with the desired outputs where they are known.

    In the source, `'inputs'` are mapped, `'target'` is the desired output, and `'label'` is the class. Examples that
    were read once stay in memory in their stored form: images mostly as uint8.
    """

    def __init__(self, source: Source) -> None:
        """Checks that the source suits a game.

        Args:
          source: examples with `'inputs'`, and perhaps `'target'` and `'label'`.

        Raises:
          InvalidInputError: if the source has no inputs, or changes the shape of examples on the way into the game.
        """
        self.source = source
        self._kept: dict[int, dict[str, np.ndarray]] = {}
        if INPUTS not in source.spec:
            raise InvalidInputError(
                f"conditions: {source.name} has {', '.join(source.spec)}: expected 'inputs', which the game maps, and "
                "'target' where metrics compare with it; such as data.renamed(source, inputs='a', target='b')"
            )
        # `read` returns examples as stored, without the changes that a source makes on the way into the game.
        stored = {name: x.shape[1:] for name, x in source.read(np.zeros(1, int)).items()}
        changed = [name for name, x in source.spec.items() if stored[name] != x.shape]
        if changed:
            raise InvalidInputError(
                f"conditions: {source.name} stores {changed[0]!r} as {stored[changed[0]]}, and changes it on its way "
                f"into the game to {source.spec[changed[0]].shape}: give `conditions` that are stored in that shape"
            )

    def __len__(self) -> int:
        """Returns the number of examples."""
        return len(self.source)

    @property
    def has_target(self) -> bool:
        """Whether the examples have targets, the desired outputs."""
        return TARGET in self.source.spec

    def read(self, low: int, high: int) -> dict[str, np.ndarray]:
        """Reads examples `low` to `high` - 1 as the game sees them; after the last one come the first ones again."""
        indices = np.arange(low, high) % len(self)
        numbers = indices // _CHUNK
        groups = np.split(indices, np.flatnonzero(np.diff(numbers)) + 1)
        parts = [{k: x[group % _CHUNK] for k, x in self._chunk(group[0] // _CHUNK).items()} for group in groups]
        return {name: np.asarray(to_model(name, np.concatenate([part[name] for part in parts]))) for name in parts[0]}

    def _chunk(self, number: int) -> dict[str, np.ndarray]:
        if number not in self._kept:
            low = number * _CHUNK
            self._kept[number] = self.source.read(np.arange(low, min(low + _CHUNK, len(self))))
        return self._kept[number]


def check_maps(source: Source, classes: int | None) -> None:
    """Raises if segmentation maps that a source holds, integers `'a'`, have values that are no class.

    Args:
      source: source, whose arrays are looked at if it holds them, random transforms of it or not.
      classes: number of classes; None checks nothing.
    """
    maps = getattr(getattr(source, "source", source), "arrays", {}).get("a")
    if classes is None or maps is None or not (maps.min() < 0 or maps.max() >= classes):
        return
    index = int(np.argmax(((maps < 0) | (maps >= classes)).reshape(len(maps), -1).any(-1)))
    raise InvalidInputError(
        f"{source.name}: example {index:,} of 'a' has values from {maps[index].min()} to {maps[index].max()}, but the "
        f"game has classes={classes}, from 0 to {classes - 1}: give it more, or pixels to be ignored one of these"
    )
