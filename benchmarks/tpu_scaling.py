"""Scaling curves on paper: an iteration's time on 8 to 512 chips, from programs that `benchmarks.tpu` has compiled.

Weak scaling: each chip keeps its batch, so that its program stays the same, and only the time of the collective
operations grows; it is computed for each slice from those of one compiled program: that for 8 chips of v5e, and that
for 512 chips of v5p. Strong scaling: the batch stays the same; each point is a program that was compiled for that
slice.
"""

import itertools
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt

from gan_jax.distributed.topology import Slice, parse

Line = Mapping[str, Any]
WEAK = {  # by the slice whose compiled programs the weak curves are computed from, the slices of the curve
    "v5p:8x8x8": ("v5p:2x2x2", "v5p:2x2x4", "v5p:2x4x4", "v5p:4x4x4", "v5p:4x4x8", "v5p:4x8x8", "v5p:8x8x8"),
    "v5e:2x4": ("v5e:2x4", "v5e:4x4", "v5e:4x8", "v5e:8x8", "v5e:8x16", "v5e:16x16"),
}
_FIRST, _MANY = "v5e:2x4", "v5e:16x16"  # the slices that the strong curves begin and end at
_GAIN = 1.25  # twice the chips are worth it if they are at least this much faster


def chips_seconds(line: Line) -> float:
    """Returns the time of an iteration by the model, without the links."""
    return sum(x for name, x in line["costs"]["seconds"].items() if name != "links")


def links_seconds(line: Line, target: Slice) -> float:
    """Returns the time of the collective operations of a program, as they would be on a slice."""
    compiled = parse(line["case"]["topology"])
    total = 0.0
    for kind, size, group, overlaps, *stride, times in line["costs"]["exchanges"]:
        if not overlaps:
            total += times * target.seconds(kind, size, target.size if group == compiled.size else group, *stride)
    return total


def weak(line: Line) -> dict[int, float]:
    """Returns the efficiency by the number of chips: the rate of a chip, relative to that with 8 chips."""
    slices = map(parse, WEAK[line["case"]["topology"]])
    seconds = {target.size: chips_seconds(line) + links_seconds(line, target) for target in slices}
    return {chips: seconds[8] / x for chips, x in seconds.items()}


def agreement(lines: Sequence[Line]) -> str:
    """Compares the weak curves from programs for 8 chips with the programs that were compiled for 256."""
    every = [x for x in lines if x["case"]["kind"] == "every" and x["costs"]["program"] == "training"]
    few, many = ({x["case"]["name"]: x for x in every if x["case"]["topology"] == target} for target in (_FIRST, _MANY))
    ratios = [
        _total(few[name]) / weak(few[name])[parse(_MANY).size] / _total(line)
        for name, line in many.items()
        if name in few
    ]
    if not ratios:
        return ""
    same = sum(abs(ratio - 1) < 1e-6 for ratio in ratios)
    return (
        f"{len(ratios)} configs and games were compiled for both {_FIRST} and {_MANY}. What the weak curve gives for "
        f"{parse(_MANY).size} chips, from the program for {parse(_FIRST).size}, is the time of the program that was "
        f"compiled for them in {same}, and {min(ratios):.3f} to {max(ratios):.3f} of it in all."
    )


def _total(line: Line) -> float:
    return sum(line["costs"]["seconds"].values())


def strong(lines: Iterable[Line]) -> dict[int, Line]:
    """Returns the lines of one config with its own batch, by the number of chips."""
    found = {parse(line["case"]["topology"]).size: line for line in lines}
    return dict(sorted(found.items()))


