"""Logs of a run's numbers and pictures: JSON lines, TensorBoard, Weights & Biases, and a callback."""

import json
import pathlib
import secrets
import tempfile
import time
from collections.abc import Callable
from typing import Any, TypedDict

import numpy as np
from PIL import Image

from gan_jax import buckets
from gan_jax.buckets import BucketPath
from gan_jax.host import append_line, read_lines, read_log, replacing, write_log
from gan_jax.runtime import progress
from gan_jax.runtime.board import BOARD, open_board
from gan_jax.runtime.film import Film
from gan_jax.types import InvalidInputError

Watch = Callable[[dict[str, Any]], None]  # is called with each line of a log, once it is written


class Step(TypedDict):
    """What every line of a log has."""

    step: int


LogLine = (Step, dict[str, float])  # form of a line of `metrics.jsonl`, for `read_lines`
REPAIR_LINE = "repair or remove the line"


def keep_until(path: pathlib.Path, step: int, form: Any, *, writes: bool = True) -> list[Any]:
    """Returns the lines of a log up to a step, and removes the others, and an incomplete last one, from the file.

    Args:
      path: path of a file of JSON lines, each with its `step`; it need not exist.
      step: last step to keep.
      form: form of a line.
      writes: whether to change the file.
    """
    lines = read_lines(path, form, remedy=REPAIR_LINE)
    kept = [line for line in lines if line["step"] <= step]
    if writes and path.exists() and (len(kept) < len(lines) or not read_log(path).endswith(b"\n")):
        write_log(path, "".join(json.dumps(line) + "\n" for line in kept).encode())
    return kept


class Silent:
    """A logger that writes nothing, used by every process but the first; it still calls `watch`."""

    def __init__(self, watch: Watch = lambda record: None) -> None:
        self.last: dict[str, Any] = {}
        self._watch = watch

    def report(self, record: dict[str, Any]) -> None:
        """Remembers the line, and passes it to `watch`."""
        self.last = record
        self._watch(record)

    def picture(self, picture: Image.Image | Film, step: int, name: str = "") -> pathlib.Path:
        """Saves nothing; returns the file name that the picture would have."""
        del picture
        return pathlib.Path(f"{name or 'step'}_{step:08d}.png")

    def flush(self) -> None:
        """Does nothing: there is nothing to flush."""

    def close(self) -> None:
        """Does nothing: there is nothing to close."""


class Logger(Silent):
    """Appends to `metrics.jsonl`, TensorBoard and, if requested, Weights & Biases; saves pictures.

    On resume, lines after the restored step are removed, because those iterations run, and are logged, again.
    """

    def __init__(
        self,
        workdir: pathlib.Path,
        step: int,
        *,
        wandb_project: str = "",
        config: Any = None,
        watch: Watch = lambda record: None,
        log: Callable[[str], None] = progress.log,
    ) -> None:
        """Opens the logs of a run. Without the package tensorboardX there are no files for TensorBoard.

        Args:
          workdir: workdir of the run.
          step: step that the run continues from.
          wandb_project: Weights & Biases project to log to; empty for none.
          config: configuration, as a mapping, that is logged to Weights & Biases and to TensorBoard.
          watch: is called with each line of the log.
          log: receives messages for the user.
        """
        super().__init__(watch)
        self._path = workdir / "metrics.jsonl"
        self._samples = workdir / "samples"
        self._samples.mkdir(exist_ok=True)
        kept = keep_until(self._path, step, LogLine)
        self.last = kept[-1] if kept else {}
        self._board = open_board(workdir / BOARD, step + 1, log)
        if self._board is not None and config:
            known = dict(config)
            self._board.describe(workdir.name, known, step, later=[known.get("best_metric") or "samples/diversity"])
        self._wandb = _start_wandb(workdir, wandb_project, config) if wandb_project else None

    def report(self, record: dict[str, Any]) -> None:
        """Writes one line of the log. The line is on disk before `watch` is called."""
        append_line(self._path, record)
        if self._board is not None:
            for name, value in record.items():
                if isinstance(value, int | float) and name != "step":
                    self._board.writer.add_scalar(name, value, record["step"])
            self._board.flush()
        if self._wandb is not None:
            self._wandb.log(record)
        super().report(record)

    def picture(self, picture: Image.Image | Film, step: int, name: str = "") -> pathlib.Path:
        """Saves a grid of samples as `samples/step_*.png`, or another picture as `samples/NAME_*.png`.

        A picture that moves is saved as `.webp` beside its still one, which TensorBoard and Weights & Biases get.
        """
        path = self._samples / f"{name or 'step'}_{step:08d}.png"
        if isinstance(picture, Film):
            with replacing(path.with_suffix(".webp"), "wb") as file:
                picture.save(file, format="WEBP")
            picture = picture.still
        with replacing(path, "wb") as file:
            picture.save(file, format="png")
        if self._board is not None:
            self._board.writer.add_image(name or "samples", np.asarray(picture.convert("RGB")), step, dataformats="HWC")
        if self._wandb is not None:
            import wandb  # noqa: PLC0415 - an optional dependency

            self._wandb.log({name or "samples": wandb.Image(picture), "step": step})
        return path

    def flush(self) -> None:
        """Writes what is pending, before a checkpoint is saved."""
        if self._board is not None:
            self._board.flush(surely=True)

    def close(self) -> None:
        """Closes the logs, and writes what is pending."""
        if self._board is not None:
            self._board.close()
        buckets.settle()
        if self._wandb is not None:
            self._wandb.finish()


def _start_wandb(workdir: pathlib.Path, project: str, config: Any) -> Any:
    try:
        import wandb  # noqa: PLC0415 - an optional dependency
    except ImportError as error:
        raise InvalidInputError(
            f"wandb_project={project!r} needs the package wandb: pip install wandb, or leave it out"
        ) from error
    identity = workdir / "wandb_id"
    if not identity.exists():
        identity.write_text(secrets.token_hex(4), encoding="utf-8")
    place = tempfile.gettempdir() if isinstance(workdir, BucketPath) else str(workdir)
    run = wandb.init(project=project, id=identity.read_text(encoding="utf-8"), resume="allow", dir=place, config=config)
    run.define_metric("*", step_metric="step")  # wandb's own step counter cannot go back to a checkpoint
    return run


class Pace:
    """Throughput since the last report, and the time left at the mean speed of this process."""

    def __init__(self, step: int, steps: int, batch_size: int) -> None:
        self.first = self.step = step
        self.began = self.time = time.monotonic()
        self.steps, self.batch_size = steps, batch_size

    def measure(self, step: int) -> tuple[int, float, float]:
        """Returns the number of images so far, images per second, and seconds left."""
        now = time.monotonic()
        rate = (step - self.step) * self.batch_size / (now - self.time)
        eta = (now - self.began) / (step - self.first) * (self.steps - step)
        self.step, self.time = step, now
        return step * self.batch_size, rate, eta
