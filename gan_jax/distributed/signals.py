"""SIGTERM and SIGINT as requests to save and stop."""

import contextlib
import dataclasses
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any


@dataclasses.dataclass
class StopRequest:
    """A request to stop the run, which may or may not have been made.

    Attributes:
      signal: number of the signal that asked for it; None without one.
      reason: what else asked for it, such as a study that prunes the trial; empty without one.
    """

    signal: int | None = None
    reason: str = ""

    @property
    def asked(self) -> bool:
        """Whether this process was asked to stop."""
        return self.signal is not None or bool(self.reason)

    @property
    def name(self) -> str:
        """Name of what asked for the stop, such as SIGTERM, for messages."""
        return self.reason or (
            "a preemption notice, or a signal to another process"
            if self.signal is None
            else signal.Signals(self.signal).name
        )


@contextlib.contextmanager
def stop_signals() -> Iterator[StopRequest]:
    """Makes SIGTERM and SIGINT request a stop at the next dispatch; a second signal ends the process at once.

    In another thread than the main one it changes nothing: Python delivers signals to the main thread alone.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return

    def handle(number: int, frame: Any) -> None:
        del frame
        request.signal = number
        for caught in previous:
            signal.signal(caught, signal.SIG_DFL)
        note = f"\n{request.name}: saving and stopping at the next step; a second signal ends it at once\n"
        os.write(2, note.encode())  # print is not safe in a signal handler

    previous = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield request
    finally:
        for number, handler in previous.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
