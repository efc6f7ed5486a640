"""The metric that two configs reach on the same data in about the same training time, over several seeds.

The time is that of the iterations alone, computed from the rates in the log. The numbers of iterations in the configs
are chosen so that the times are about equal.

python -m benchmarks.equal_time           trains digits and r3gan_digits alternately, 5 seeds; appends to results/
python -m benchmarks.equal_time --table   runs nothing: prints the recorded results
python -m benchmarks.equal_time --write   runs nothing: writes that table into docs/evaluation.md
"""

import json
import pathlib
import tempfile
from collections.abc import Sequence
from typing import Any

import jax
from absl import app, flags

from benchmarks.measure import RESULTS, put, record, recorded, spread, table
from gan_jax import runtime
from gan_jax.runs import load_module
from gan_jax.runtime.environment import cache_directory

_CONFIGS = flags.DEFINE_list("configs", ["digits", "r3gan_digits"], "names of configs in experiments/configs")
_SEEDS = flags.DEFINE_integer("seeds", 5, "number of seeds for each config")
_METRIC = flags.DEFINE_string("metric", "fcd10k", "metric of the samples at the end of training")
_STEPS = flags.DEFINE_list("steps", None, "iterations of each config; the configs' own by default")
_TABLE = flags.DEFINE_bool("table", False, "run nothing: print the recorded results")
_WRITE = flags.DEFINE_bool("write", False, "run nothing: write that table into docs/evaluation.md")
_ROOT = RESULTS.parents[1]


def seconds(log: list[dict[str, Any]]) -> float:
    """Returns the total time of the iterations in a log, in seconds."""
    images = [0, *(line["images"] for line in log)]
    return sum((b - a) / line["images_per_second"] for a, b, line in zip(images, images[1:], log, strict=False))


def measure(name: str, seed: int, steps: str | None) -> None:
    """Trains a config with a seed, evaluates the final samples, and records the result."""
    module = load_module(_ROOT / "experiments" / "configs" / f"{name}.py")
    config = module.get_config()
    config.update({"seed": seed, "sample_every": 0} | ({} if steps is None else {"steps": int(steps)}))
    experiment, cache = module.build(config), cache_directory() / "evaluation"
    with tempfile.TemporaryDirectory() as directory:
        workdir = pathlib.Path(directory)
        ended = runtime.train(experiment, workdir, log=lambda message: None)
        log = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
        mesh = runtime.make_mesh()
        with jax.set_mesh(mesh), runtime.Checkpointer(workdir / "checkpoints", keep_last=1, read_only=True) as saved:
            start = runtime.build_start(experiment, experiment.open_source().spec, mesh)
            state = saved.restore(ended.step, start.abstract)["state"]
            judge = runtime.Evaluator([_METRIC.value], experiment.comparison, mesh, cache, log=lambda message: None)
            values = judge(runtime.stream_samples(experiment, state, 0))
    parameters = sum(x.size for x in jax.tree.leaves(state.players["generator"].params))
    facts = {"config": name, "seed": seed, "steps": ended.step, "seconds": round(seconds(log), 1), "values": values}
    record("equal_time", facts | {"generator_parameters": parameters, "state_sha256": ended.state_sha256})
    print(f"{name} seed {seed}: {facts['seconds']} s, {values}", flush=True)


def page() -> str:
    """Makes the table of the recorded results, in Markdown."""
    lines = {(line["config"], line["seed"]): line for line in recorded("equal_time")}
    rows: list[list[Any]] = [["config", "iterations", "seconds", "metric", "mean over seeds"]]
    for name in dict.fromkeys(name for name, _ in lines):
        mine = [line for (other, _), line in lines.items() if other == name]
        for metric in mine[0]["values"]:
            values = spread([line["values"][metric] for line in mine], ".3g")
            taken = spread([line["seconds"] for line in mine], ".0f")
            rows.append([f"`{name}`", f"{mine[0]['steps']:,}", taken, metric, f"{values}, {len(mine)} seeds"])
    return table(rows)


def main(argv: list[str]) -> None:
    """Runs the benchmark, or prints or writes its table."""
    del argv
    if _TABLE.value or _WRITE.value:
        print(page())
        if _WRITE.value:
            put(_ROOT / "docs" / "evaluation.md", "benchmarks.equal_time", page())
        return
    steps_of: Sequence[str | None] = _STEPS.value or (None,) * len(_CONFIGS.value)
    for seed in range(_SEEDS.value):
        for name, steps in zip(_CONFIGS.value, steps_of, strict=True):
            measure(name, seed, steps)


if __name__ == "__main__":
    app.run(main)
