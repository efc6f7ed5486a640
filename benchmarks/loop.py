"""The overhead of the training loop over the compiled step: Python, dispatch, logs, sample grids, checkpoints, input.

Trains the default config, digits at batch size 64, as `experiments.train` does, and runs the same compiled program
alone; the two take turns. Overhead is the additional time of the loop. Input wait is the time that the loop spends on
getting the indices of each dispatch.

python -m benchmarks.loop          appends to results/loop.jsonl
"""

import dataclasses
import pathlib
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from typing import Any

import jax
from absl import app, flags, logging

from benchmarks.measure import in_turn, milliseconds, ratio, record
from experiments.configs import digits
from gan_jax import runtime
from gan_jax.distributed import hosts
from gan_jax.distributed.signals import StopRequest
from gan_jax.runtime.checkpoint import Checkpointer
from gan_jax.runtime.logging import Logger
from gan_jax.runtime.loop import Loop
from gan_jax.runtime.program import Start, build_program, build_start
from gan_jax.runtime.progress import Progress

_STEPS = flags.DEFINE_integer(
    "steps", 6000, "iterations per turn; the default is the config's number", lower_bound=1000
)
_TURNS = flags.DEFINE_integer("turns", 3, "number of turns of the loop and of the step alone", lower_bound=1)


class Bench:
    """The training loop and the bare compiled program, both from the same initial state."""

    def __init__(self, experiment: runtime.Experiment) -> None:
        self.experiment, self.mesh = experiment, runtime.make_mesh()
        source = experiment.open_source()
        with jax.set_mesh(self.mesh):
            self.start: Start = build_start(experiment, source.spec, self.mesh)
            self.program = build_program(experiment, source, self.mesh, self.start)
        self.waits: list[float] = []  # seconds of waiting for input, for each run of the loop
        self.dispatches = list(self._first(experiment.steps // self.program.length))

    def _first(self, count: int) -> Iterator[Any]:
        stream = self.program.stream(0)
        for _ in range(count):
            yield next(stream)

    def bare(self) -> None:
        """Runs all dispatches of the run, one after the other, without the loop."""
        with jax.set_mesh(self.mesh):
            carried = self.start.init()
            state, accumulator = carried["state"], carried["window"]
            for inputs in self.dispatches:
                state, accumulator = self.program.run(state, accumulator, self.program.data, inputs)
            jax.block_until_ready((state, accumulator))

    def _timed(self, step: int) -> Iterator[Any]:
        stream = self.program.stream(step)
        while True:
            began = time.perf_counter()
            inputs = next(stream)
            self.waits[-1] += time.perf_counter() - began
            yield inputs

    def loop(self) -> None:
        """Runs the whole training loop, as users do, in a temporary workdir."""
        self.waits.append(0.0)
        program = dataclasses.replace(self.program, stream=self._timed)
        with tempfile.TemporaryDirectory() as directory, jax.set_mesh(self.mesh):
            workdir = pathlib.Path(directory)
            logger, vote = Logger(workdir, 0), hosts.Vote(self.mesh)
            with Checkpointer(workdir / "checkpoints", keep_last=3, every=1000, about=self.experiment.about()) as saver:
                quiet = lambda text: None  # noqa: E731
                progress = Progress(0, self.experiment.steps, quiet)
                loop = Loop(
                    self.experiment, program, saver, logger, StopRequest(), vote, runtime.Watchdog(), quiet, progress
                )
                status, _, carried = loop.run(0, self.start.init())
                saver.wait()
                jax.block_until_ready(carried)
            logger.close()
            assert status == "done", status


def main(argv: Sequence[str]) -> None:
    """Runs the benchmark."""
    del argv
    logging.set_verbosity(logging.ERROR)  # Orbax logs verbosely
    config = digits.get_config()
    config.steps = _STEPS.value
    bench = Bench(digits.build(config))
    taken = in_turn({"bare": bench.bare, "loop": bench.loop}, rounds=_TURNS.value, seconds=0.0, warm=False)
    overhead = ratio(taken, "loop", "bare") - 1
    times = {name: {key: x / _STEPS.value for key, x in value.items()} for name, value in milliseconds(taken).items()}
    waited = statistics.median(bench.waits) / (times["loop"]["median"] * _STEPS.value / 1e3)
    line = {"milliseconds_per_step": times, "overhead": overhead, "input_wait": waited, "steps": _STEPS.value}
    record("loop", line)
    print(f"a step alone {times['bare']['median']:.3f} ms, in the loop {times['loop']['median']:.3f} ms")
    print(f"overhead {overhead:.1%} (goal: below 3%), waiting for input {waited:.2%} (goal: below 1%)")


if __name__ == "__main__":
    app.run(main)
