"""Progress of a run in a terminal, notebook or file: log lines, with a progress bar below them where one can move."""

import datetime
import sys
from collections.abc import Callable, Mapping

from tqdm import std

from gan_jax.distributed import hosts

WIDTH = 80  # columns
_BAR = "{percentage:3.0f}% |{bar}| {n_fmt}/{total_fmt}  {postfix}"


def log(message: str) -> None:
    """Prints a message at once, above the progress bar if there is one. Only the first process prints."""
    if hosts.is_primary():
        std.tqdm.write(message, file=sys.stdout)
        sys.stdout.flush()


_log = log  # under a name that arguments called `log` do not hide


def moves() -> bool:
    """Whether standard output can rewrite its last line, as terminals and notebooks can."""
    return sys.stdout.isatty() or "ipykernel" in sys.modules


def duration(seconds: float) -> str:
    """Formats seconds as h:mm:ss."""
    return str(datetime.timedelta(seconds=round(seconds)))


def columns(head: str, values: Mapping[str, float]) -> str:
    """Formats a head line and, indented below it, names with their values in lines of at most 80 columns."""
    lines = [head]
    for name, value in values.items():
        word = f"  {name} {value:.4g}"
        if len(lines) == 1 or len(lines[-1]) + len(word) > WIDTH:
            lines.append(word)
        else:
            lines[-1] += word
    return "\n".join(lines)


class Progress:
    """Progress of a run: lines in a file or pipe, and a progress bar in a terminal or notebook."""

    def __init__(self, step: int, steps: int, log: Callable[[str], None]) -> None:
        """Shows the progress bar, where the output can have one.

        Args:
          step: iterations done before.
          steps: iterations of the whole run.
          log: function that prints a message; only this module's `log` prints above the bar.
        """
        self._steps, self._log = steps, log
        self._bar = None
        if log is _log and moves() and hosts.is_primary():
            # The number of rows is set, since some terminals say 0, in which tqdm would not show anything.
            options = {"ncols": WIDTH, "nrows": 20, "bar_format": _BAR, "colour": "green", "leave": False}
            options["file"] = sys.stdout
            self._bar = std.tqdm(total=steps, initial=step, **options)

    def move(self, step: int) -> None:
        """Moves the bar to the number of iterations done."""
        if self._bar is not None:
            self._bar.update(step - self._bar.n)

    def report(
        self, step: int, pace: tuple[int, float, float], losses: Mapping[str, float], metrics: Mapping[str, float]
    ) -> None:
        """Shows the values of a log line.

        Args:
          step: iterations done.
          pace: images so far, images per second, and seconds left.
          losses: losses of the phases, by their names in the log.
          metrics: metrics of samples, by their names in the log; empty if none are due.
        """
        images, rate, eta = pace
        if self._bar is None:
            speed = f"images {images:,}  {rate:,.0f} images/s  ETA {duration(eta)}"
            self._log(columns(f"step {step:,}/{self._steps:,}  {speed}", {**losses, **metrics}))
            return
        text = "  ".join(f"{name.removesuffix('/loss')} {value:.3g}" for name, value in losses.items())
        self._bar.set_postfix_str(f"{rate:,.0f}/s  {duration(eta)}  {text}", refresh=False)
        if metrics:
            log(columns(f"step {step:,}", metrics))

    def close(self) -> None:
        """Removes the progress bar."""
        if self._bar is not None:
            self._bar.close()
