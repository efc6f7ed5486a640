"""A part's process: started in a group of its own, followed, asked to stop at its deadline, and ended by force."""

import collections
import ctypes
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

_LAST_LINES = 80
_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of prctl


def die_with_parent() -> None:
    """Makes this process end when the one that started it does, even by SIGKILL; on Linux alone."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_DEATH_SIGNAL, signal.SIGKILL)


class Ended(NamedTuple):
    """How a process ended.

    Attributes:
      code: exit code; negative for a signal.
      late: whether it was still running at its deadline.
      seconds: duration.
      tail: last lines of its output. If it was late, they have the stacks of its threads.
    """

    code: int
    late: bool
    seconds: float
    tail: str


def supervise(
    command: Sequence[str],
    environment: Mapping[str, str],
    *,
    where: pathlib.Path,
    log: pathlib.Path,
    seconds: float,
    grace: float,
    stop: threading.Event,
) -> Ended:
    """Runs a command until it ends, its time is over, or a stop is requested. Leaves no process of its group behind.

    The process shows the stacks of its threads on SIGUSR1, which works while it is inside a compiler that does not
    return. Then it gets SIGTERM, and `grace` seconds later SIGKILL, with all processes that it has started.

    Args:
      command: command and arguments.
      environment: environment variables.
      where: working directory.
      log: file to which its output is appended; it is printed too.
      seconds: time until SIGTERM.
      grace: time between SIGTERM and SIGKILL.
      stop: ends the process early when it is set.

    Returns:
      How the process ended.
    """
    began, tail, late = time.monotonic(), collections.deque[str](maxlen=_LAST_LINES), False
    process = subprocess.Popen(
        command, cwd=where, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, errors="replace", start_new_session=True,
    )  # fmt: skip
    reader = threading.Thread(target=_follow, args=(process, log, tail), daemon=True)
    reader.start()
    try:
        while process.poll() is None:
            over = time.monotonic() - began > seconds
            if over or stop.is_set():
                late = over and not stop.is_set()
                _end(process, grace, show=late)
            time.sleep(0.05)
    finally:
        _signal(process.pid, signal.SIGKILL)  # what is left of the group, such as a trainer that the part has started
        reader.join(2.0)  # ends with the last process that holds the pipe
    return Ended(process.returncode, late, time.monotonic() - began, "\n".join(tail))


def _follow(process: subprocess.Popen[str], log: pathlib.Path, tail: collections.deque[str]) -> None:
    assert process.stdout is not None
    with process.stdout, log.open("a", encoding="utf-8") as file:
        for line in process.stdout:
            tail.append(line.rstrip())
            print(f"  {line.rstrip()}", flush=True)
            file.write(line)
            file.flush()


def _end(process: subprocess.Popen[str], grace: float, *, show: bool) -> None:
    if show:
        try:
            os.kill(process.pid, signal.SIGUSR1)
        except ProcessLookupError:
            return
        time.sleep(0.3)
    _signal(process.pid, signal.SIGTERM)
    try:
        process.wait(grace)
    except subprocess.TimeoutExpired:
        _signal(process.pid, signal.SIGKILL)
        process.wait()


def _signal(group: int, number: int) -> None:
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):  # nobody is left in it
        return