def by_name(lines: Sequence[Line]) -> dict[str, dict[str, Any]]:
    """Returns, for each config with results, its weak curves by slice, and the lines of its strong curve."""
    training = [line for line in lines if line["costs"]["program"] == "training" and line["costs"]["seconds"]]
    found = dict[str, dict[str, Any]]()
    for name in dict.fromkeys(line["case"]["name"] for line in training if "game " not in line["case"]["name"]):
        own = [line for line in training if line["case"]["name"] == name]
        every = {line["case"]["topology"]: line for line in own if line["case"]["kind"] == "every"}
        points = [*([every[_FIRST]] if _FIRST in every else []), *(x for x in own if x["case"]["kind"] == "strong")]
        found[name] = {"weak": {x: weak(every[x]) for x in WEAK if x in every}, "strong": strong(points)}
    return found


def rows(lines: Sequence[Line]) -> list[list[Any]]:
    """Returns the rows of the table of scaling; the first is its header."""
    chips = {name: name.split(":")[0] for name in reversed(WEAK)}
    weak_columns = [f"weak, {chip}: rate of a chip against 8 chips" for chip in chips.values()]
    table: list[list[Any]] = [["config", *weak_columns, "strong: ms on v5e, by chips", "stops at", "because"]]
    for name, one in by_name(lines).items():
        curves = [one["weak"].get(compiled, {}) for compiled in chips]
        shown = [", ".join(f"{curve[n]:.0%} on {n}" for n in (64, max(curve, default=0)) if curve) for curve in curves]
        times = {chips: _total(line) for chips, line in one["strong"].items()}
        if any(shown) or len(times) > 1:
            points = ", ".join(f"{chips}: {x * 1e3:.3g}" for chips, x in times.items())
            table.append([name, *shown, points, *(stop(one["strong"]) if len(times) > 1 else ("", ""))])
    return table


def stop(points: Mapping[int, Line]) -> tuple[str, str]:
    """Returns the number of chips beyond which more are not worth it, and the reason."""
    chips = list(points)
    for few, many in itertools.pairwise(chips):
        before, after = points[few], points[many]
        total = [_total(line) for line in (before, after)]
        if total[0] < _GAIN * total[1] * (many / few) / 2:
            links = links_seconds(after, parse(after["case"]["topology"]))
            if links > total[1] / 2:
                return str(few), f"links take {links / total[1]:.0%} of the time on {many}"
            kept = chips_seconds(after) / chips_seconds(before)
            return str(few), f"the chips still need {kept:.0%} of the time for {few / many:.0%} of the batch"
    last = points[chips[-1]]
    alone = last["case"]["batch_size"] == chips[-1]
    return f"{chips[-1]} or more", "a chip has one example" if alone else "no larger slice was compiled"


def draw(lines: Sequence[Line], path: pathlib.Path) -> None:
    """Draws the weak curves, and the strong ones, each config in one colour."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2))
    for index, (name, one) in enumerate(by_name(lines).items()):
        style: Any = {"color": plt.colormaps["tab20"](index % 20), "label": name, "marker": ".", "linewidth": 1.2}
        if one["weak"]:
            curve = next(iter(one["weak"].values()))
            left.plot(list(curve), list(curve.values()), **style, linestyle="-" if max(curve) == 512 else "--")
        if len(one["strong"]) > 1:
            times = {chips: _total(x) for chips, x in one["strong"].items()}
            right.plot(list(times), [times[min(times)] / x for x in times.values()], **style)
    left.set(title="weak: the batch grows with the chips", ylabel="rate of a chip, of that with 8", ylim=(0, 1.05))
    right.set(title="strong: the config's own batch", ylabel="times as fast as 8 chips")
    right.plot([8, 256], [1, 32], color="black", linewidth=0.6, linestyle=":")
    right.set_yscale("log", base=2)
    for axes, kind in ((left, "v5p; dashed: v5e"), (right, "v5e")):
        axes.set_xscale("log", base=2)
        axes.set(xlabel=f"chips ({kind}), by a model")
        axes.grid(alpha=0.3)
    handles = {
        text: handle for axes in (left, right) for handle, text in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(handles.values(), handles.keys(), loc="center right", fontsize=7, frameon=False)
    figure.tight_layout(rect=(0, 0, 0.86, 1))
    figure.savefig(path, dpi=110)
    plt.close(figure)
