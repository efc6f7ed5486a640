"""The runs that the README shows: how long they take here, start-up included, what they reach, and their pictures.

Trains `digits`, `ring` and `dcgan_mnist` as the README has them, each by `experiments.train`, and evaluates the end.

python -m benchmarks.examples --data_dir=DIR               appends to results/examples.jsonl, and draws docs/images/
python -m benchmarks.examples --data_dir=DIR --only=ring   one of them
python -m benchmarks.examples --table                      what was recorded last of each, as a table
python -m benchmarks.examples --write                      the same, into the README
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

_DATA = flags.DEFINE_string("data_dir", "", "where TFDS prepared mnist")
_ONLY = flags.DEFINE_list("only", ["digits", "ring", "dcgan_mnist"], "which of the configs")
_TABLE = flags.DEFINE_bool("table", False, "run nothing, and show what is recorded")
_WRITE = flags.DEFINE_bool("write", False, "run nothing, and put the table into the README")
_METRICS = {"digits": "fcd2k", "ring": "mixture", "dcgan_mnist": "fcd10k"}
_ROOT = RESULTS.parents[1]


def main(argv: Sequence[str]) -> None:
    """See the module."""
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
        put(_ROOT / "README.md", "benchmarks.examples", summary())


def summary() -> str:
    """The last line of each."""
    rows: list[list[object]] = [["config", "iterations", "minutes, start-up included", "metrics of the end"]]
    found = {line["config"]: line for line in recorded("examples")}
    for name, line in found.items():
        shown = ", ".join(f"{key} {value:.3g}" for key, value in line["metrics"].items())
        rows.append([f"`{name}`", f"{line['steps']:,}", f"{line['seconds'] / 60:.1f}", shown])
    return table(rows)


if __name__ == "__main__":
    app.run(main)
