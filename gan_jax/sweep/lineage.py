"""The picture of population-based training: who copied whom, when, and how the hyperparameters moved."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from gan_jax.sweep.axes import scale

Row = Mapping[str, Any]
_RED = "tab:red"
Path = list[tuple[float, float]]  # images from which on a hyperparameter has a value, and the value


def figure(
    logs: Mapping[int, Sequence[Row]], began: Sequence[Mapping[str, float]], decisions: Sequence[Row], metric: str,
    mode: str,
) -> Any:  # fmt: skip
    """Draws the lineage of a population.

    Above, each member has a line, the best at the end on top, with points coloured by the metric. Where a member was
    replaced, an arrow comes from its parent, whose number is beside it. Below, the hyperparameters that differ between
    members, over time; those of the best member and its ancestors are thick.

    Args:
      logs: lines of the log of each member.
      began: hyperparameters of each member at the start, by name.
      decisions: lines of `decisions.jsonl`.
      metric: metric that the decisions compare.
      mode: whether the `min` or the `max` of it is best.

    Returns:
      The figure of matplotlib.
    """
    from matplotlib.figure import Figure  # noqa: PLC0415 - slow to import

    end = max((line["images"] for log in logs.values() for line in log), default=0)
    moved = {key: _paths(began, decisions, key) for key in sorted({key for one in began for key in one})}
    # Keys of one config value, such as both players' learning rates, are shown once.
    distinct = {str(paths): (key, paths) for key, paths in moved.items() if len({str(x) for x in paths}) > 1}
    keys = dict(distinct.values())
    heights = [1.2 + 0.32 * len(logs), *[2.0] * len(keys)]
    made = Figure(figsize=(10, sum(heights) + 0.6), layout="constrained")
    panels = made.subplots(1 + len(keys), 1, sharex=True, height_ratios=heights, squeeze=False)[:, 0]
    order = _order(logs, metric, mode)
    line = ancestry(order[0], decisions)
    _members(made, panels[0], logs, decisions, metric, order)
    for axes, (key, paths) in zip(panels[1:], keys.items(), strict=True):
        _draw(axes, key, paths, line, end)
    panels[-1].set_xlabel("images")
    return made


def ancestry(member: int, decisions: Sequence[Row]) -> list[tuple[int, float, float]]:
    """Traces a member back to the beginning.

    Args:
      member: the member.
      decisions: lines of `decisions.jsonl`, in order.

    Returns:
      Its ancestors, the first one first: the number of each, and the images between which it was in the line.

    Example:
      >>> ancestry(2, [{"images": 10, "copies": {"2": 0}}, {"images": 20, "copies": {"1": 2}}])
      [(0, 0.0, 10), (2, 10, inf)]
    """
    found, until = [], math.inf
    for decision in reversed(decisions):
        parent = decision["copies"].get(str(member))
        if parent is not None:
            found.append((member, decision["images"], until))
            member, until = parent, decision["images"]
    return [(member, 0.0, until), *reversed(found)]


def _order(logs: Mapping[int, Sequence[Row]], metric: str, mode: str) -> list[int]:
    """Returns the members by the last value of the metric, the best first; those without a value come last."""
    sign, last = 1 if mode == "min" else -1, dict[int, float]()
    for member, log in logs.items():
        values = [line[metric] for line in log if math.isfinite(line.get(metric, math.nan))]
        last[member] = sign * values[-1] if values else math.inf
    return sorted(last, key=lambda member: last[member])


def _paths(began: Sequence[Mapping[str, float]], decisions: Sequence[Row], key: str) -> list[Path]:
    """Returns the values of a hyperparameter of each member, as decisions have changed them."""
    found = [[(0.0, float(one[key]))] if key in one else [] for one in began]
    for decision in decisions:
        for member, values in decision.get("hparams", {}).items():
            if key in values:
                found[int(member)].append((decision["images"], values[key]))
    return found


def _members(
    made: Any, axes: Any, logs: Mapping[int, Sequence[Row]], decisions: Sequence[Row], metric: str, order: Sequence[int]
) -> None:
    from matplotlib.patheffects import withStroke  # noqa: PLC0415 - slow to import

    place = {member: index for index, member in enumerate(order)}
    end = max((line["images"] for log in logs.values() for line in log), default=0)
    axes.hlines(range(len(order)), 0, end, color="0.88", zorder=1)
    points = [
        (line["images"], place[member], line[metric])
        for member, log in logs.items()
        for line in log
        if math.isfinite(line.get(metric, math.nan))
    ]
    if points:
        images, members, values = zip(*points, strict=True)
        low, high = _middle(values)
        shown = axes.scatter(images, members, c=values, s=16, zorder=2, vmin=low, vmax=high)
        made.colorbar(shown, ax=axes, label=metric, extend="both")
    halo = [withStroke(linewidth=3, foreground="white")]
    for decision in decisions:
        for index, (child, parent) in enumerate(sorted(decision["copies"].items())):
            at, shift = decision["images"], 0.006 * end * (index - (len(decision["copies"]) - 1) / 2)
            axes.annotate("", (at + shift, place[int(child)]), (at + shift, place[parent]), zorder=4,
                          arrowprops={"arrowstyle": "-|>", "color": _RED, "shrinkA": 2, "shrinkB": 2})  # fmt: skip
            axes.plot(at + shift, place[parent], "o", color=_RED, markersize=4, zorder=4)
            axes.annotate(f"{parent}", (at + shift, place[int(child)]), xytext=(5, 4), textcoords="offset points",
                          color=_RED, fontsize=8, zorder=5, path_effects=halo)  # fmt: skip
    axes.set_yticks(range(len(order)), [str(member) for member in order])
    axes.set_ylim(len(order) - 0.4, -0.6)
    axes.set_ylabel("member, best at the end on top")
    axes.set_title("red: a member is replaced by a copy of the one at the dot, whose number is beside it", fontsize=9)


def _middle(values: Sequence[float]) -> tuple[float, float]:
    """Returns the 5th and 95th percentile: the first values of a run would take up the whole range of colours."""
    ordered = sorted(values)
    return ordered[len(ordered) // 20], ordered[-1 - len(ordered) // 20]


def _draw(axes: Any, key: str, paths: Sequence[Path], line: Sequence[tuple[int, float, float]], end: float) -> None:
    """Draws a hyperparameter of all members, and that of the best one and its ancestors."""
    for path in paths:
        _steps(axes, path, 0.0, end, color="0.75", linewidth=0.8)
    for index, (member, begin, until) in enumerate(line):
        label = {"label": "the best member and its ancestors"} if index == 0 else {}
        _steps(axes, paths[member], begin, min(until, end), color=_RED, linewidth=2, **label)
    scale(axes, "y", [value for path in paths for _, value in path])
    axes.set_ylabel(key, fontsize=8)
    axes.legend(fontsize=7)


def _steps(axes: Any, path: Path, begin: float, end: float, **style: Any) -> None:
    """Draws a path from `begin` to `end` as a line that steps from each value to the next."""
    before = [value for images, value in path if images <= begin]
    inside = [(images, value) for images, value in path if begin < images < end]
    points = [(begin, before[-1])] * bool(before) + inside
    if points:
        axes.plot([x for x, _ in [*points, (end, 0.0)]], [y for _, y in [*points, (end, points[-1][1])]],
                  drawstyle="steps-post", **style)  # fmt: skip
