"""Successive halving and population-based training compared with a grid search, on the ring and on digits.

For each seed `experiments.sweep` runs three sweeps over the learning rate (four decades) and the weight of the penalty
(five decades): a grid of 5 x 5 settings, all trained to the end; successive halving of 52 quasi-random points, a fourth
of which continue at 1/16 of the run and again at 1/4; and population-based training of 8 quasi-random points, with the
command's default interval. Halving and population-based training see 32% of the grid's images.

The result of the grid is the setting with the best mean over the seeds; it is trained again with each seed. It is
compared with the best run of the same seed's grid and with the best runs of the two searches. A metric by which a run
was selected is biased towards good values, the more so the more runs there were. All of these runs are therefore
evaluated again, with eight other seeds of latents.

A sweep's line has the final value of each run (infinite if it was pruned or diverged), and a curve: for each
evaluation, the best value and the number of images that all members had seen by then.

python -m benchmarks.search            runs what results/search.jsonl lacks, then prints the table
python -m benchmarks.search --table    runs nothing: prints the table of the recorded results
python -m benchmarks.search --write    runs nothing: writes table and picture into docs/
"""

import csv
import functools
import math
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import app, flags

from benchmarks.measure import RESULTS, own_flags, put, record, recorded, spread, table
from gan_jax import runtime
from gan_jax.host import read_lines
from gan_jax.runs import Run
from gan_jax.runtime.environment import cache_directory
from gan_jax.runtime.logging import REPAIR_LINE, LogLine
from gan_jax.sweep import space as spaces

_FLAGS = own_flags(__name__)
_SEEDS = flags.DEFINE_integer("seeds", 5, "number of seeds of each sweep", lower_bound=1, flag_values=_FLAGS)
_CASES = flags.DEFINE_list("cases", ["ring", "digits"], "names of the configs to sweep", flag_values=_FLAGS)
_TABLE = flags.DEFINE_bool("table", False, "run nothing: print the recorded results", flag_values=_FLAGS)
_WRITE = flags.DEFINE_bool("write", False, "run nothing: write table and picture into docs/", flag_values=_FLAGS)
_ROOT = RESULTS.parents[1]


class Case(NamedTuple):
    """A search problem.

    Attributes:
      metric: name of the metric to minimise.
      steps: number of steps of a full run; a multiple of 16, because the first rung is at 1/16.
      batch_size: batch size of a member.
      space: search space, as for the flag `--space`.
      options: further flags that change the config.
    """

    metric: str
    steps: int
    batch_size: int
    space: str
    options: tuple[str, ...] = ()

    @property
    def every(self) -> int:
        """Iterations between evaluations."""
        return self.steps // 16

    def sweep(self, method: str) -> list[str]:
        """Returns the sweep flags of a method."""
        rung = self.steps // 16 * self.batch_size
        return {
            "grid": ["--points=grid", "--grid_size=5"],
            "halving": ["--points=qmc", "--num_trials=52", "--search=halving", "--eta=4", f"--first_rung={rung}"],
            "pbt": ["--points=qmc", "--num_trials=8", "--search=pbt"],
        }[method]

    def flags(self) -> list[str]:
        """Returns the flags that all methods share."""
        return [
            f"--config.best_metric={self.metric}", f"--config.steps={self.steps}",
            f"--config.report_every={self.every}", f"--config.evaluate_every={self.every}", "--config.sample_every=0",
            f"--config.checkpoint_every={self.steps}", f"--config.batch_size={self.batch_size}",
            f"--config.steps_per_dispatch={self.every}", *self.options,
        ]  # fmt: skip


CASES = {
    "ring": Case(
        "eval/mixture_js", 5600, 128, "learning_rate=log(1e-5,1e-1);gamma=log(1e-4,1e1)",
        ("--config.metrics=mixture", "--config.width=64"),
    ),
    "digits": Case(
        "eval/fcd1k", 4000, 32, "learning_rate=log(1e-5,1e-1);r1_gamma=log(1e-4,1e1)",
        ("--config.metrics=fcd1k", "--config.width=32"),
    ),
}  # fmt: skip
METHODS = ("grid", "halving", "pbt")


