"""Signals that ask a run to save and stop."""

import contextlib
import dataclasses
import os
import signal
from collections.abc import Iterator
from typing import Any


@dataclasses.dataclass
class StopRequest:
    """The signal that asked for a stop, if one did."""

    signal: int | None = None

    @property
    def name(self) -> str:
        """Such as SIGTERM; where this process got no signal, another one did."""
        return (
            "a preemption notice, or a signal to another process"
            if self.signal is None
            else signal.Signals(self.signal).name
        )


@contextlib.contextmanager
def stop_signals() -> Iterator[StopRequest]:
    """SIGTERM and SIGINT ask for a stop at the next dispatch; a second one ends the process at once."""
    request = StopRequest()

    def handle(number: int, frame: Any) -> None:
        del frame
        request.signal = number
        for caught in previous:
            signal.signal(caught, signal.SIG_DFL)
        note = f"{request.name}: saving and stopping at the next step; once more ends it at once\n"
        os.write(2, note.encode())  # print is not safe in a signal handler

    previous = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield request
    finally:
        for number, handler in previous.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
