"""What the pictures of a sweep share: the kind of scale that values need, readable ticks, and files."""

import pathlib
from collections.abc import Sequence
from typing import Any

from gan_jax.host import replacing

MOST_TICKS = 5


def are_numbers(values: Sequence[Any]) -> bool:
    """Whether all values are numbers."""
    return all(isinstance(x, int | float) and not isinstance(x, bool) for x in values)


def is_log(values: Sequence[Any]) -> bool:
    """Whether values are positive numbers that span more than a factor of 10, and so need a logarithmic axis."""
    return are_numbers(values) and min(values) > 0 and max(values) / min(values) > 10


def scale(axes: Any, name: str, values: Sequence[Any]) -> None:
    """Scales the axis `x` or `y` for values, with few ticks, so that their texts do not overlap."""
    from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter  # noqa: PLC0415 - slow to import

    axis = getattr(axes, f"{name}axis")
    if is_log(values):
        getattr(axes, f"set_{name}scale")("log")
        axis.set_major_locator(LogLocator(numticks=MOST_TICKS))
        axis.set_minor_formatter(NullFormatter())
    elif are_numbers(values):
        axis.set_major_locator(MaxNLocator(MOST_TICKS - 1))


def save(figure: Any, path: pathlib.Path) -> pathlib.Path:
    """Writes a figure as PNG, and returns its path."""
    with replacing(path, "wb") as file:
        figure.savefig(file, dpi=100, format="png")
    return path
