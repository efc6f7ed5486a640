"""The training loop: runs dispatches, reports, samples and saves, until the end, a signal, or a divergence."""

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
_GRID_KEY = 0xFFFF5A3B  # above every int32 step, so no iteration folds it in; all grids show the same latents


@dataclasses.dataclass
class Loop:
    """One pass of training, from a start step to an end. All processes of a run execute it in lockstep.

    Attributes:
      diverged: step of a divergence, and what was not finite; the text is empty without a divergence.
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
        """Trains until the end, a signal, or a divergence.

        Args:
          step: iterations done before.
          carried: state, and what is carried with it (see `Start`); the state is donated.

        Returns:
          How the pass ended (`DONE`, `STOPPED` or `DIVERGED`), iterations done, and what is carried then.
        """
        settings, program = self.experiment, self.program
        state, accumulator = carried["state"], carried["window"]
        nothing = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), accumulator)
        empty = meshes.put_replicated(nothing, program.mesh)
        pace = Pace(step, settings.steps, settings.batch_size)
        due: list[Callable[[], Any]] = []  # callbacks by which the host completes its work on the last dispatch
        for inputs in program.stream(step):
            previous = accumulator
            state, accumulator = program.run(state, accumulator, program.data, inputs)
            step += program.length
            self.finish(due)  # the host works while the devices run this dispatch
            if self.diverged[1]:
                return DIVERGED, self.diverged[0], carried
            jax.block_until_ready(previous)  # the host prepares the next dispatch, but is never further ahead
            self.checkpointer.check()
            self.watchdog.beat(f"running up to step {step:,}")
            self.progress.move(step)
            carried = carried | {"state": state, "window": accumulator}
            last = step >= settings.steps
            stopping = hosts.preempted() | self.vote.cast(self.stop.asked)  # not `or`: all processes must call both
            if last or step % settings.report_every == 0:
                due.append(self.report(step, state, accumulator, pace, self.evaluate(step, state)))
                carried["window"] = accumulator = empty
            if settings.sample_every and (last or step % settings.sample_every == 0):
                due.append(self.sample(step, state))
            scheduled = last or step % settings.checkpoint_every == 0
            if scheduled or stopping:
                measured, finite = self.finish(due), all_finite(carried)
                # Where only a signal looks, it changes nothing: a divergence is left to be found where it would be
                # without the signal, and nothing is compared, as a run that is not stopped has no checkpoint there.
                if scheduled and not self.diverged[1] and not finite:
                    self.diverge(step, "a parameter, an optimiser's moment or a metric")
                if finite and not self.diverged[1]:
                    self.logger.flush()
                    self.checkpointer.save(step, carried, measured if scheduled else None)
            if self.diverged[1]:
                return DIVERGED, self.diverged[0], carried
            if last:
                return DONE, step, carried
            if stopping:
                how = f"after saving step {step:,}" if finite else f"at step {step:,}, not saved since it is not finite"
                self.log(f"stopped by {self.stop.name} {how}")
                return STOPPED, step, carried
        raise AssertionError("a data source ended; they are endless")

    def finish(self, due: list[Callable[[], Any]]) -> dict[str, Any] | None:
        """Runs the callbacks that are due, but none after a divergence; returns the log line if there was one."""
        record = None
        while due:
            task = due.pop(0)
            record = task() or record
            if self.diverged[1]:
                due.clear()
        return record

    def evaluate(self, step: int, state: GANState) -> dict[str, float]:
        """Computes metrics of samples if they are due; training waits for them.

        A state that is not finite has none. The checks that follow detect the divergence and handle it.
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
        """Starts the measurement on the devices, and returns a callback that logs it and prints a progress line.

        If a metric is not finite, the callback notes a divergence instead.
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
        """Notes and logs a divergence."""
        self.diverged = (step, what)
        self.log(f"step {step:,}: not finite: {what}")

    def grid_key(self) -> jax.Array:
        """Returns the key of the fixed latents."""
        return jax.random.fold_in(jax.random.key(self.experiment.seed), _GRID_KEY)

    def sample(self, step: int, state: GANState) -> Callable[[], None]:
        """Starts a grid of samples, always from the same latents, and the previews; returns a callback to save them."""
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
