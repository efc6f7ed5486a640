"""What a search costs beside a grid: halving and population-based training on the ring and on digits.

For each seed three sweeps of the config's own `sweep()`, by `experiments.sweep`: a grid of 5 by 5 settings that all
train to the end; successive halving of 27 random draws, of which a third goes on at two rungs; population-based
training of 8 random draws. Halving and population-based training see 28% and 32% of the grid's images.

Each is judged by its best member at the end. The value that made it the best of many is better than it will be again,
the more so of 25; so that member is evaluated anew, with eight other seeds of latents, and the mean of those compared.

A line has the best metric after every evaluation too, and the images that all members had seen by then.

python -m benchmarks.search            what results/search.jsonl lacks, then the table
python -m benchmarks.search --table    the table alone, from the lines there are
python -m benchmarks.search --write    table and picture from the lines there are, into docs/
"""

import csv
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
from absl import app, flags

from benchmarks.measure import RESULTS, put, record, recorded, spread, table
from experiments.launch import cache_directory
from experiments.workdir import Run
from gan_jax import runtime
from gan_jax.sweep.logs import read_lines

_SEEDS = flags.DEFINE_integer("seeds", 5, "of each sweep", lower_bound=1)
_CASES = flags.DEFINE_list("cases", ["ring", "digits"], "which configs")
_TABLE = flags.DEFINE_bool("table", False, "run nothing, and show what is recorded")
_WRITE = flags.DEFINE_bool("write", False, "run nothing, and put table and picture into docs/")
_ROOT = RESULTS.parents[1]


class Case(NamedTuple):
    """What is searched.

    Attributes:
      metric: that it goes by.
      better: whether more or less of it is.
      steps: of a whole run.
      rung: iterations until the first rung.
      interval: iterations between decisions of population-based training.
      every: iterations between evaluations.
      batch_size: of a member.
      options: of the config, beside those.
    """

    metric: str
    better: str
    steps: int
    rung: int
    interval: int
    every: int
    batch_size: int
    options: tuple[str, ...] = ()

    def flags(self) -> list[str]:
        """Of the command."""
        return [
            f"--config.best_metric={self.metric}", f"--config.steps={self.steps}", "--config.steps_per_dispatch=50",
            f"--config.report_every={self.every}", f"--config.evaluate_every={self.every}", "--config.sample_every=0",
            f"--config.checkpoint_every={self.steps}", f"--config.batch_size={self.batch_size}", *self.options,
        ]  # fmt: skip

    def methods(self) -> dict[str, list[str]]:
        """Flags of each, by name."""
        rung, interval = self.rung * self.batch_size, self.interval * self.batch_size
        return {
            "grid": ["--points=grid", "--grid_size=5"],
            "halving": ["--points=random", "--num_trials=27", "--search=halving", f"--first_rung={rung}"],
            "pbt": ["--points=random", "--num_trials=8", "--search=pbt", f"--pbt_images={interval}"],
        }


CASES = {
    "ring": Case(
        "eval/mixture_high_quality", "max", 8100, 900, 300, 300, 128, ("--config.metrics=mixture", "--config.width=64")
    ),
    "digits": Case("eval/fcd1k", "min", 1800, 200, 200, 200, 64, ("--config.metrics=fcd1k", "--config.width=32")),
}


def run(name: str, method: str, seed: int) -> dict[str, Any]:
    """One sweep."""
    case, began = CASES[name], time.monotonic()
    with tempfile.TemporaryDirectory() as room:
        words = [
            "experiments.sweep", f"--config=experiments/configs/{name}.py", f"--workdir={room}", "--export=best",
            f"--config.seed={seed}", f"--sweep_seed={seed}", *case.flags(), *case.methods()[method],
        ]  # fmt: skip
        subprocess.run([sys.executable, "-m", *words], env=os.environ, cwd=_ROOT, check=True)
        with (pathlib.Path(room) / "results.csv").open() as file:
            rows = list(csv.DictReader(file))
        logs = [read_lines(pathlib.Path(room) / f"members/{index:05d}/metrics.jsonl") for index in range(len(rows))]
        [home] = (pathlib.Path(room) / "trials").iterdir()
        again = evaluate(home, case)
    choose = min if case.better == "min" else max
    ended = [row for row in rows if row["status"] == "done"]
    best = choose(ended, key=lambda row: float(row[case.metric]))
    curve = []
    for step in range(case.every, case.steps + 1, case.every):
        images = sum(min(step * case.batch_size, int(row["images"])) for row in rows)
        values = [line[case.metric] for log in logs for line in log if line["step"] == step]
        curve.append([images, choose(values)])
    return {
        "case": name, "method": method, "seed": seed, "setup": case._asdict(), "members": len(rows),
        "ended": {status: sum(row["status"] == status for row in rows) for status in ("done", "pruned", "diverged")},
        "images": sum(int(row["images"]) for row in rows), "best": float(best[case.metric]), "again": again,
        "row": best, "curve": curve, "seconds": round(time.monotonic() - began, 1),
    }  # fmt: skip


