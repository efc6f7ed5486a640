"""The example runs of docs/configs.md: their time on this machine, start-up included, their metrics and their samples.

Trains `digits`, `ring` and `dcgan_mnist` with `experiments.train`, and evaluates the final state.

python -m benchmarks.examples --data_dir=DIR               appends to results/examples.jsonl, updates docs/images/
python -m benchmarks.examples --data_dir=DIR --only=ring   runs one of them
python -m benchmarks.examples --table                      runs nothing: prints the newest result of each as a table
python -m benchmarks.examples --write                      runs nothing: writes that table into docs/configs.md
"""

import json
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence

from absl import app, flags

from benchmarks.measure import RESULTS, put, record, recorded, table

_DATA = flags.DEFINE_string("data_dir", "", "directory in which TFDS prepared mnist")
_ONLY = flags.DEFINE_list("only", ["digits", "ring", "dcgan_mnist"], "names of the configs to run")
_TABLE = flags.DEFINE_bool("table", False, "run nothing: print the recorded results")
_WRITE = flags.DEFINE_bool("write", False, "run nothing: write that table into the README")
_METRICS = {"digits": "fcd2k", "ring": "mixture", "dcgan_mnist": "fcd10k"}
_ROOT = RESULTS.parents[1]


def main(argv: Sequence[str]) -> None:
    """Runs the examples, and prints or writes the table."""
    del argv
    for name in [] if _TABLE.value or _WRITE.value else _ONLY.value:
        with tempfile.TemporaryDirectory() as room:
            workdir, config = pathlib.Path(room) / name, f"experiments/configs/{name}.py"
            data = [f"--config.data_dir={_DATA.value}"] if name == "dcgan_mnist" else []
            began = time.monotonic()
            train = ["experiments.train", f"--config={config}", f"--workdir={workdir}", *data]
            subprocess.run([sys.executable, "-m", *train], cwd=_ROOT, check=True)
            seconds = time.monotonic() - began
            evaluate = ["experiments.evaluate", f"--workdir={workdir}", f"--metrics={_METRICS[name]}"]
            subprocess.run([sys.executable, "-m", *evaluate], cwd=_ROOT, check=True)
            result = json.loads((workdir / "result.json").read_text())
            evaluated = json.loads((workdir / "eval.jsonl").read_text().splitlines()[-1])
            picture = max((workdir / "samples").glob("step_*.png"))
            shutil.copyfile(picture, _ROOT / "docs" / "images" / f"{name}.png")
        facts = {"config": name, "seconds": round(seconds, 1), "steps": result["step"], "metrics": evaluated["metrics"]}
        record("examples", facts | {"state_sha256": result["state_sha256"]})
    print(summary())
    if _WRITE.value:
        put(_ROOT / "docs" / "configs.md", "benchmarks.examples", summary())


def summary() -> str:
    """Makes a table of the newest result of each config, in Markdown."""
    rows: list[list[object]] = [["config", "iterations", "minutes, start-up included", "metrics of the end"]]
    found = {line["config"]: line for line in recorded("examples")}
    for name, line in found.items():
        shown = ", ".join(f"{key} {value:.3g}" for key, value in line["metrics"].items())
        rows.append([f"`{name}`", f"{line['steps']:,}", f"{line['seconds'] / 60:.1f}", shown])
    return table(rows)


if __name__ == "__main__":
    app.run(main)