def setup(name: str, method: str) -> dict[str, Any]:
    """Returns the settings that must be equal for lines to be comparable."""
    return CASES[name]._asdict() | {"options": list(CASES[name].options), "sweep": CASES[name].sweep(method)}


def run(name: str, method: str, seed: int) -> dict[str, Any]:
    """Runs one sweep, evaluates its best run, and returns its line for the results."""
    case, began = CASES[name], time.monotonic()
    options = [f"--space={case.space}", f"--config.seed={seed}", f"--sweep_seed={seed}", "--export=best"]
    with tempfile.TemporaryDirectory() as room:
        command(name, room, *options, *case.sweep(method))
        with (pathlib.Path(room) / "results.csv").open() as file:
            rows = list(csv.DictReader(file))
        paths = [pathlib.Path(room) / f"members/{index:05d}/metrics.jsonl" for index in range(len(rows))]
        logs = [read_lines(path, LogLine, remedy=REPAIR_LINE) for path in paths]
        [home] = (pathlib.Path(room) / "trials").iterdir()
        again = evaluate(home, case)
    keys = spaces.parse(case.space)
    values = [float(row[case.metric]) if row["status"] == "done" else math.inf for row in rows]
    values = [value if math.isfinite(value) else math.inf for value in values]
    curve = []
    for step in range(case.every, case.steps + 1, case.every):
        images = sum(min(step * case.batch_size, int(row["images"])) for row in rows)
        known = [line[case.metric] for log in logs for line in log if line["step"] == step]
        curve.append([images, min(filter(math.isfinite, known), default=math.inf)])
    return {
        "case": name, "method": method, "seed": seed, "setup": setup(name, method), "members": len(rows),
        "ended": {status: sum(row["status"] == status for row in rows) for status in ("done", "pruned", "diverged")},
        "images": sum(int(row["images"]) for row in rows), "best": min(values), "again": again,
        "ends": [[*(float(row[key]) for key in keys), value] for row, value in zip(rows, values, strict=True)],
        "curve": curve, "seconds": round(time.monotonic() - began, 1),
    }  # fmt: skip


def train_setting(name: str, setting: Sequence[float], numbers: Sequence[int]) -> dict[str, Any]:
    """Trains one setting with several seeds, and evaluates each run as the best run of a sweep is evaluated."""
    case = CASES[name]
    keys = [*spaces.parse(case.space), "seed"]
    choices = [*(repr(value) for value in setting), ",".join(map(str, numbers))]
    space = ";".join(f"{key}={choice}" for key, choice in zip(keys, choices, strict=True))
    with tempfile.TemporaryDirectory() as room:
        command(name, room, f"--space={space}", "--points=grid", "--export=all")
        homes = {seed: pathlib.Path(room) / f"trials/{index:05d}" for index, seed in enumerate(numbers)}
        again = {str(seed): evaluate(home, case) for seed, home in homes.items()}
    return {"case": name, "method": "setting", "setup": setup(name, "grid"), "setting": [*setting], "again": again}


def command(name: str, room: str, *options: str) -> None:
    """Runs `experiments.sweep` on one of the configs."""
    words = ["experiments.sweep", f"--config=experiments/configs/{name}.py", f"--workdir={room}", *CASES[name].flags()]
    subprocess.run([sys.executable, "-m", *words, *options], env=os.environ, cwd=_ROOT, check=True)


def evaluate(home: pathlib.Path, case: Case) -> list[float]:
    """Evaluates a run's last checkpoint with seeds of latents that played no part in selecting the run."""
    measured, mesh = case.metric.removeprefix("eval/"), runtime.make_mesh()
    trained = Run(home, mesh=mesh)
    wanted = "mixture" if measured.startswith("mixture") else measured
    reference = (trained.experiment.reference or trained.experiment.source)()
    state = trained.restore().state
    with jax.set_mesh(mesh):
        judge = runtime.Evaluator([wanted], reference, mesh, cache_directory() / "evaluation")
        values = [
            judge(functools.partial(runtime.stream_samples, trained.experiment, state, seed))[measured]
            for seed in range(1000, 1008)
        ]
    trained.close()
    return values


def lines(name: str, method: str) -> dict[int, dict[str, Any]]:
    """Returns the lines that are recorded with exactly these settings, by seed."""
    wanted = (name, method, setup(name, method))
    found = [x for x in recorded("search") if (x["case"], x["method"], x["setup"]) == wanted]
    return {line["seed"]: line for line in found}


