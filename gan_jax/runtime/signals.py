"""Signals that ask a run to save and stop."""

import contextlib
import dataclasses
import signal
from collections.abc import Iterator
from typing import Any


@dataclasses.dataclass
class StopRequest:
    """The signal that asked for a stop, if one did."""

    signal: int | None = None

    @property
    def name(self) -> str:
        """Such as SIGTERM; empty if there was none."""
        return "" if self.signal is None else signal.Signals(self.signal).name


@contextlib.contextmanager
def stop_signals() -> Iterator[StopRequest]:
    """SIGTERM and SIGINT ask for a stop at the next dispatch; a second one ends the process at once."""
    request = StopRequest()

    def handle(number: int, frame: Any) -> None:
        del frame
        request.signal = number
        for caught in previous:
            signal.signal(caught, signal.SIG_DFL)

    previous = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield request
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
