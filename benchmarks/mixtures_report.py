"""The tables and the picture of `benchmarks.mixtures`, for the terminal and for docs/mixtures.md."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.measure import put
from benchmarks.measure import table as markdown
from benchmarks.mixture_games import DATA, PICTURED, REGULARIZERS, RULES, UNDER_RULES, Line, Setting
from benchmarks.zoo import all_losses

DOCS = pathlib.Path(__file__).parents[1] / "docs"
PUBLISHED = {  # Srivastava et al., arXiv:1705.07761, table 1: modes, and high-quality samples in percent
    "GAN": {"ring": (1, 99.3), "grid": (3.3, 0.5)},
    "ALI": {"ring": (2.8, 0.13), "grid": (15.8, 1.6)},
    "Unrolled GAN": {"ring": (7.6, 35.6), "grid": (23.6, 16)},
    "VEEGAN": {"ring": (8, 52.9), "grid": (24.6, 40)},
}
BESIDE = (  # our settings in the same table; the data set is filled in later
    Setting("", "non_saturating", "none"),
    Setting("", "non_saturating", "none", "unrolled"),
    Setting("", "wasserstein", "gradient_penalty"),
    Setting("", "hinge", "spectral_norm"),
    Setting("", "non_saturating", "r1"),
    Setting("", "relativistic_pairing", "r1"),
    Setting("", "relativistic_pairing", "r1+r2"),
)
NAMES = {"none": "none", "r1": "R1", "r2": "R2", "r1+r2": "R1 + R2", "gradient_penalty": "gradient penalty",
         "spectral_norm": "spectral norm"}  # fmt: skip
Lines = Mapping[Setting, Line]


def _mean(line: Line, name: str) -> float:
    return float(np.mean(line[name]))


def _cells(line: Line | None) -> list[str]:
    """Formats modes, share of high quality, KL and failures of a line, with intervals."""
    if line is None:
        return ["not run", "", "", ""]
    low, high = line["interval"]["modes"]
    least, most = line["interval"]["high_quality"]
    known = [x for x in line["kl"] if x is not None]
    return [
        f"{_mean(line, 'modes'):.1f} ({low:.1f} to {high:.1f})",
        f"{_mean(line, 'high_quality'):.1%} ({least:.1%} to {most:.1%})",
        f"{np.mean(known):.3f}" if known else "",
        f"{line['failed']} of {len(line['modes'])}",
    ]


def beside_published(lines: Lines) -> str:
    """Makes the table that compares our results with VEEGAN's published rows."""
    head = ["modes", "high quality", "KL", "failed"]
    rows: list[list[Any]] = [["", *(f"{name}: {column}" for name in DATA for column in head)]]
    for method, figures in PUBLISHED.items():
        rows.append([f"{method}, published", *(x for d in DATA for x in (figures[d][0], f"{figures[d][1]}%", "", ""))])
    for _, loss, regularizer, rule in BESIDE:
        title = f"`{loss}`, {NAMES[regularizer]}" + (f", {rule}" if rule != "alternating" else "")
        found = [lines.get(Setting(name, loss, regularizer, rule)) for name in DATA]
        if any(found):
            rows.append([title, *(cell for line in found for cell in _cells(line))])
    return markdown(rows)


def _short(line: Line | None) -> str:
    if line is None:
        return ""
    failed = f", {line['failed']} failed" if line["failed"] else ""
    return f"{_mean(line, 'modes'):.1f}, {_mean(line, 'high_quality'):.0%}{failed}"


def by_loss(lines: Lines, name: str) -> str:
    """Makes the table of losses by regularisers on one data set: mean modes and mean share of high quality."""
    rows = [["", *(NAMES[regularizer] for regularizer in REGULARIZERS)]]
    for loss in all_losses():
        cells = [_short(lines.get(Setting(name, loss, regularizer))) for regularizer in REGULARIZERS]
        if any(cells):
            rows.append([f"`{loss}`", *cells])
    return markdown(rows)


def by_rule(lines: Lines) -> str:
    """Makes the table of update rules: mean modes and mean share of high quality."""
    rows = [["", *RULES]]
    for name in DATA:
        for loss, regularizer in UNDER_RULES:
            cells = [_short(lines.get(Setting(name, loss, regularizer, rule))) for rule in RULES]
            if any(cells):
                rows.append([f"{name}, `{loss}`, {NAMES[regularizer]}", *cells])
    return markdown(rows)


def complete(lines: Lines) -> str:
    """Makes the table of every setting, with intervals."""
    head = ["data", "loss", "regulariser", "rule", "modes", "high quality", "KL", "failed", "least in a seed", "raw"]
    rows = [head]
    for setting, line in sorted(lines.items()):
        worst = f"{min(line['modes'])}, {min(line['high_quality']):.1%}"
        raw = f"{np.mean(line['raw']['modes']):.1f}, {np.mean(line['raw']['high_quality']):.1%}"
        titles = [setting.data, f"`{setting.loss}`", NAMES[setting.regularizer], setting.rule]
        rows.append([*titles, *_cells(line), worst, raw])
    return markdown(rows)


