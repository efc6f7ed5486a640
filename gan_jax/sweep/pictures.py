"""Pictures of a sweep: parallel coordinates, the metric against each key, learning curves, survival, lineage."""

import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

import numpy as np

from gan_jax.host import read_lines, replacing
from gan_jax.runtime.logging import REPAIR_LINE, LogLine
from gan_jax.sweep.logs import DIVERGED

Row = Mapping[str, Any]


class _Seen(TypedDict):
    images: int


class _Decision(_Seen):
    copies: dict[str, int]


_MARKERS = {"done": "o", "pruned": "v", "diverged": "x", "failed": "x"}
_LOST = ("pruned", "diverged", "failed")


def draw(workdir: pathlib.Path, rows: Sequence[Row], keys: Sequence[str], metric: str, mode: str) -> list[pathlib.Path]:
    """Draws the pictures of a sweep for which there are data.

    Args:
      workdir: workdir of the sweep; gets `sweep.png`, `curves.png` and, after population-based training, `lineage.png`.
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
        figure = Figure(figsize=(max(8.0, 3.2 * len(keys)), 8.0), layout="constrained")
        grid = figure.add_gridspec(2, len(keys))
        _parallel(figure.add_subplot(grid[0, :]), known, keys, metric, mode)
        for index, key in enumerate(keys):
            _against(figure.add_subplot(grid[1, index]), rows, known, key, metric)
        made.append(_save(figure, workdir / "sweep.png"))
    decisions = read_lines(workdir / "decisions.jsonl", _Decision, remedy=REPAIR_LINE)
    logs = {row["trial"]: _log(workdir, row) for row in rows}
    if any(metric in line for log in logs.values() for line in log):
        lost = sorted((row["images"], row["status"]) for row in rows if row["status"] in _LOST)
        figure = Figure(figsize=(9, 7 if lost else 5), layout="constrained")
        shape: dict[str, Any] = {"nrows": 2, "sharex": True, "height_ratios": [3, 1]} if lost else {}
        panels = np.atleast_1d(figure.subplots(**shape))
        _curves(panels[0], logs, rows, metric)
        if lost:
            survival(panels[1], lost, len(rows), max(row["images"] for row in rows))
        panels[-1].set_xlabel("images")
        made.append(_save(figure, workdir / "curves.png"))
    if any(decision["copies"] for decision in decisions):
        figure = Figure(figsize=(10, 1.5 + 0.3 * len(rows)), layout="constrained")
        _lineage(figure, logs, decisions, metric)
        made.append(_save(figure, workdir / "lineage.png"))
    return made


def _save(figure: Any, path: pathlib.Path) -> pathlib.Path:
    with replacing(path, "wb") as file:
        figure.savefig(file, dpi=100, format="png")
    return path


def _log(workdir: pathlib.Path, row: Row) -> list[dict[str, Any]]:
    """Reads the log of a trial: a member of a population (of this sweep or of a study), or a run of its own."""
    first, trial = row.get("population"), row["trial"]
    if first is not None:
        path = workdir / f"populations/{first:05d}/members/{trial - first:05d}/metrics.jsonl"
        return read_lines(path, (_Seen, *LogLine), remedy=REPAIR_LINE)
    member, own = (workdir / kind / f"{trial:05d}" / "metrics.jsonl" for kind in ("members", "trials"))
    return read_lines(member if member.exists() else own, (_Seen, *LogLine), remedy=REPAIR_LINE)


def _is_log(values: Sequence[Any]) -> bool:
    """Whether values are positive numbers that span more than a factor of 10, and so need a logarithmic axis."""
    numbers = all(isinstance(x, int | float) and not isinstance(x, bool) for x in values)
    return numbers and min(values) > 0 and max(values) / min(values) > 10


def _places(values: Sequence[Any]) -> tuple[np.ndarray, list[str]]:
    """Scales values to [0, 1] for an axis; returns them with the labels of its ends. Text is placed in sorted order."""
    if not all(isinstance(x, int | float) and not isinstance(x, bool) for x in values):
        words = sorted({str(x) for x in values})
        return np.array([words.index(str(x)) / max(1, len(words) - 1) for x in values]), [words[0], words[-1]]
    numbers = np.log(values) if _is_log(values) else np.asarray(values, float)
    low, high = float(np.min(numbers)), float(np.max(numbers))
    return (numbers - low) / ((high - low) or 1.0), [f"{min(values):.3g}", f"{max(values):.3g}"]


def _parallel(axes: Any, rows: Sequence[Row], keys: Sequence[str], metric: str, mode: str) -> None:
    from matplotlib import colormaps  # noqa: PLC0415 - slow to import

    columns = [*keys, metric]
    found = [_places([row[name] for row in rows]) for name in columns]
    quality = found[-1][0] if mode == "max" else 1 - found[-1][0]
    for index in np.argsort(quality):
        heights = [local_indices[index] for local_indices, _ in found]
        style = "-" if rows[index]["status"] == "done" else ":"
        axes.plot(range(len(columns)), heights, style, color=colormaps["viridis"](quality[index]), alpha=0.8)
    for x, (_, (low, high)) in enumerate(found):
        axes.axvline(x, color="black", linewidth=0.5)
        axes.annotate(low, (x, 0), xytext=(0, -12), textcoords="offset points", ha="center", fontsize=8)
        axes.annotate(high, (x, 1), xytext=(0, 5), textcoords="offset points", ha="center", fontsize=8)
    axes.set_xticks(range(len(columns)), columns)
    axes.set_xlim(-0.25, len(columns) - 0.75)
    axes.tick_params(axis="x", pad=10, length=0)
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    axes.set_title("trials; the best in yellow, pruned ones dotted", fontsize=10, pad=14)


def _against(axes: Any, rows: Sequence[Row], known: Sequence[Row], key: str, metric: str) -> None:
    for status, marker in _MARKERS.items():
        some = [row for row in known if row["status"] == status]
        if some:
            axes.scatter([row[key] for row in some], [row[metric] for row in some], marker=marker, label=status)
    lost = [row[key] for row in rows if row["status"] == DIVERGED]
    if lost:  # without a value of the metric, drawn on the upper edge
        axes.scatter(lost, [1.0] * len(lost), marker="x", color="red", label=DIVERGED, clip_on=False,
                     transform=axes.get_xaxis_transform())  # fmt: skip
    if _is_log([row[key] for row in rows]):
        axes.set_xscale("log")
    axes.set_xlabel(key)
    axes.set_ylabel(metric)
    axes.legend(fontsize=7)


def _curves(axes: Any, logs: Mapping[int, Sequence[Row]], rows: Sequence[Row], metric: str) -> None:
    for row in rows:
        lines = [line for line in logs[row["trial"]] if metric in line]
        if lines:
            images, values = [line["images"] for line in lines], [line[metric] for line in lines]
            axes.plot(images, values, color="C0" if row["status"] == "done" else "0.7", linewidth=0.9)
            axes.scatter(images[-1], values[-1], marker=_MARKERS.get(row["status"], "o"), s=18,
                         color="C0" if row["status"] == "done" else "0.5", zorder=3)  # fmt: skip
    values = [line[metric] for log in logs.values() for line in log if math.isfinite(line.get(metric, math.nan))]
    if values and _is_log(values):
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


def _lineage(figure: Any, logs: Mapping[int, Sequence[Row]], decisions: Sequence[Row], metric: str) -> None:
    """Draws a line for each member, with points coloured by the metric, and an arrow from each copy to its parent."""
    axes = figure.add_subplot()
    points = [
        (line["images"], member, line[metric])
        for member, log in logs.items()
        for line in log
        if math.isfinite(line.get(metric, math.nan))
    ]
    if points:
        images, members, values = zip(*points, strict=True)
        figure.colorbar(axes.scatter(images, members, c=values, s=30, zorder=3), ax=axes, label=metric)
    for decision in decisions:
        for child, parent in decision["copies"].items():
            axes.annotate("", (decision["images"], int(child)), (decision["images"], parent), zorder=2,
                          arrowprops={"arrowstyle": "->", "color": "C3", "alpha": 0.7})  # fmt: skip
    end = max((line["images"] for log in logs.values() for line in log), default=0)
    axes.hlines(sorted(logs), 0, end, color="0.85", zorder=1)
    axes.set_xlabel("images")
    axes.set_ylabel("member")
    axes.yaxis.get_major_locator().set_params(integer=True)