def seeds(name: str) -> list[int]:
    """Returns the seeds for which every method is recorded."""
    return sorted(set.intersection(*(set(lines(name, method)) for method in METHODS)))


def trained_setting(name: str) -> dict[str, Any] | None:
    """Returns the newest line of the grid's best setting, trained with all of `seeds`; None if there is none."""
    wanted = (name, setup(name, "grid"), best_setting(name), [str(seed) for seed in seeds(name)])
    found = [x for x in reversed(recorded("search")) if x["method"] == "setting"]
    return next((x for x in found if (x["case"], x["setup"], x["setting"], [*x["again"]]) == wanted), None)


def best_setting(name: str) -> list[float]:
    """Returns the parameters of the grid point with the smallest mean over all of `seeds`."""
    grid = [lines(name, "grid")[seed]["ends"] for seed in seeds(name)]
    means = np.mean([[end[-1] for end in ends] for ends in grid], axis=0)
    return grid[0][int(np.argmin(means))][:-1]


def summary() -> str:
    """Makes the table of each method's result, with 95% intervals over seeds, and of how often it matches the grid."""
    heads = ["config", "metric", "method", "members", "images of the grid's", "its best run at the end"]
    rows: list[list[Any]] = [
        [*heads, "as good as the grid's best setting", "as good as the best run of its seed's grid"]
    ]
    for name, case in CASES.items():
        found = {method: lines(name, method) for method in METHODS}
        known = seeds(name)
        settled = trained_setting(name) if known else None
        if not settled:
            continue
        again = {method: [statistics.mean(x[seed]["again"]) for seed in known] for method, x in found.items()}
        goals = [statistics.mean(values) for values in settled["again"].values()]
        for method in METHODS:
            share = [found[method][seed]["images"] / found["grid"][seed]["images"] for seed in known]
            won = [np.less_equal(again[method], others).sum() for others in (statistics.mean(goals), again["grid"])]
            reached = [f"{count} of {len(known)} seeds" for count in won]
            if method == "grid":
                setting = zip(spaces.parse(case.space), settled["setting"], strict=True)
                named = ", ".join(f"{key} {value:.2g}" for key, value in setting)
                reached = [f"that is {spread(goals, '.3g')}: {named}", ""]
            rows.append([
                name, case.metric, method, found[method][known[0]]["members"], spread(share, ".0%"),
                spread(again[method], ".3g"), *reached,
            ])  # fmt: skip
    return table(rows)


def picture(path: pathlib.Path) -> None:
    """Plots the best value so far against the images that all members have seen, one curve for each seed."""
    from matplotlib.figure import Figure  # noqa: PLC0415 - slow to import

    figure = Figure(figsize=(11, 4), layout="constrained")
    for axes, (name, case) in zip(figure.subplots(1, len(CASES)), CASES.items(), strict=True):
        for index, method in enumerate(METHODS):
            for number, seed in enumerate(seeds(name)):
                images, values = np.transpose(lines(name, method)[seed]["curve"])
                label = method if number == 0 else None
                best = np.minimum.accumulate(values)
                axes.plot(images, best, color=f"C{index}", linewidth=1, alpha=0.8, marker=".", label=label)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel("images, of all members")
        axes.set_ylabel(f"best {case.metric} so far")
        axes.set_title(name)
        if seeds(name):
            axes.legend()
    figure.savefig(path, dpi=100)


def main(argv: Sequence[str]) -> None:
    """Runs what is missing, and prints or writes the table."""
    del argv
    for name in [] if _TABLE.value or _WRITE.value else _CASES.value:
        for seed in range(_SEEDS.value):
            for method in METHODS:
                if seed not in lines(name, method):
                    line = run(name, method, seed)
                    record("search", line)
                    print({key: line[key] for key in ("case", "method", "seed", "best", "seconds")}, flush=True)
        if not trained_setting(name):
            record("search", train_setting(name, best_setting(name), seeds(name)))
    print(summary())
    if _WRITE.value:
        put(_ROOT / "docs" / "sweeps.md", "benchmarks.search", summary())
        picture(_ROOT / "docs" / "images" / "search.png")


if __name__ == "__main__":
    app.run(main)