def on_a_longer_budget(lines: Lines) -> str:
    """Makes the table of the games on the longer budget, with the values of each seed."""
    rows = [
        ["data", "loss", "regulariser", "modes", "high quality", "KL", "failed", "modes by seed", "quality by seed"]
    ]
    for setting, line in lines.items():
        seeds = [", ".join(f"{x}" for x in line["modes"]), ", ".join(f"{x:.1%}" for x in line["high_quality"])]
        rows.append([setting.data, f"`{setting.loss}`", NAMES[setting.regularizer], *_cells(line), *seeds])
    return markdown(rows)


def _told(lines: Lines) -> str:
    line = next(iter(lines.values()))
    setup, hours = line["setup"], sum(line["cpu_seconds"] for line in lines.values()) / 3600
    return (
        f"{len(lines)} settings of {setup['seeds']} seeds, {setup['iterations']:,} iterations of batches of "
        f"{setup['batch_size']}, {setup['layers']} layers of {setup['width']}; {hours:.1f} core hours "
        f"({line['machine']['processor']})."
    )


def table(lines: Lines, long: Lines) -> str:
    """Makes all tables with their headings, in Markdown."""
    parts = ["**On the longer budget:**", on_a_longer_budget(long), _told(long)] if long else []
    if not lines:
        return "\n\n".join(parts) or "Nothing is recorded with these settings."
    parts += ["**Beside the published figures** (in brackets 95% intervals):", beside_published(lines)]
    for name in DATA:
        modes = len(DATA[name].centers)
        parts += [f"**{name.capitalize()}**: modes of {modes}, share of high quality.", by_loss(lines, name)]
    parts += ["**Update rules**: modes, share of high quality.", by_rule(lines), _told(lines)]
    parts += ["<details><summary>All settings</summary>", complete(lines), "</details>"]
    return "\n\n".join(parts)


def write(lines: Lines, long: Lines) -> None:
    """Writes the tables into docs/mixtures.md, and draws docs/images/mixtures.png."""
    put(DOCS / "mixtures.md", "benchmarks.mixtures", table(lines, long))
    picture(lines, long, DOCS / "images" / "mixtures.png")


def picture(lines: Lines, long: Lines, path: pathlib.Path) -> None:
    """Draws heat maps of losses by regularisers, and below them samples of selected settings over the modes.

    The last of the selected settings is shown on both budgets.
    """
    from matplotlib.figure import Figure  # noqa: PLC0415 - slow to import

    figure = Figure(figsize=(17, 16), layout="constrained")
    top, bottom = np.asarray(figure.subfigures(2, 1, height_ratios=(8, 7)))
    axes = top.subplots(1, 4, sharey=True)
    losses = list(all_losses())
    for index, name in enumerate(DATA):
        modes = len(DATA[name].centers)
        _heat(axes[2 * index], lines, name, losses, "modes", f"{name}: modes of {modes}", modes)
        _heat(axes[2 * index + 1], lines, name, losses, "high_quality", f"{name}: % of high quality", 1.0)
    axes[0].set_yticks(range(len(losses)), losses, fontsize=10)
    grid = bottom.subplots(len(DATA), len(PICTURED) + 1)
    for row, name in zip(grid, DATA, strict=True):
        best = Setting(name, *PICTURED[-1])
        _points(row[-1], long.get(best), name)
        row[-1].set_title(f"{best.loss}\n{NAMES[best.regularizer]}, longer", fontsize=10)
        for axis, (loss, regularizer) in zip(row[:-1], PICTURED, strict=True):
            _points(axis, lines.get(Setting(name, loss, regularizer)), name)
            axis.set_title(f"{loss}\n{NAMES[regularizer]}", fontsize=10)
    figure.savefig(path, dpi=70)


def _heat(axis: Any, lines: Lines, name: str, losses: Sequence[str], key: str, title: str, most: float) -> None:
    values = np.full((len(losses), len(REGULARIZERS)), np.nan)
    for i, loss in enumerate(losses):
        for j, regularizer in enumerate(REGULARIZERS):
            line = lines.get(Setting(name, loss, regularizer))
            if line is None:
                continue
            values[i, j] = value = _mean(line, key)
            shown = f"{value:.1f}" if key == "modes" else f"{100 * value:.0f}"
            cross = "x" * line["failed"] if key == "modes" else ""
            ink = "white" if value < 0.6 * most else "black"
            axis.text(j, i, shown + (f"\n{cross}" if cross else ""), ha="center", va="center", color=ink, fontsize=9)
    axis.imshow(values, vmin=0, vmax=most, cmap="viridis", aspect="auto")
    axis.set_xticks(range(len(REGULARIZERS)), [NAMES[x] for x in REGULARIZERS], rotation=40, ha="right", fontsize=10)
    axis.set_title(title, fontsize=12)


def _points(axis: Any, line: Line | None, name: str) -> None:
    centers = DATA[name].centers
    reach = 1.35 * np.abs(centers).max()
    axis.scatter(centers[:, 0], centers[:, 1], s=60, facecolors="none", edgecolors="tab:red", linewidths=0.8)
    if line is not None and "samples" in line:
        points = np.asarray(line["samples"])
        axis.scatter(points[:, 0], points[:, 1], s=3, color="tab:blue", linewidths=0)
    else:
        axis.text(0, 0, "failed" if line is not None else "not run", ha="center", va="center")
    axis.set(xlim=(-reach, reach), ylim=(-reach, reach), xticks=[], yticks=[], aspect="equal")
