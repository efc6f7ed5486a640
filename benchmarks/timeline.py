"""A profile of one second of training: a timeline of the threads, and the share of each kind of work.

Profiles the whole training loop on the default config (digits), and the DCGAN step of `benchmarks.steps`, with JAX's
profiler for about a second after a warm-up. On CPUs XLA names only the thread on which an operation starts. The parts
that other threads execute in parallel have no name, and appear as gaps.

python -m benchmarks.timeline      appends to results/timeline.jsonl and draws docs/images/timeline.png
"""

import collections
import pathlib
import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import matplotlib
from absl import app, flags, logging

from benchmarks import step_cases
from benchmarks.loop import Bench
from benchmarks.measure import record, table
from experiments.configs import digits

_DRAWN = flags.DEFINE_float("drawn", 1.0, "seconds to profile and draw", lower_bound=0.01)
PICTURE = pathlib.Path(__file__).parents[1] / "docs" / "images" / "timeline.png"
PRODUCTS, SUMS, MOVES, LOOPS, HOST = (
    "matrix products and convolutions", "sums", "loops that also move data", "other loops", "Python and dispatch"
)  # fmt: skip
COLOURS = {PRODUCTS: "#1f6f8b", SUMS: "#e0a030", MOVES: "#c05640", LOOPS: "#8a9a5b", HOST: "#555555"}
_MOVING = {"concatenate", "pad", "transpose", "slice", "gather", "dynamic-slice", "dynamic-update-slice", "copy"}
_CONTAINERS = ("ThunkExecutor", "while", "call", "conditional", "SlinkyThreadPool", "ThreadpoolListener", "end: ")


class Event(NamedTuple):
    """An interval of a thread's time, in seconds from the first matrix product."""

    thread: str
    kind: str
    start: float
    length: float


def kinds(program: str) -> dict[str, str]:
    """Classifies the operations of a compiled program by the instructions inside them.

    Args:
      program: XLA's text of the compiled program.

    Returns:
      The kind of each operation, by its name.
    """
    inside: dict[str, set[str]] = collections.defaultdict(set)
    calls: dict[str, tuple[str, str]] = {}
    computation = ""
    for line in program.splitlines():
        if head := re.match(r"(?:ENTRY )?%([\w.-]+) \(.*\) -> .* \{", line):
            computation = head[1]
        elif instruction := re.match(r"\s+(?:ROOT )?%([\w.-]+) = (?:\(.*?\)|\S+) ([\w-]+)\(", line):
            called = re.search(r"calls=%([\w.-]+)", line)
            inside[computation].add(instruction[2])
            calls[instruction[1]] = (called[1] if called else "", instruction[2])
    found = {}
    for name, (body, opcode) in calls.items():
        opcodes = inside[body] | {opcode}
        if opcodes & {"dot", "convolution"}:
            found[name] = PRODUCTS
        elif opcodes & {"reduce", "reduce-window"}:
            found[name] = SUMS
        else:
            found[name] = MOVES if opcodes & _MOVING else LOOPS
    return found


def profiled(run: Callable[[], None], program: str, seconds: float) -> list[Event]:
    """Profiles a run; returns the events of its first seconds, counted from the first matrix product, by thread."""
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level, options.host_tracer_level = 0, 3
    with tempfile.TemporaryDirectory() as directory:
        with jax.profiler.trace(directory, profiler_options=options):
            run()
        [file] = pathlib.Path(directory).rglob("*.xplane.pb")
        events = list(_events(jax.profiler.ProfileData.from_file(str(file)), kinds(program)))
    begin = min(event.start for event in events if event.kind == PRODUCTS)
    moved = [event._replace(start=event.start - begin) for event in events]
    return sorted(event for event in moved if 0 <= event.start < seconds)


def _events(profile: Any, kind_of: dict[str, str]) -> Iterator[Event]:
    for plane in profile.planes:
        for line in plane.lines:
            host = line.name == "python"
            for event in line.events:
                if event.name.startswith(_CONTAINERS) or (not host and event.name not in kind_of):
                    continue
                kind = HOST if host else kind_of[event.name]
                yield Event(line.name, kind, event.start_ns / 1e9, event.duration_ns / 1e9)


def shares(events: Sequence[Event]) -> dict[str, float]:
    """Returns the total seconds of each kind of work."""
    total = dict.fromkeys(COLOURS, 0.0)
    for event in events:
        total[event.kind] += event.length
    return total


def training() -> tuple[list[Event], str]:
    """Profiles the training loop of the default config, including reports, sample grids and checkpoints."""
    config = digits.get_config()
    config.steps = 1000
    bench = Bench(digits.build(config))
    bench.loop()
    text: Any = bench.program.run  # the compiled program
    return profiled(bench.loop, text.as_text(), _DRAWN.value), "digits, in the training loop"


def dcgan() -> tuple[list[Event], str]:
    """Profiles the DCGAN step that `benchmarks.steps` compares with PyTorch."""
    case = step_cases.CASES["dcgan"]
    run, compiled = step_cases.program(case, case.game("float32"), case.length)
    run()
    return profiled(run, compiled.as_text() or "", _DRAWN.value), "DCGAN 32x32, width 64, batch 64"


def draw(runs: Sequence[tuple[list[Event], str]]) -> None:
    """Draws, for each run, the whole timeline, its first milliseconds enlarged, and the shares of each kind."""
    matplotlib.use("agg")
    from matplotlib import pyplot  # noqa: PLC0415 - must follow the choice of the backend

    figure, axes = pyplot.subplots(3, len(runs), figsize=(15, 7), height_ratios=(1, 1, 1.1), squeeze=False)
    for column, (events, title) in enumerate(runs):
        threads = sorted({event.thread for event in events}, key=lambda name: (name != "python", name))
        zoom = 0.015 if column == 0 else 0.13
        for axis, limit in ((axes[0, column], _DRAWN.value), (axes[1, column], zoom)):
            for row, thread in enumerate(threads):
                for kind, colour in COLOURS.items():
                    spans = [(e.start, e.length) for e in events if e.thread == thread and e.kind == kind]
                    axis.broken_barh(spans, (row - 0.4, 0.8), color=colour, linewidth=0)
            names = ["Python" if thread == "python" else f"worker {row}" for row, thread in enumerate(threads)]
            axis.set(xlim=(0, limit), yticks=range(len(threads)), yticklabels=names)
            axis.invert_yaxis()
        axes[0, column].set_title(title)
        axes[1, column].set_xlabel(f"seconds; below, the first {zoom * 1e3:.0f} ms of the same")
        total = shares(events)
        whole = sum(total.values())
        axes[2, column].barh(range(len(total)), [x / whole * 100 for x in total.values()], color=list(COLOURS.values()))
        axes[2, column].set(yticks=range(len(total)), yticklabels=list(total), xlabel="% of the named time")
        axes[2, column].invert_yaxis()
    figure.tight_layout()
    figure.savefig(PICTURE, dpi=80)


def main(argv: Sequence[str]) -> None:
    """Profiles both runs, records the shares and draws the picture."""
    del argv
    logging.set_verbosity(logging.ERROR)  # Orbax logs verbosely
    runs = [training(), dcgan()]
    rows: list[list[Any]] = [["run", *COLOURS]]
    for events, title in runs:
        total = shares(events)
        record("timeline", {"what": title, "seconds": _DRAWN.value, "shares": total})
        rows.append([title, *(f"{x / sum(total.values()):.1%}" for x in total.values())])
    draw(runs)
    print(table(rows))


if __name__ == "__main__":
    app.run(main)
