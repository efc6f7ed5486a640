"""Pictures of a sweep: parallel coordinates, the metric against each key, learning curves, survival."""

import itertools
import math
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NotRequired, TypedDict

import numpy as np

from gan_jax.host import read_json, read_lines
from gan_jax.runtime.logging import REPAIR_LINE, LogLine
from gan_jax.sweep import importance, lineage
from gan_jax.sweep.axes import MOST_TICKS, are_numbers, is_log, save, scale
from gan_jax.sweep.logs import DIVERGED

Row = Mapping[str, Any]


class _Seen(TypedDict):
    images: int


class _Decision(_Seen):
    copies: dict[str, int]
    hparams: NotRequired[dict[str, dict[str, float]]]


class _Member(TypedDict):
    hparams: dict[str, float]


_MARKERS = {"done": "o", "stopped": "s", "pruned": "v", "diverged": "x", "failed": "x"}
_NAMED = 5  # best trials whose numbers are shown
_LOST = ("pruned", "diverged", "failed")


def draw(workdir: pathlib.Path, rows: Sequence[Row], keys: Sequence[str], metric: str, mode: str) -> list[pathlib.Path]:
    """Draws the pictures of a sweep for which there are data.

    Args:
      workdir: workdir of the sweep; gets `sweep.png`, `curves.png`, `importance.png` and `contour.png` if Optuna is
        there and the trials suffice, and, after population-based training, `lineage.png`.
      rows: rows of the table of results.
      keys: columns with the values that vary.
      metric: metric by which trials are compared.
      mode: whether the `min` or the `max` of the metric is best.

    Returns:
      The paths of the pictures.
    """
    from matplotlib.figure import Figure  # noqa: PLC0415 - slow to import

    known = [row for row in rows if math.isfinite(row.get(metric, math.nan)) and row["status"] != DIVERGED]
    keys = [key for key in keys if len({str(row[key]) for row in rows}) > 1]
    made = []
    if known and keys:
        figure = Figure(figsize=(max(8.0, 3.2 * len(keys)), 8.5), layout="constrained")
        grid = figure.add_gridspec(2, len(keys))
        _parallel(figure.add_subplot(grid[0, :]), known, keys, metric, mode)
        for index, key in enumerate(keys):
            below = figure.add_subplot(grid[1, index])
            _against(below, rows, known, key, metric, mode)
            if index == 0:
                below.set_ylabel(metric)
                figure.legend(*below.get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=8)
        made.append(save(figure, workdir / "sweep.png"))
        made += importance.draw(workdir, known, keys, metric, mode)
    decisions = read_lines(workdir / "decisions.jsonl", _Decision, remedy=REPAIR_LINE)
    logs = {row["trial"]: read_log(workdir, row) for row in rows}
    if any(metric in line for log in logs.values() for line in log):
        lost = sorted((row["images"], row["status"]) for row in rows if row["status"] in _LOST)
        figure = Figure(figsize=(9, 7 if lost else 5), layout="constrained")
        shape: dict[str, Any] = {"nrows": 2, "sharex": True, "height_ratios": [3, 1]} if lost else {}
        panels = np.atleast_1d(figure.subplots(**shape))
        if lost:
            survival(panels[1], lost, len(rows), max(row["images"] for row in rows))
        best = ranked(known, metric, mode)[:1]
        _curves(panels[0], logs, rows, metric, best[0]["trial"] if best else None)
        panels[-1].set_xlabel("images")
        made.append(save(figure, workdir / "curves.png"))
    if any(decision["copies"] for decision in decisions):
        began = read_json(workdir / "members.json", list[_Member], remedy="restore it from a copy")
        figure = lineage.figure(logs, [member["hparams"] for member in began], decisions, metric, mode)
        made.append(save(figure, workdir / "lineage.png"))
    return made


def ranked(rows: Sequence[Row], metric: str, mode: str) -> list[Row]:
    """Returns the rows by the metric, the best first; those that did not train to their end come last."""
    sign = 1 if mode == "min" else -1
    return sorted(rows, key=lambda row: (row["status"] != "done", sign * row[metric]))


