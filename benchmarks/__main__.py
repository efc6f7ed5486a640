"""All speed benchmarks, one after the other, and a table that compares their results with the goals.

Each benchmark runs in its own process and appends to `results/`. If one fails, the others still run, and the failed
ones are listed at the end. The table is made from the newest lines in `results/`. Needs the extra `bench`.

python -m benchmarks                     runs all benchmarks: about an hour on two cores
python -m benchmarks --only=loop,steps   runs some of them
python -m benchmarks --table             runs nothing: prints the table of the recorded results
python -m benchmarks --write             runs nothing: writes that table into docs/speed.md
"""

import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from absl import app, flags

from benchmarks.measure import RESULTS, put, recorded, table

NAMES = ("convolutions", "steps", "loop", "startup", "phases", "population", "timeline")
_ONLY = flags.DEFINE_list("only", list(NAMES), "names of the benchmarks to run")
_TABLE = flags.DEFINE_bool("table", False, "run nothing: print the table of the recorded results")
_WRITE = flags.DEFINE_bool("write", False, "run nothing: write that table into docs/speed.md")
Line = dict[str, Any]


class Goal(NamedTuple):
    """A row of the table.

    Attributes:
      what: quantity that is measured.
      wanted: the goal, as text.
      benchmark: name of the benchmark whose recorded lines contain the quantity.
      find: `lines -> (value, floor, met)`: value and floor as text, and whether the goal is met. It raises KeyError or
        ValueError if the lines do not contain the quantity.
    """

    what: str
    wanted: str
    benchmark: str
    find: Callable[[list[Line]], tuple[str, str, bool]]


def newest(lines: Sequence[Line], **fields: Any) -> Line:
    """Returns the last line whose fields have these values; raises KeyError if there is none."""
    found = [line for line in lines if all(line.get(name) == value for name, value in fields.items())]
    if not found:
        raise KeyError(fields)
    return found[-1]


def step(case: str, goal: float, others: Sequence[str]) -> Callable[[list[Line]], tuple[str, str, bool]]:
    """Makes a `Goal.find` for a step's speed: how many times as fast it is as the fastest of the others in that run."""

    def find(lines: list[Line]) -> tuple[str, str, bool]:
        line = newest(lines, case=case, dtype="float32")
        ratio, fastest = min((line["ratios"][name], name) for name in others if name in line["ratios"])
        ours = line["milliseconds"]["gan_jax"]["median"]
        return (
            f"{ratio:.2f} times ({ours:.3g} ms; {fastest})",
            f"{line['floor_ms']:.3g} ms; direct {line['direct_floor_ms']:.3g} ms",
            ratio >= goal,
        )

    return find


def headline(lines: list[Line]) -> tuple[str, str, bool]:
    """Finds the smallest speedup over all shapes, in a loop and alone."""
    newer = {line["shape"]: line for line in lines if line.get("what") == "gradient of conv_transpose"}
    worst = min(newer.values(), key=lambda line: line["ratio"], default=None)
    if worst is None:
        raise KeyError("shape")
    shown = f"{worst['ratio']:.1f} times or more ({worst['milliseconds']['ours']['median']:.2g} ms, {worst['shape']})"
    return shown, f"{worst['floor_ms']:.2g} ms", worst["ratio"] >= 5


def overhead(lines: list[Line]) -> tuple[str, str, bool]:
    """Finds the share of time that the training loop adds to a step."""
    value = newest(lines)["overhead"]
    return f"{value:.1%}", "0", value < 0.03


def input_wait(lines: list[Line]) -> tuple[str, str, bool]:
    """Finds the share of time that is spent waiting for input."""
    value = newest(lines)["input_wait"]
    return f"{value:.2%}", "0", value < 0.01


def population(lines: list[Line]) -> tuple[str, str, bool]:
    """Finds the race of one population against sequential runs, on CPUs."""
    return _race([line for line in lines if line["machine"]["device"] == "cpu"], 4)


