"""Time from the start of a run to its first report, with an empty compilation cache and with a filled one.

Each start is a separate process of `experiments.train`, on the default config and on the ring. It is timed from outside
until it prints its first report, which follows the first dispatch.

python -m benchmarks.startup       appends to results/startup.jsonl
"""

import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any

from absl import app, flags

from benchmarks.measure import record, table

_ROUNDS = flags.DEFINE_integer("rounds", 3, "number of cold and warm starts of each config", lower_bound=1)
CONFIGS = ("digits", "ring")
_ROOT = pathlib.Path(__file__).parents[1]


def seconds_to_first_report(config: str, cache: pathlib.Path, workdir: pathlib.Path) -> tuple[float, float]:
    """Starts a run of one dispatch; returns the seconds to its first report, and how many of these were compiling."""
    every = [f"--config.{name}=10" for name in ("steps", "steps_per_dispatch", "report_every", "checkpoint_every")]
    command = [
        sys.executable, "-m", "experiments.train", f"--config=experiments/configs/{config}.py", f"--workdir={workdir}",
        f"--compilation_cache={cache}", "--config.sample_every=0", *every,
    ]  # fmt: skip
    began, compiling = time.perf_counter(), 0.0
    process = subprocess.Popen(command, cwd=_ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    output, taken = "", 0.0
    for line in process.stdout:
        output += line
        if line.startswith("compiled in "):
            compiling = float(line.split()[2])
        if line.startswith("step 10/10") and not taken:
            taken = time.perf_counter() - began
    if process.wait() or not taken:
        raise RuntimeError(f"{' '.join(command)} failed:\n{output}")
    return taken, compiling


def main(argv: Sequence[str]) -> None:
    """Runs the benchmark."""
    del argv
    rows: list[list[Any]] = [["config", "cold, s", "of which compiling", "warm, s", "of which compiling"]]
    for config in CONFIGS:
        starts: dict[str, list[tuple[float, float]]] = {"cold": [], "warm": []}
        for _ in range(_ROUNDS.value):
            with tempfile.TemporaryDirectory() as directory:
                for name, times in starts.items():
                    here = pathlib.Path(directory)
                    times.append(seconds_to_first_report(config, here / "cache", here / name))
        middle = {name: sorted(times)[len(times) // 2] for name, times in starts.items()}
        record("startup", {"config": config, "seconds": starts, "median": middle})
        rows.append([config, *middle["cold"], *middle["warm"]])
        print(rows[-1], flush=True)
    print(table(rows))


if __name__ == "__main__":
    app.run(main)
