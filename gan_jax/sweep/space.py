"""Search spaces: for each key of a config that a sweep varies, its values or the distribution of its values.

The `sweep()` of an experiment file returns a space: `{'rate': LogUniform(1e-4, 1e-2), 'seed': Choice([0, 1])}`.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from gan_jax.types import InvalidInputError


@dataclasses.dataclass(frozen=True)
class Choice:
    """A choice among listed values, which need not be numbers.

    Attributes:
      values: values to choose from.
    """

    values: Sequence[Any]

    def __post_init__(self) -> None:
        if not len(self.values):
            raise InvalidInputError("Choice: expected one value or more")

    def at(self, share: float) -> Any:
        """Returns the value at the quantile `share`; 0 <= share < 1."""
        return self.values[int(share * len(self.values))]

    def grid(self, size: int) -> list[Any]:
        """Returns all values; `size` is ignored."""
        del size
        return list(self.values)


@dataclasses.dataclass(frozen=True)
class Uniform:
    """A uniform distribution from `low` to `high`, both included; over integers if both are integers."""

    low: float
    high: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise InvalidInputError(f"{self}: expected two numbers, low < high")

    @property
    def whole(self) -> bool:
        """Whether the numbers are integers."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    def at(self, share: float) -> float:
        """Returns the value at the quantile `share`; 0 <= share < 1."""
        if self.whole:
            return int(self.low + math.floor(share * (self.high - self.low + 1)))
        return self.low + share * (self.high - self.low)

    def grid(self, size: int) -> list[float]:
        """Returns `size` evenly spaced values; fewer if rounding to integers gives the same value twice."""
        values = np.linspace(self.low, self.high, size)
        return sorted({round(float(x)) for x in values}) if self.whole else [float(x) for x in values]


@dataclasses.dataclass(frozen=True)
class LogUniform:
    """A log-uniform distribution over positive numbers from `low` to `high`, both included."""

    low: float
    high: float

    def __post_init__(self) -> None:
        if not 0 < self.low < self.high < math.inf:
            raise InvalidInputError(f"{self}: expected two positive numbers, low < high")

    def at(self, share: float) -> float:
        """Returns the value at the quantile `share`; 0 <= share < 1."""
        return float(self.low * (self.high / self.low) ** share)

    def grid(self, size: int) -> list[float]:
        """Returns `size` values, evenly spaced in their logarithms."""
        return [float(x) for x in np.geomspace(self.low, self.high, size)]


Distribution = Choice | Uniform | LogUniform
Space = Mapping[str, Distribution]
Point = dict[str, Any]


def grid(space: Space, size: int = 3) -> list[Point]:
    """Returns every combination of values.

    Args:
      space: distribution of each key; the last key varies fastest.
      size: number of values of each distribution that is not a `Choice`.

    Returns:
      The points.
    """
    values = [distribution.grid(size) for distribution in space.values()]
    return [dict(zip(space, point, strict=True)) for point in itertools.product(*values)]


def extremes(space: Space) -> list[Point]:
    """Returns points that vary one key at a time: its two extreme values, or all values of a `Choice`.

    Args:
      space: distribution of each key.

    Returns:
      The points. The first point has the first value of every key; in each other point one key has another value.
    """
    values = {name: distribution.grid(2) for name, distribution in space.items()}
    first = {name: some[0] for name, some in values.items()}
    return [first, *({**first, name: value} for name, some in values.items() for value in some[1:])]


def random(space: Space, count: int, seed: int = 0) -> list[Point]:
    """Draws independent random points. The first n points do not depend on `count`.

    Args:
      space: distribution of each key.
      count: number of points.
      seed: seed of the random draws.

    Returns:
      The points.
    """
    return [_point(space, np.random.default_rng([seed, index]).uniform(size=len(space))) for index in range(count)]


def qmc(space: Space, count: int, seed: int = 0) -> list[Point]:
    """Returns quasi-random points, spread more evenly than random draws. The first n points do not depend on `count`.

    The points are a scrambled Halton sequence. Bousquet et al., "Critical Hyper-Parameters: No Random, No Cry",
    arXiv:1706.03200, 2017, compare such sequences with random draws.

    Args:
      space: distribution of each key.
      count: number of points.
      seed: seed of the scrambling.

    Returns:
      The points.
    """
    from scipy.stats.qmc import Halton  # noqa: PLC0415 - slow to import

    shares = Halton(len(space), scramble=True, seed=np.random.default_rng(seed)).random(count)
    return [_point(space, row) for row in shares]


def _point(space: Space, shares: np.ndarray) -> Point:
    return {name: distribution.at(float(x)) for (name, distribution), x in zip(space.items(), shares, strict=True)}


_KINDS: dict[str, Callable[..., Uniform | LogUniform]] = {
    "uniform(": lambda low, high: Uniform(float(low), float(high)),
    "log(": LogUniform,
    "int(": lambda low, high: Uniform(int(low), int(high)),
}


def parse(text: str) -> dict[str, Distribution]:
    """Parses a space from a flag: `learning_rate=log(1e-4,1e-2);gamma=uniform(0,1);latents=int(2,8);seed=0,1,2`.

    Raises:
      InvalidInputError: for text that is not of this form.
    """
    space: dict[str, Distribution] = {}
    for part in filter(None, (part.strip() for part in text.split(";"))):
        name, _, values = part.partition("=")
        kind = next((kind for kind in _KINDS if values.startswith(kind) and values.endswith(")")), "")
        listed = [_value(x.strip()) for x in values[len(kind) : -1 if kind else None].split(",") if x.strip()]
        try:
            space[name.strip()] = _KINDS[kind](*listed) if kind else Choice(listed)
        except (TypeError, ValueError, InvalidInputError) as error:
            raise InvalidInputError(
                f"space {part!r}: {error}; expected KEY=VALUE,VALUE or KEY=uniform(LOW,HIGH) or KEY=log(LOW,HIGH) "
                "or KEY=int(LOW,HIGH), separated by semicolons"
            ) from error
    return space


def _value(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return {"true": True, "false": False}.get(text.lower(), text)