def population_accelerated(lines: list[Line]) -> tuple[str, str, bool]:
    """Finds the race of one population against sequential runs, on an accelerator."""
    return _race([line for line in lines if line["machine"]["device"] != "cpu"], 10)


def _race(lines: list[Line], goal: float) -> tuple[str, str, bool]:
    found = [line for line in lines if "race" in line and line.get("game", "ring") == "ring"]
    if not found:
        raise KeyError("race")
    seconds = found[-1]["seconds"]["together"][0]
    told = f"{found[-1]['ratio']:.2f} times ({seconds:.0f} s, {found[-1]['machine']['device']})"
    return told, "", found[-1]["ratio"] >= goal


def second_start(lines: list[Line]) -> tuple[str, str, bool]:
    """Finds the slowest config's time to the first report when the compiled program is in the cache."""
    warm = {line["config"]: line["median"]["warm"][0] for line in lines}
    slowest = max(warm, key=lambda config: warm[config])
    return f"{warm[slowest]:.1f} s ({slowest})", "", warm[slowest] <= 5


_TORCH = ("eager", "channels_last", "compiled")
GOALS = (
    Goal("DCGAN 32x32 step against PyTorch", "1.5 times as fast", "steps", step("dcgan", 1.5, _TORCH)),
    Goal("SNGAN-ResNet 32x32 step against PyTorch", "1.3 times as fast", "steps", step("sngan", 1.3, _TORCH)),
    Goal("small StyleGAN2 step against PyTorch", "1.3 times as fast", "steps", step("stylegan2", 1.3, _TORCH)),
    Goal("2-D ring step against PyTorch", "", "steps", step("ring", 1.0, _TORCH)),
    Goal("pix2pix 64x64 step against PyTorch", "as fast", "steps", step("pix2pix", 1.0, _TORCH)),
    Goal("CycleGAN 64x64 step against PyTorch", "as fast", "steps", step("cyclegan", 1.0, _TORCH)),
    Goal("wide MLP step against the Keras loop", "2.3 times as fast", "steps", step("wide_mlp", 2.3, ("keras",))),
    Goal("gradient of 4x4 stride-2 `lax.conv_transpose`", "5 times as fast", "convolutions", headline),
    Goal("overhead of the loop, digits", "below 3%", "loop", overhead),
    Goal("waiting for input, digits", "below 1%", "loop", input_wait),
    Goal("16 ring GANs of 5,000 steps together, against one by one", "4 times as fast", "population", population),
    Goal("the same on an accelerator", "10 times as fast", "population", population_accelerated),
    Goal("second start to the first report", "within 5 s", "startup", second_start),
)


def goals() -> str:
    """Makes the table of all goals, in Markdown."""
    rows: list[list[str]] = [["what", "goal", "figure", "floor", "met"]]
    for goal in GOALS:
        try:
            figure, floor, met = goal.find(recorded(goal.benchmark))
        except (KeyError, ValueError):
            figure, floor, met = "not measured", "", False
        rows.append([goal.what, goal.wanted, figure, floor, "yes" if met else "no"])
    return table(rows)


def main(argv: Sequence[str]) -> None:
    """Runs the benchmarks, and prints or writes the table."""
    del argv
    unknown = set(_ONLY.value) - set(NAMES)
    if unknown:
        raise SystemExit(f"--only={','.join(sorted(unknown))}: expected some of {', '.join(NAMES)}")
    failed = []
    for name in () if _TABLE.value or _WRITE.value else _ONLY.value:
        began = time.monotonic()
        print(f"--- benchmarks.{name}", flush=True)
        if subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], check=False).returncode:
            failed.append(name)
        print(f"--- took {time.monotonic() - began:.0f} s", flush=True)
    print(goals())
    if _WRITE.value:
        put(RESULTS.parents[1] / "docs" / "speed.md", "benchmarks", goals())
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}; see above")


if __name__ == "__main__":
    app.run(main)
