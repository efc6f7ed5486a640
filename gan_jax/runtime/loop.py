"""The loop: run a dispatch, report, sample, save, until the end, a signal, or divergence."""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from gan_jax.core import GANState, MetricAccumulator, accumulator_means
from gan_jax.distributed import hosts
from gan_jax.distributed import mesh as meshes
from gan_jax.distributed.signals import StopRequest
from gan_jax.distributed.watchdog import Watchdog
from gan_jax.runtime.checkpoint import Checkpointer
from gan_jax.runtime.evaluation import Evaluator
from gan_jax.runtime.experiment import EVALUATED, Experiment
from gan_jax.runtime.health import all_finite, diversity, moving
from gan_jax.runtime.logging import Pace, Silent
from gan_jax.runtime.program import Carried, Program
from gan_jax.runtime.progress import Progress
from gan_jax.runtime.sampling import begin_pictures, stream_samples

DONE, STOPPED, DIVERGED = "done", "stopped", "diverged"
_GRID_KEY = 0xFFFF5A3B  # above every int32 step; all grids of a run show the same latents


@dataclasses.dataclass
class Loop:
    """One pass from a start to an end; every process of the run makes it in step.

    Attributes:
      diverged: after a divergence, at which step, and what was not finite.
    """

    experiment: Experiment
    program: Program
    checkpointer: Checkpointer
    logger: Silent
    stop: StopRequest
    vote: hosts.Vote
    watchdog: Watchdog
    log: Callable[[str], None]
    progress: Progress
    evaluator: Evaluator | None = None
    diverged: tuple[int, str] = (0, "")

    def run(self, step: int, carried: Carried) -> tuple[str, int, Carried]:
        """Runs to the end, a signal, or divergence.

        Args:
          step: iterations done.
          carried: the state and what goes with it; donated.

        Returns:
          How it ended, iterations done, and what is carried there.
        """
        settings, program = self.experiment, self.program
        state, accumulator = carried["state"], carried["window"]
        nothing = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), accumulator)
        empty = meshes.put_replicated(nothing, program.mesh)
        pace = Pace(step, settings.steps, settings.batch_size)
        due: list[Callable[[], Any]] = []  # what the host has yet to do about the last dispatch
        for inputs in program.stream(step):
            previous = accumulator
            state, accumulator = program.run(state, accumulator, program.data, inputs)
            step += program.length
            self.finish(due)  # while the devices run this dispatch
            if self.diverged[1]:
                return DIVERGED, self.diverged[0], carried
            jax.block_until_ready(previous)  # one dispatch runs while the next is prepared, and no more
            self.checkpointer.check()
            self.watchdog.beat(f"running up to step {step:,}")
            self.progress.move(step)
            carried = carried | {"state": state, "window": accumulator}
            last = step >= settings.steps
            stopping = hosts.preempted() | self.vote.cast(self.stop.asked)
            if last or step % settings.report_every == 0:
                due.append(self.report(step, state, accumulator, pace, self.evaluate(step, state)))
                carried["window"] = accumulator = empty
            if settings.sample_every and (last or step % settings.sample_every == 0):
                due.append(self.sample(step, state))
            if last or stopping or step % settings.checkpoint_every == 0:
                measured = self.finish(due)
                if not self.diverged[1] and not all_finite(carried):
                    self.diverge(step, "a parameter, an optimiser's moment or a metric")
                if not self.diverged[1]:
                    self.checkpointer.save(step, carried, measured)
            if self.diverged[1]:
                return DIVERGED, self.diverged[0], carried
            if last:
                return DONE, step, carried
            if stopping:
                self.log(f"stopped by {self.stop.name} after saving step {step:,}")
                return STOPPED, step, carried
        raise AssertionError("a data source ended; they are endless")

    def finish(self, due: list[Callable[[], Any]]) -> dict[str, Any] | None:
        """Does what is due, and nothing after a divergence; returns the line of the log if there was one."""
        record = None
        while due:
            task = due.pop(0)
            record = task() or record
            if self.diverged[1]:
                due.clear()
        return record

    def evaluate(self, step: int, state: GANState) -> dict[str, float]:
        """Metrics of samples, where they are due; training waits for them.

        Of a state that is not finite there are none: what is due next finds that out, and decides what becomes of it.
        """
        settings = self.experiment
        if (
            self.evaluator is None
            or (step < settings.steps and step % settings.evaluate_every)
            or not all_finite(state)
        ):
            return {}
        values = self.evaluator(functools.partial(stream_samples, settings, state, settings.seed))
        return {f"{EVALUATED}{name}": value for name, value in values.items()}

    def report(
        self, step: int, state: GANState, accumulator: MetricAccumulator, pace: Pace, measured: dict[str, float]
    ) -> Callable[[], dict[str, Any]]:
        """Begins to measure; what it returns writes a line of the log, and one for the person watching.

        It notes a divergence instead where a metric is not finite.
        """
        spread = diversity(self.experiment, state, self.grid_key())
        moved = moving(self.experiment.game, state)

        def write() -> dict[str, Any]:
            means = accumulator_means(accumulator) | ({} if spread is None else {"samples/diversity": float(spread)})
            means |= {name: float(value) for name, value in moved.items()}
            images, rate, eta = pace.measure(step)
            record = {"step": step, "images": images, "images_per_second": round(rate, 1), **means}
            bad = sorted(name for name, value in means.items() if not math.isfinite(value))
            if bad:
                self.diverge(step, ", ".join(bad))
                return record
            record |= measured
            self.logger.report(record)
            losses = {name: value for name, value in means.items() if name.endswith("/loss")}
            self.progress.report(step, (images, rate, eta), losses, measured)
            return record

        return write

    def diverge(self, step: int, what: str) -> None:
        """Notes a divergence."""
        self.diverged = (step, what)
        self.log(f"step {step:,}: not finite: {what}")

    def grid_key(self) -> jax.Array:
        """The key of the fixed latents."""
        return jax.random.fold_in(jax.random.key(self.experiment.seed), _GRID_KEY)

    def sample(self, step: int, state: GANState) -> Callable[[], None]:
        """Begins a grid of samples, from the same latents every time, and the previews; what it returns saves them."""
        shown = begin_pictures(self.experiment, state, self.grid_key())

        def save() -> None:
            if hosts.is_primary():
                paths = [
                    self.logger.picture(self.experiment.preview(np.asarray(images), columns), step, name)
                    for name, (images, columns) in shown.items()
                ]
                beside = f", and {', '.join(list(shown)[1:])} beside it" if paths[1:] else ""
                self.log(f"samples in {paths[0]}{beside}")

        return save