def read_log(workdir: pathlib.Path, row: Row) -> list[dict[str, Any]]:
    """Reads the log of a trial: a member of a population (of this sweep or of a study), or a run of its own."""
    first, trial = row.get("population"), row["trial"]
    if first is not None:
        path = workdir / f"populations/{first:05d}/members/{trial - first:05d}/metrics.jsonl"
        return read_lines(path, (_Seen, *LogLine), remedy=REPAIR_LINE)
    member, own = (workdir / kind / f"{trial:05d}" / "metrics.jsonl" for kind in ("members", "trials"))
    return read_lines(member if member.exists() else own, (_Seen, *LogLine), remedy=REPAIR_LINE)


def _ticks(values: Sequence[Any]) -> tuple[Callable[[Any], float], list[tuple[float, str]]]:
    """Scales values to [0, 1] for an axis.

    Returns:
      The scale, and the ticks, each with its place and text: all texts in order, or round numbers between the ends.
    """
    from matplotlib.ticker import LogLocator, MaxNLocator  # noqa: PLC0415 - slow to import

    if not are_numbers(values):
        words = sorted({str(x) for x in values})
        places = {word: index / max(1, len(words) - 1) for index, word in enumerate(words)}
        shown = words[:: -(-len(words) // MOST_TICKS)]
        return lambda x: places[str(x)], [(places[word], word) for word in shown]
    change = math.log if is_log(values) else float
    low, high = change(min(values)), change(max(values))
    span = (high - low) or 1.0
    locator = LogLocator(numticks=MOST_TICKS) if is_log(values) else MaxNLocator(MOST_TICKS - 1)
    inner = [float(x) for x in locator.tick_values(min(values), max(values)) if min(values) <= x <= max(values)]
    marks = inner if len(inner) > 1 else [min(values), max(values)]
    return lambda x: (change(x) - low) / span, [
        ((change(x) - low) / span, f"{x:,.0f}" if abs(x) >= 1000 else f"{x:.3g}") for x in marks
    ]


def _parallel(axes: Any, rows: Sequence[Row], keys: Sequence[str], metric: str, mode: str) -> None:
    """Draws a line for each trial through its values and its metric, the best ones with their numbers."""
    from matplotlib import colormaps  # noqa: PLC0415 - slow to import
    from matplotlib.patheffects import withStroke  # noqa: PLC0415 - likewise

    columns, order = [*keys, metric], ranked(rows, metric, mode)
    scales, ticks = zip(*(_ticks([row[name] for row in rows]) for name in columns), strict=True)
    for place, row in reversed(list(enumerate(order))):
        quality = 1 - place / max(1, len(order) - 1)
        heights = [scale(row[name]) for scale, name in zip(scales, columns, strict=True)]
        style = {"linestyle": "-" if row["status"] == "done" else ":", "linewidth": 2.5 if place == 0 else 1.0}
        axes.plot(range(len(columns)), heights, color=colormaps["viridis_r"](0.95 * quality + 0.05), **style)
    halo = [withStroke(linewidth=3, foreground="white")]
    for x, marks in enumerate(ticks):
        axes.axvline(x, color="black", linewidth=0.8)
        for y, text in marks:
            axes.annotate(text, (x, y), xytext=(-4, 0), textcoords="offset points", ha="right", va="center", fontsize=8,
                          path_effects=halo)  # fmt: skip
    heights = _apart([scales[-1](row[metric]) for row in order[:_NAMED]])
    for row, height in zip(order[:_NAMED], heights, strict=True):
        text = f"trial {row['trial']}: {row[metric]:.4g}"
        at, beside = (len(columns) - 1, scales[-1](row[metric])), (len(columns) - 0.9, height)
        arrow = {"arrowstyle": "-", "color": "0.6", "linewidth": 0.6}
        axes.annotate(text, at, xytext=beside, va="center", fontsize=8, arrowprops=arrow)
    axes.set_xticks(range(len(columns)), columns)
    axes.set_xlim(-0.4, len(columns) - 0.35)
    axes.tick_params(axis="x", length=0, pad=6)
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    axes.set_title(f"{len(rows)} trials, darker is better; dotted: not trained to the end", fontsize=10)


def _apart(heights: Sequence[float], gap: float = 0.055) -> list[float]:
    """Moves heights in [0, 1] away from each other, so that lines of text beside them do not overlap."""
    order = sorted(range(len(heights)), key=lambda index: heights[index])
    placed = list(heights)
    for before, index in itertools.pairwise(order):
        placed[index] = max(placed[index], placed[before] + gap)
    over = max(0.0, placed[order[-1]] - 1.0) if order else 0.0
    return [height - over for height in placed]


def _against(axes: Any, rows: Sequence[Row], known: Sequence[Row], key: str, metric: str, mode: str) -> None:
    """Draws the metric against a key, with the numbers of the best trials."""
    found = {row["status"] for row in known}
    for status in [*(name for name in _MARKERS if name in found), *sorted(found - set(_MARKERS))]:
        some, marker = [row for row in known if row["status"] == status], _MARKERS.get(status, "s")
        axes.scatter([row[key] for row in some], [row[metric] for row in some], marker=marker, s=22, label=status)
    lost = [row[key] for row in rows if row["status"] == DIVERGED]
    if lost:  # without a value of the metric, drawn on the upper edge
        axes.scatter(lost, [1.0] * len(lost), marker="x", color="red", label=DIVERGED, clip_on=False,
                     transform=axes.get_xaxis_transform())  # fmt: skip
    for row in ranked(known, metric, mode)[:_NAMED]:
        axes.annotate(str(row["trial"]), (row[key], row[metric]), xytext=(4, 4), textcoords="offset points", fontsize=7)
    scale(axes, "x", [row[key] for row in rows])
    scale(axes, "y", [row[metric] for row in known])
    axes.margins(0.1)
    axes.set_xlabel(key)


def _curves(axes: Any, logs: Mapping[int, Sequence[Row]], rows: Sequence[Row], metric: str, best: int | None) -> None:
    for row in rows:
        lines = [line for line in logs[row["trial"]] if metric in line]
        if lines:
            images, values = [line["images"] for line in lines], [line[metric] for line in lines]
            axes.plot(images, values, color="C0" if row["status"] == "done" else "0.7", linewidth=0.9)
            axes.scatter(images[-1], values[-1], marker=_MARKERS.get(row["status"], "o"), s=18,
                         color="C0" if row["status"] == "done" else "0.5", zorder=3)  # fmt: skip
            if row["trial"] == best:
                axes.plot(images, values, color="C1", linewidth=2, zorder=4, label=f"trial {best}, the best")
                axes.legend(fontsize=8)
    values = [line[metric] for log in logs.values() for line in log if math.isfinite(line.get(metric, math.nan))]
    if values and is_log(values):
        axes.set_yscale("log")
    axes.set_ylabel(metric)


def survival(axes: Any, lost: Sequence[tuple[int, str]], trials: int, last: int) -> None:
    """Draws the number of trials left against images; trials that have not ended count as left.

    Args:
      axes: axes to draw in.
      lost: images and status of each trial that did not train to its end, by increasing images.
      trials: number of all trials.
      last: images of the longest trial.
    """
    left = range(trials, trials - len(lost) - 1, -1)
    axes.stairs(left, [0, *(images for images, _ in lost), last], baseline=None, color="C3")
    for status in _LOST:
        found = [(images, left[i + 1]) for i, (images, why) in enumerate(lost) if why == status]
        if found:
            axes.scatter(*zip(*found, strict=True), marker=_MARKERS[status], s=12, color="0.5", label=status)
    for images in sorted({images for images, _ in lost}):
        after = trials - sum(x <= images for x, _ in lost)
        axes.annotate(f"{after}", (images, after), xytext=(4, 3), textcoords="offset points", fontsize=8)
    axes.set_ylim(0, trials * 1.1)
    axes.yaxis.get_major_locator().set_params(integer=True)
    axes.set_ylabel("trials left")
    axes.legend(fontsize=7)
