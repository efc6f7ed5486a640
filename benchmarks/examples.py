"""The runs that the README shows: how long they take here, start-up included, what they reach, and their pictures.

Trains `digits`, `ring` and `dcgan_mnist` as the README has them, each by `experiments.train`, and evaluates the end.

python -m benchmarks.examples --data_dir=DIR               appends to results/examples.jsonl, and draws docs/images/
python -m benchmarks.examples --data_dir=DIR --only=ring   one of them
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

from benchmarks.measure import RESULTS, record, table

_DATA = flags.DEFINE_string("data_dir", "", "where TFDS prepared mnist")
_ONLY = flags.DEFINE_list("only", ["digits", "ring", "dcgan_mnist"], "which of the configs")
_METRICS = {"digits": "fcd2k", "ring": "mixture", "dcgan_mnist": "fcd10k"}
_ROOT = RESULTS.parents[1]


def main(argv: Sequence[str]) -> None:
    """See the module."""
    del argv
    rows: list[list[object]] = [["config", "minutes", "metrics at the end"]]
    for name in _ONLY.value:
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
        shown = ", ".join(f"{key} {value:.4g}" for key, value in evaluated["metrics"].items())
        rows.append([name, round(seconds / 60, 1), shown])
    print(table(rows))


if __name__ == "__main__":
    app.run(main)
