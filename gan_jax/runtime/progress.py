"""What the person at the terminal, or in front of a notebook, sees of a run: lines, and below them one that moves."""

import datetime
import sys
from collections.abc import Callable, Mapping

from tqdm import std

from gan_jax.distributed import hosts

WIDTH = 80  # columns
_BAR = "{percentage:3.0f}% |{bar}| {n_fmt}/{total_fmt}  {postfix}"


def log(message: str) -> None:
    """Prints a message at once, above the moving line if there is one; from the first process only."""
    if hosts.is_primary():
        std.tqdm.write(message, file=sys.stdout)
        sys.stdout.flush()


def moves() -> bool:
    """Whether standard output can rewrite its last line: a terminal, or a notebook."""
    return sys.stdout.isatty() or "ipykernel" in sys.modules


def duration(seconds: float) -> str:
    """Seconds as h:mm:ss."""
    return str(datetime.timedelta(seconds=round(seconds)))


def columns(head: str, values: Mapping[str, float]) -> str:
    """A line, and below it, indented, names with their values, in lines of at most 80 columns."""
    lines = [head]
    for name, value in values.items():
        word = f"  {name} {value:.4g}"
        if len(lines) == 1 or len(lines[-1]) + len(word) > WIDTH:
            lines.append(word)
        else:
            lines[-1] += word
    return "\n".join(lines)


class Progress:
    """Progress of a run: lines in a file or pipe; on a terminal or in a notebook one line that moves."""

    def __init__(self, step: int, steps: int, log: Callable[[str], None]) -> None:
        """Shows the line that moves, where there is one.

        Args:
          step: iterations done.
          steps: iterations of the whole run.
          log: prints a message; the line moves only below what `log` prints.
        """
        self._steps, self._log = steps, log
        self._bar = None
        if log is log and moves() and hosts.is_primary():
            options = {"ncols": WIDTH, "bar_format": _BAR, "colour": "green", "leave": False, "file": sys.stdout}
            self._bar = std.tqdm(total=steps, initial=step, **options)

    def move(self, step: int) -> None:
        """Tells how many iterations are done."""
        if self._bar is not None:
            self._bar.update(step - self._bar.n)

    def report(
        self, step: int, pace: tuple[int, float, float], losses: Mapping[str, float], metrics: Mapping[str, float]
    ) -> None:
        """Tells what the log has.

        Args:
          step: iterations done.
          pace: images so far, images per second, and seconds left.
          losses: of the phases, by their names in the log.
          metrics: of samples, by theirs; empty where none are due.
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
        """Takes the line that moves away."""
        if self._bar is not None:
            self._bar.close()
