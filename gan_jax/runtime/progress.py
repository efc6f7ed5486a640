"""Progress of a run in a terminal, notebook or file: log lines, with a progress bar below them where one can move."""

import datetime
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence

from tqdm import std

from gan_jax.distributed import hosts

WIDTH = 80  # columns
_LEAST = len("100% |##########|")  # columns of the percentage and a bar of ten


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
        self._words, self._last = list[str](), ""
        self._bar = None
        if log is _log and moves() and hosts.is_primary():
            # The number of rows is set, since some terminals say 0, in which tqdm would not show anything.
            options = {"nrows": 20, "bar_format": "{percentage:3.0f}% |{bar}|{desc}", "colour": "green", "leave": False}
            options |= {"ncols": _width(), "file": sys.stdout}
            self._bar = std.tqdm(total=steps, initial=step, **options)
            self.move(step)

    def move(self, step: int) -> None:
        """Moves the bar to the number of iterations done."""
        if self._bar is not None:
            self._bar.ncols = width = _width()
            words = [f"{step:,}/{self._steps:,}", *self._words]
            self._bar.set_description_str(_fitting(words, width - _LEAST), refresh=False)
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
        speed = f"images {images:,}  {rate:,.0f} images/s  ETA {duration(eta)}"
        self._last = columns(f"step {step:,}/{self._steps:,}  {speed}", {**losses, **metrics})
        if self._bar is None:
            self._log(self._last)
            return
        short = _abbreviated([name.removesuffix("/loss") for name in losses])
        values = [f"{name} {value:.3g}" for name, value in zip(short, losses.values(), strict=True)]
        self._words = [f"{rate:,.0f} images/s", duration(eta), *values]
        if metrics:
            log(self._last)
            self._last = ""

    def close(self) -> None:
        """Removes the progress bar, and leaves its last values as a line."""
        if self._bar is not None:
            self._bar.close()
            if self._last:
                log(self._last)


def _width() -> int:
    """Returns the columns to use: 80, or fewer in a narrower terminal."""
    return min(WIDTH, shutil.get_terminal_size().columns)


def _fitting(words: Sequence[str], room: int) -> str:
    """Joins as many of the first words as fit in the columns that are left."""
    text = ""
    for word in words:
        if len(text) + len(word) + 2 > room:
            break
        text += f"  {word}"
    return text


def _abbreviated(names: Sequence[str]) -> list[str]:
    """Cuts names to their first three letters, or to more if they would be equal."""
    longest = max(map(len, names), default=0)
    enough = next((n for n in range(3, longest) if len({name[:n] for name in names}) == len(set(names))), longest)
    return [name[:enough] for name in names]
