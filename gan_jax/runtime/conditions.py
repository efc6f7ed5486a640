"""What functions of a game map, where that is not drawn from a prior: examples of a source, read once."""

from collections.abc import Iterator

import numpy as np

from gan_jax.data import Source, to_model
from gan_jax.types import InvalidInputError

INPUTS, TARGET, LABEL = "inputs", "target", "label"


class Conditions:
    """The examples that a game's functions map, with what they should become where that is known.

    A source's `'inputs'` are mapped; `'target'` is what they should become; `'label'` their classes. What was read once
    stays in memory.
    """

    def __init__(self, source: Source) -> None:
        """Refuses a source without inputs."""
        self.source = source
        self._kept: dict[tuple[int, int], dict[str, np.ndarray]] = {}
        if INPUTS not in source.spec:
            raise InvalidInputError(
                f"conditions: {source.name} has {', '.join(source.spec)}: expected 'inputs', which the game maps, and "
                "'target' where metrics compare with it; such as data.renamed(source, inputs='a', target='b')"
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
        if (low, high) not in self._kept:
            stored = self.source.read(np.arange(low, high) % len(self))
            self._kept[low, high] = {name: np.asarray(to_model(name, values)) for name, values in stored.items()}
        return self._kept[low, high]

    def parts(self, count: int, size: int) -> Iterator[dict[str, np.ndarray]]:
        """The first `count` examples, `size` at a time; the last part is filled up with examples after them."""
        for low in range(0, count, size):
            yield self.read(low, low + size)
