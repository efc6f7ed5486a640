"""The loop that trains an experiment: resume, run, report, save, stop."""

import contextlib
import dataclasses
import math
import pathlib
from collections.abc import Callable
from typing import Any

import jax

from gan_jax.core import GANState, window_means
from gan_jax.runtime import mesh
from gan_jax.runtime.checkpoint import Checkpointer, all_finite, state_sha256
from gan_jax.runtime.experiment import Experiment
from gan_jax.runtime.logging import Logger, Pace, duration, write_json
from gan_jax.runtime.preview import grid_columns
from gan_jax.runtime.program import Program, Start, build_start, compile_program, sample_grid
from gan_jax.runtime.signals import StopRequest, stop_signals

DONE, STOPPED, DIVERGED = "done", "stopped", "diverged"
_GRID_KEY = 0xFFFF5A3B  # above every int32 step; all grids of a run show the same latents


@dataclasses.dataclass(frozen=True)
class Result:
    """How a run ended; also what `result.json` holds.

    Attributes:
      status: `done`, `stopped` by a signal, or `diverged`.
      step: iterations done.
      images: iterations times batch size.
      state_sha256: of the final state; empty for a diverged run.
      metrics: the last line of the log.
      checkpoint: step of the last checkpoint; None if there is none.
    """

    status: str
    step: int
    images: int
    state_sha256: str
    metrics: dict[str, Any]
    checkpoint: int | None


def train(
    experiment: Experiment,
    workdir: pathlib.Path,
    *,
    say: Callable[[str], None] = print,
    wandb_project: str = "",
    config: Any = None,
) -> Result:
    """Trains an experiment to its end, from the newest checkpoint in `workdir` if there is one.

    Args:
      experiment: what to run.
      workdir: gets `checkpoints/`, `data.json`, `metrics.jsonl`, `samples/`, `tensorboard/` and `result.json`.
      say: gets the messages for the person watching.
      wandb_project: see `Logger`.
      config: see `Logger`.

    Returns:
      How it ended.

    Raises:
      InvalidInputError: for a batch size that the devices don't divide, or checkpoints of another game.
    """
    devices = mesh.make_mesh()
    mesh.check_batch_size(experiment.batch_size, devices)
    source = experiment.open_source()
    say(source.summary())
    workdir.mkdir(parents=True, exist_ok=True)
    shapes = {name: {"shape": list(x.shape), "dtype": str(x.dtype)} for name, x in source.spec.items()}
    write_json(workdir / "data.json", shapes)  # so that samples can be drawn without the data
    checkpointer = Checkpointer(
        workdir / "checkpoints", keep_last=experiment.keep_last, keep_every=experiment.keep_every
    )
    with jax.set_mesh(devices), stop_signals() as stop, contextlib.closing(checkpointer):
        start = build_start(experiment, source.spec, devices)
        restored = checkpointer.restore_latest(start.abstract, say)
        step, carried = (0, start.init()) if restored is None else restored
        if restored is not None:
            say(f"continuing from the checkpoint of step {step:,}")
        logger = Logger(workdir, step, wandb_project=wandb_project, config=config)
        with contextlib.closing(logger):
            run = _Run(experiment, checkpointer, logger, start, stop, say)
            (workdir / "result.json").unlink(missing_ok=True)  # what it tells is about to change
            if step < experiment.steps:
                program = compile_program(experiment, source, devices, start, step, say)
                status, step, state = run.iterate(program, step, carried["state"], carried["window"])
            else:
                status, state = DONE, carried["state"]
        checkpointer.wait()
        saved = checkpointer.steps()
    result = Result(
        status,
        step,
        step * experiment.batch_size,
        "" if status == DIVERGED else state_sha256(state),
        logger.last,
        saved[-1] if saved else None,
    )
    write_json(workdir / "result.json", dataclasses.asdict(result))
    return result


@dataclasses.dataclass
class _Run:
    experiment: Experiment
    checkpointer: Checkpointer
    logger: Logger
    start: Start
    stop: StopRequest
    say: Callable[[str], None]

    def iterate(
        self, program: Program, step: int, state: GANState, window: dict[str, jax.Array]
    ) -> tuple[str, int, GANState]:
        """Runs to the end, a signal, or divergence; returns status, step and state."""
        settings, empty = self.experiment, jax.tree.map(jax.numpy.zeros_like, window)
        pace = Pace(step, settings.steps, settings.batch_size)
        for inputs in program.stream(step):
            previous = window
            state, window = program.run(state, window, program.data, inputs)
            step += program.length
            jax.block_until_ready(previous)  # one dispatch runs while the next is prepared, and no more
            last, stopping = step >= settings.steps, self.stop.signal is not None
            if last or step % settings.report_every == 0:
                if not self.report(step, window_means(window), pace):
                    return DIVERGED, step, state
                window = empty
            if settings.sample_every and (last or step % settings.sample_every == 0):
                self.sample(step, state)
            if last or stopping or step % settings.checkpoint_every == 0:
                if not all_finite((state.players, window)):
                    self.say(f"step {step:,}: a parameter or a metric is not finite")
                    return DIVERGED, step, state
                self.checkpointer.save(step, {"state": state, "window": window})
            if last:
                return DONE, step, state
            if stopping:
                self.say(f"stopped by {self.stop.name} after saving step {step:,}")
                return STOPPED, step, state
        raise AssertionError("a data source ended; they are endless")

    def report(self, step: int, means: dict[str, float], pace: Pace) -> bool:
        """One line of the log and one for the person watching; false if a metric is not finite."""
        images, rate, eta = pace.measure(step)
        record = {"step": step, "images": images, "images_per_second": round(rate, 1), **means}
        losses = "  ".join(f"{name} {value:.4g}" for name, value in means.items() if name.endswith("/loss"))
        bad = sorted(name for name, value in means.items() if not math.isfinite(value))
        if bad:
            self.say(f"step {step:,}: not finite: {', '.join(bad)}")
            return False
        self.logger.report(record)
        total = self.experiment.steps
        self.say(f"step {step:,}/{total:,}  images {images:,}  {rate:,.0f} images/s  ETA {duration(eta)}  {losses}")
        return True

    def sample(self, step: int, state: GANState) -> None:
        """Saves a grid of samples from the same latents every time."""
        count = self.experiment.sample_count
        key = jax.random.fold_in(jax.random.key(self.experiment.seed), _GRID_KEY)
        samples = sample_grid(self.experiment, state, key, count)
        columns = grid_columns(count, self.experiment.game.num_classes)
        path = self.logger.picture(self.experiment.preview(samples, columns), step)
        self.say(f"samples in {path}")
