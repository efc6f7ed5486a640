"""Signals that ask a run to save and stop."""

import contextlib
import dataclasses
import os
import signal
from collections.abc import Iterator
from typing import Any


@dataclasses.dataclass
class StopRequest:
    """Who asked for a stop, if somebody did.

    Attributes:
      signal: the one that did.
      reason: of anybody else, such as a search that has seen enough.
    """

    signal: int | None = None
    reason: str = ""

    @property
    def asked(self) -> bool:
        """Whether to stop."""
        return self.signal is not None or bool(self.reason)

    @property
    def name(self) -> str:
        """Such as SIGTERM; where nobody asked in this process, it was in another one."""
        return self.reason or (
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
