"""The effect of truncation, and of selecting samples by the discriminator, on the metrics of a DCGAN of MNIST.

Trains `experiments/configs/dcgan_mnist.py` in --workdir, or uses the run that is there. Evaluates the samples of every
selection method with several seeds of latents, by `fcd10k` and `prdc_classifier10k`. The calibration, and the initial
states of the Metropolis-Hastings chains, use MNIST's test images, which the discriminator has not seen.

python -m benchmarks.selection --data_dir=DIR    runs what results/selection.jsonl lacks, then writes table and picture
python -m benchmarks.selection --table           runs nothing: prints the table of the recorded results
python -m benchmarks.selection --write           runs nothing: writes table and picture into docs/
"""

import pathlib
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from absl import app, flags

from benchmarks.measure import RESULTS, bootstrap, put, record, recorded, spread, table
from gan_jax import data, runtime
from gan_jax.host import from_uint8
from gan_jax.runs import Run
from gan_jax.runtime.environment import cache_directory

_DATA = flags.DEFINE_string("data_dir", "", "directory in which TFDS prepared mnist")
_WORKDIR = flags.DEFINE_string("workdir", "runs/selection", "workdir of the trained run")
_SEEDS = flags.DEFINE_integer("seeds", 5, "number of seeds of latents for each selection method", lower_bound=1)
_TABLE = flags.DEFINE_bool("table", False, "run nothing: print the recorded results")
_WRITE = flags.DEFINE_bool("write", False, "run nothing: write table and picture into docs/")
_CONFIG = "experiments/configs/dcgan_mnist.py"
_DOCS = RESULTS.parents[1] / "docs"
_METRICS = ("fcd10k", "prdc_classifier10k")
_COLUMNS = {
    "fcd10k": "FCD, 10,000",
    "prdc_classifier10k_precision": "precision",
    "prdc_classifier10k_recall": "recall",
    "prdc_classifier10k_density": "density",
    "prdc_classifier10k_coverage": "coverage",
}
_TRUNCATIONS = (0.9, 0.7, 0.5)  # factors of the uniform prior's range
_CHOICES = ("top:0.75", "top:0.5", "top:0.25", "reject:50", "reject:80", "reject:95", "mh:16", "mh:64")
_WAYS: dict[str, tuple[float | None, str]] = {
    "all samples": (None, ""),
    **{f"truncation {x}": (x, "") for x in _TRUNCATIONS},
    **{choice: (None, choice) for choice in _CHOICES},
}


def trained() -> Run:
    """Trains the run to its end, if it is not finished, and opens it."""
    options = [f"--config={_CONFIG}", f"--workdir={_WORKDIR.value}", f"--config.data_dir={_DATA.value}"]
    subprocess.run([sys.executable, "-m", "experiments.train", *options], check=True)
    return Run(_WORKDIR.value, mesh=runtime.make_mesh())


def run_all() -> None:
    """Evaluates and records every selection method with every seed that has no line yet."""
    run = trained()
    unseen = data.tfds_images("mnist", data_dir=_DATA.value, labels=False, split="test").read(np.arange(4096))["real"]
    reals = from_uint8(unseen)
    state, reference = run.restore().state, run.experiment.comparison
    digest = runtime.state_sha256(state)
    there = {(line["way"], line["seed"]) for line in recorded("selection") if line["state_sha256"] == digest}
    with jax.set_mesh(run.mesh):
        judge = runtime.Evaluator(_METRICS, reference, run.mesh, cache_directory() / "evaluation", batch_size=256)
        for way, (truncation, choice) in _WAYS.items():
            for seed in range(_SEEDS.value):
                if (way, seed) in there:
                    continue
                began = time.monotonic()
                if choice:
                    samples = runtime.choose_samples(run.experiment, state, seed, choice, reals)
                else:
                    samples = runtime.stream_samples(run.experiment, state, seed, truncation=truncation)
                values = judge(samples)
                line = {"way": way, "seed": seed, "values": values, "seconds": round(time.monotonic() - began, 1)}
                facts = {"state_sha256": digest, "config": _CONFIG, "protocol": judge.records}
                record("selection", line | facts)
                shown = "  ".join(f"{title} {values[name]:.4g}" for name, title in _COLUMNS.items())
                print(f"{way}, seed {seed}: {shown}", flush=True)
    run.close()


def of(way: str) -> dict[str, list[float]]:
    """Returns the metrics of a selection method over its seeds, for the run that was evaluated last."""
    everything = recorded("selection")
    last = everything[-1]["state_sha256"] if everything else ""
    found = [line["values"] for line in everything if line["way"] == way and line["state_sha256"] == last]
    return {name: [values[name] for values in found] for name in _COLUMNS}


def summary() -> str:
    """Makes a table of means with 95% bootstrap intervals over the seeds of latents, in Markdown."""
    rows: list[list[Any]] = [["samples", *_COLUMNS.values(), "seeds"]]
    for way in _WAYS:
        values = of(way)
        if seeds := len(values["fcd10k"]):
            cells = [spread(x, ".3g") for x in values.values()]
            rows.append([way, *cells, seeds])
    return table(rows)


def picture(path: pathlib.Path) -> None:
    """Plots distance, precision and recall of every selection method, with the intervals over seeds."""
    from matplotlib.figure import Figure  # noqa: PLC0415 - slow to import

    figure = Figure(figsize=(13, 4.5), layout="constrained")
    panels = figure.subplots(1, 3, sharey=True)
    ways = [way for way in _WAYS if of(way)["fcd10k"]]
    colors = {"truncation": "C1", "top": "C2", "reject": "C3", "mh": "C4", "all samples": "C0"}
    shown = ("fcd10k", "prdc_classifier10k_precision", "prdc_classifier10k_recall")
    for axis, name in zip(panels, shown, strict=True):
        for index, way in enumerate(ways):
            values = of(way)[name]
            (low, high), mean = bootstrap(values), statistics.mean(values)
            color = colors[next(kind for kind in colors if way.startswith(kind))]
            axis.errorbar(mean, index, xerr=[[mean - low], [high - mean]], fmt="o", color=color, capsize=3)
        axis.axvline(statistics.mean(of("all samples")[name]), color="C0", linewidth=0.8, linestyle=":")
        axis.set_xlabel(_COLUMNS[name])
        axis.grid(axis="y", alpha=0.3)
    panels[0].set_xscale("log")
    panels[0].xaxis.set_major_formatter("{x:g}")
    panels[0].xaxis.set_minor_formatter("{x:g}")
    panels[0].set_yticks(range(len(ways)), ways)
    panels[0].invert_yaxis()
    figure.savefig(path, dpi=100)


def main(argv: Sequence[str]) -> None:
    """Runs what is missing, and prints and writes the table."""
    del argv
    if not (_TABLE.value or _WRITE.value):
        run_all()
    print(summary())
    if not _TABLE.value:
        put(_DOCS / "evaluation.md", "benchmarks.selection", summary())
        picture(_DOCS / "images" / "selection.png")


if __name__ == "__main__":
    app.run(main)