def evaluate(home: pathlib.Path, case: Case) -> list[float]:
    """The metric of a run's last checkpoint, under seeds of latents that nobody chose it by."""
    measured, mesh = case.metric.removeprefix("eval/"), runtime.make_mesh()
    trained = Run(home, mesh=mesh)
    wanted = "mixture" if measured.startswith("mixture") else measured
    reference = (trained.experiment.reference or trained.experiment.source)()
    state = trained.restore().state
    with jax.set_mesh(mesh):
        judge = runtime.Evaluator([wanted], reference, mesh, cache_directory() / "evaluation")
        values = [
            judge(runtime.stream_samples(trained.experiment, state, seed))[measured] for seed in range(1000, 1008)
        ]
    trained.close()
    return values


def lines(name: str, method: str) -> dict[int, dict[str, Any]]:
    """What is recorded with these very settings, by seed."""
    setup = CASES[name]._asdict() | {"options": list(CASES[name].options)}
    found = [x for x in recorded("search") if (x["case"], x["method"], x["setup"]) == (name, method, setup)]
    return {line["seed"]: line for line in found}


def summary() -> str:
    """The best of each method: means, with 95% bootstrap intervals over seeds, and how often the grid was reached."""
    heads = ["config", "metric", "method", "members", "images of the grid's", "its best member", "the same, anew"]
    rows: list[list[Any]] = [[*heads, "less that of the same seed's grid", "as good as the grid's"]]
    for name, case in CASES.items():
        grid = lines(name, "grid")
        sign = 1 if case.better == "max" else -1
        for method in case.methods():
            found = lines(name, method)
            if not found:
                continue
            both = sorted(found.keys() & grid.keys())
            again = {seed: statistics.mean(line["again"]) for seed, line in found.items()}
            differences = [again[seed] - statistics.mean(grid[seed]["again"]) for seed in both]
            reached = sum(sign * difference >= 0 for difference in differences)
            share = [found[seed]["images"] / grid[seed]["images"] for seed in both]
            compared = [spread(differences, "+.2g"), f"{reached} of {len(both)} seeds"]
            rows.append([
                name, case.metric, method, next(iter(found.values()))["members"], spread(share, ".0%"),
                spread([line["best"] for line in found.values()], ".3g"), spread(list(again.values()), ".3g"),
                *(["", ""] if method == "grid" else compared),
            ])  # fmt: skip
    return table(rows)


def picture(path: pathlib.Path) -> None:
    """The best so far against the images that all members have seen, a line for each seed."""
    from matplotlib.figure import Figure  # noqa: PLC0415 - slow to import

    figure = Figure(figsize=(11, 4), layout="constrained")
    for axes, (name, case) in zip(figure.subplots(1, len(CASES)), CASES.items(), strict=True):
        for index, method in enumerate(case.methods()):
            for seed, line in sorted(lines(name, method).items()):
                images, values = zip(*line["curve"], strict=True)
                label = method if seed == 0 else None
                axes.plot(images, values, color=f"C{index}", linewidth=1, alpha=0.8, marker=".", label=label)
        axes.set_xscale("log")
        axes.set_yscale("log" if case.better == "min" else "linear")
        axes.set_xlabel("images, of all members")
        axes.set_ylabel(f"best {case.metric}")
        axes.set_title(name)
        axes.legend()
    figure.savefig(path, dpi=100)


def main(argv: Sequence[str]) -> None:
    """See the module."""
    del argv
    for name in [] if _TABLE.value or _WRITE.value else _CASES.value:
        for seed in range(_SEEDS.value):
            for method in CASES[name].methods():
                if seed not in lines(name, method):
                    line = run(name, method, seed)
                    record("search", line)
                    print({key: line[key] for key in ("case", "method", "seed", "best", "seconds")}, flush=True)
    print(summary())
    if _WRITE.value:
        put(_ROOT / "docs" / "sweeps.md", "benchmarks.search", summary())
        picture(_ROOT / "docs" / "images" / "search.png")


if __name__ == "__main__":
    app.run(main)
