"""Search spaces: for each key of a config that a sweep varies, its values or the distribution of its values.

The `sweep()` of an experiment file returns a space: `{'rate': LogUniform(1e-4, 1e-2), 'seed': Choice([0, 1])}`.
"""

import dataclasses
import itertools
import math
import re
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
        return list(self.values)

    def grid_length(self, size: int) -> int:
        """Returns the most values that `grid` returns."""
        return len(self.values)


@dataclasses.dataclass(frozen=True)
class Uniform:
    """A uniform distribution from `low` to `high`, both included; over integers if both are integers."""

    low: float
    high: float

    def __post_init__(self) -> None:
        if not -_FAR <= self.low < self.high <= _FAR:
            raise InvalidInputError(f"{self}: expected two numbers, low < high, of at most {_FAR:.0e}")

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

    def grid_length(self, size: int) -> int:
        """Returns the most values that `grid` returns."""
        return size


@dataclasses.dataclass(frozen=True)
class LogUniform:
    """A log-uniform distribution over positive numbers from `low` to `high`, both included."""

    low: float
    high: float

    def __post_init__(self) -> None:
        if not 0 < self.low < self.high <= _FAR:
            raise InvalidInputError(f"{self}: expected two positive numbers, low < high, of at most {_FAR:.0e}")

    def at(self, share: float) -> float:
        """Returns the value at the quantile `share`; 0 <= share < 1."""
        return float(self.low * (self.high / self.low) ** share)

    def grid(self, size: int) -> list[float]:
        """Returns `size` values, evenly spaced in their logarithms."""
        return [float(x) for x in np.geomspace(self.low, self.high, size)]

    def grid_length(self, size: int) -> int:
        """Returns the most values that `grid` returns."""
        return size


Distribution = Choice | Uniform | LogUniform
MOST_POINTS = 100_000  # trials that a list of points may have
_FAR = 1e15  # bound of a range; integers beyond it would be rounded
Space = Mapping[str, Distribution]
Point = dict[str, Any]


def grid(space: Space, size: int = 3) -> list[Point]:
    """Returns every combination of values.

    Args:
      space: distribution of each key; the last key varies fastest.
      size: number of values of each distribution that is not a `Choice`.

    Returns:
      The points.

    Raises:
      InvalidInputError: for more than 100,000 points.
    """
    count = math.prod(distribution.grid_length(size) for distribution in space.values())
    _check_count(count, f"grid_size={size} of {', '.join(space)}")
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

    Raises:
      InvalidInputError: for more than 100,000 points.
    """
    _check_count(count, f"num_trials={count}")
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

    _check_count(count, f"num_trials={count}")
    shares = Halton(len(space), scramble=True, seed=np.random.default_rng(seed)).random(count)
    return [_point(space, row) for row in shares]


def _check_count(count: int, what: str) -> None:
    if count > MOST_POINTS:
        raise InvalidInputError(
            f"{what}: {count:,} trials; expected at most {MOST_POINTS:,} that are listed in advance"
        )


def _point(space: Space, shares: np.ndarray) -> Point:
    return {name: distribution.at(float(x)) for (name, distribution), x in zip(space.items(), shares, strict=True)}


_KINDS: dict[str, tuple[Callable[[str], float], type[Uniform] | type[LogUniform]]] = {
    "uniform": (float, Uniform),
    "log": (float, LogUniform),
    "int": (int, Uniform),
}
_FORM = "expected KEY=VALUE,VALUE or KEY=uniform(LOW,HIGH) or KEY=log(LOW,HIGH) or KEY=int(LOW,HIGH)"


def parse(text: str) -> dict[str, Distribution]:
    """Parses a space from a flag: `learning_rate=log(1e-4,1e-2);gamma=uniform(0,1);latents=int(2,8);seed=0,1,2`.

    Raises:
      InvalidInputError: for text that is not of this form, or a key that it has twice.
    """
    space: dict[str, Distribution] = {}
    for part in filter(None, (part.strip() for part in text.split(";"))):
        name, _, values = (x.strip() for x in part.partition("="))
        try:
            if not name.isidentifier() or name in space:
                raise InvalidInputError(f"{name!r} is there twice" if name in space else f"{name!r} is no key")
            space[name] = _distribution(values)
        except (TypeError, ValueError) as error:
            raise InvalidInputError(f"space {part!r}: {error}; {_FORM}, separated by semicolons") from error
    if not space:
        raise InvalidInputError(f"space {text!r} has no key: {_FORM}, separated by semicolons")
    return space


def checked(space: Any) -> Space:
    """Returns what an experiment file's `sweep()` returned, if it is a space.

    Raises:
      InvalidInputError: for anything but a mapping of keys to distributions, or an empty one.
    """
    if not isinstance(space, Mapping) or not space or not all(isinstance(x, Distribution) for x in space.values()):
        raise InvalidInputError(
            f"sweep() returns {space!r}: expected keys of the config and their distributions, such as "
            "{'learning_rate': LogUniform(1e-4, 1e-2), 'seed': Choice([0, 1])}"
        )
    return space


def _distribution(text: str) -> Distribution:
    """Parses what follows `KEY=`."""
    call = re.fullmatch(r"(\w+)\s*\((.*)\)", text)
    words = [word.strip() for word in (call[2] if call else text).split(",")]
    if "" in words or (call is None and set("()") & set(text)) or (call and call[1] not in _KINDS):
        raise InvalidInputError("a value is missing" if "" in words else f"{text!r} is neither values nor a range")
    if call is None:
        return Choice([_value(word) for word in words])
    read, kind = _KINDS[call[1]]
    if len(words) != 2:
        raise InvalidInputError(f"{text!r} has {len(words)} numbers, not LOW,HIGH")
    return kind(read(words[0]), read(words[1]))


def _value(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return {"true": True, "false": False}.get(text.lower(), text)
