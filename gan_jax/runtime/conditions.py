"""What functions of a game map, where that is not drawn from a prior: examples of a source, read once."""

import numpy as np

from gan_jax.data import Source, to_model
from gan_jax.types import InvalidInputError

INPUTS, TARGET, LABEL = "inputs", "target", "label"
_CHUNK = 256


class Conditions:
    """The examples that a game's functions map, with what they should become where that is known.

    A source's `'inputs'` are mapped; `'target'` is what they should become; `'label'` their classes. What was read once
    stays in memory, as it is stored: images mostly as uint8.
    """

    def __init__(self, source: Source) -> None:
        """Refuses a source without inputs."""
        self.source = source
        self._kept: dict[int, dict[str, np.ndarray]] = {}
        if INPUTS not in source.spec:
            raise InvalidInputError(
                f"conditions: {source.name} has {', '.join(source.spec)}: expected 'inputs', which the game maps, and "
                "'target' where metrics compare with it; such as data.renamed(source, inputs='a', target='b')"
            )
        stored = {name: x.shape[1:] for name, x in source.read(np.zeros(1, int)).items()}
        changed = [name for name, x in source.spec.items() if stored[name] != x.shape]
        if changed:
            raise InvalidInputError(
                f"conditions: {source.name} stores {changed[0]!r} as {stored[changed[0]]}, and changes it on its way "
                f"into the game to {source.spec[changed[0]].shape}: give `conditions` that are as the game sees them"
            )

    def __len__(self) -> int:
        """How many there are."""
        return len(self.source)

    @property
    def has_target(self) -> bool:
        """Whether it is known what the inputs should become."""
        return TARGET in self.source.spec

    def read(self, low: int, high: int) -> dict[str, np.ndarray]:
        """Examples from `low` up to `high`, as the game sees them; those after the last are the first ones again."""
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
