"""Files for TensorBoard: scalars, pictures, configs and hyperparameters."""

import os
import pathlib
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from gan_jax.buckets import BucketPath

BOARD = "tensorboard"  # directory in a workdir
_BOARD_SECONDS, _BOARD_BYTES = 30.0, 2**23  # between copies to a bucket; from which on another file is begun


def open_board(directory: pathlib.Path, purge_step: int | None, log: Callable[[str], None]) -> "Board | None":
    """Opens a new TensorBoard file; returns None, with a message, where tensorboardX is not installed."""
    try:
        return Board(directory, purge_step)
    except ImportError as error:  # images for accelerators may lack it
        log(f"no files for TensorBoard: {error}; metrics.jsonl and samples/ are complete (pip install tensorboardX)")
        return None


class Board:
    """TensorBoard files. For a bucket they are written on this machine's disk, and copied there now and then.

    Attributes:
      writer: writer of the newest file.
    """

    def __init__(self, directory: pathlib.Path, purge_step: int | None) -> None:
        from tensorboardX import SummaryWriter  # noqa: PLC0415 - see `open_board`

        self._writing, self._directory = SummaryWriter, directory
        self._copied = isinstance(directory, BucketPath)
        self._local = pathlib.Path(tempfile.mkdtemp(prefix="gan_jax_")) if self._copied else directory
        self._sent = time.monotonic()
        self._open(purge_step)

    def _open(self, purge_step: int | None) -> None:
        """Opens a new file whose name sorts after the existing ones, even if the clock was set back."""
        stamps = [int(path.name.split(".")[3]) for path in self._directory.glob("events.out.tfevents.*")]
        suffix = f".{os.getpid()}-{time.monotonic_ns()}"  # else the writer overwrites a file from the same second
        self.writer = self._writing(str(self._local), purge_step=purge_step, filename_suffix=suffix)
        [path] = self._local.glob(f"events.out.tfevents.*{suffix}")
        parts = path.name.split(".")
        parts[3] = str(max([int(parts[3]), *(stamp + 1 for stamp in stamps)]))
        self._path = path.rename(path.with_name(".".join(parts)))

    def describe(
        self,
        name: str,
        config: Mapping[str, Any],
        step: int = 0,
        metrics: Mapping[str, float] = MappingProxyType({}),
        later: Sequence[str] = (),
    ) -> None:
        """Writes a config as hyperparameters, and as a text.

        Args:
          name: name of the run, by which the page of hyperparameters groups its sessions.
          config: the config.
          step: step of the text.
          metrics: names of scalars of this run that the page of hyperparameters shows, with their values.
          later: names of scalars that it shows, too, and that the run writes while it trains.
        """
        from tensorboardX.summary import hparams  # noqa: PLC0415 - see `open_board`

        plain = {key: x if isinstance(x, bool | int | float | str) else str(x) for key, x in config.items()}
        experiment, start, end = hparams(plain, dict.fromkeys(later, 0.0) | dict(metrics))
        data = start.value[0].metadata.plugin_data
        data.content = _grouped(data.content, name)
        for summary in (experiment, start, end):
            self.writer.file_writer.add_summary(summary)
        for key, value in metrics.items():
            self.writer.add_scalar(key, value, step)
        rows = "\n".join(f"| {key} | `{x}` |" for key, x in config.items())
        self.writer.add_text("config", f"{name}\n\n| key | value |\n|---|---|\n{rows}", step)
        self.flush()

    def flush(self, *, surely: bool = False) -> None:
        """Writes what is pending; to a bucket only now and then, or `surely`."""
        self.writer.flush()
        if self._copied and (surely or time.monotonic() - self._sent > _BOARD_SECONDS):
            (self._directory / self._path.name).write_bytes(self._path.read_bytes())
            self._sent = time.monotonic()
            if self._path.stat().st_size > _BOARD_BYTES:  # each copy would take longer
                self.writer.close()
                self._open(None)

    def close(self) -> None:
        """Closes the file."""
        try:
            if not (
                isinstance(self._directory, BucketPath) and self._directory.at.failed
            ):  # else it is waited for again
                self.flush(surely=True)
        finally:
            self.writer.close()
            if self._copied:
                shutil.rmtree(self._local, ignore_errors=True)


def _grouped(content: bytes, name: str) -> bytes:
    """Names the group of a session in the data of the plugin of hyperparameters."""
    from tensorboardX.proto.plugin_hparams_pb2 import HParamsPluginData  # noqa: PLC0415 - see `open_board`

    data = HParamsPluginData.FromString(content)
    data.session_start_info.group_name = name
    return data.SerializeToString()


def note(workdir: pathlib.Path, step: int, values: Mapping[str, float], log: Callable[[str], None]) -> None:
    """Adds scalars to the board of a run that may have ended; does nothing without tensorboardX.

    Args:
      workdir: workdir of the run.
      step: step of the values.
      values: values by tag.
      log: receives messages.
    """
    board = open_board(workdir / BOARD, None, log)
    if board is not None:
        for name, value in values.items():
            board.writer.add_scalar(name, value, step)
        board.close()


def write_run(
    directory: pathlib.Path,
    name: str,
    config: Mapping[str, Any],
    lines: Sequence[Mapping[str, Any]],
    metrics: Sequence[str],
) -> None:
    """Writes the log of a run that has ended, in place of what is in the directory.

    Args:
      directory: directory of the run's files, after whose name TensorBoard calls it.
      name: name of the group of the run.
      config: hyperparameters.
      lines: lines of the log, each with its `step`.
      metrics: names of values that the page of hyperparameters shows.
    """
    shutil.rmtree(directory, ignore_errors=True)
    board = open_board(directory, None, lambda message: None)
    if board is None:
        return
    last = lines[-1] if lines else {"step": 0}
    for line in lines:
        for key, value in line.items():
            if isinstance(value, int | float) and key != "step":
                board.writer.add_scalar(key, value, line["step"])
    board.describe(name, config, last["step"], {key: last[key] for key in metrics if key in last})
    board.close()
