"""Ends a process that would hang, because a step does not finish or because another process has left or is silent."""

import faulthandler
import json
import sys
import threading
import time
from typing import Any

from gan_jax.distributed import hosts


class Watchdog:
    """Background threads that detect a hang while the main thread is blocked in a collective.

    Use it as a context manager; nested entries are allowed. Call `beat` whenever a piece of work is finished.

    Attributes:
      patience: seconds that a process should wait for a message of another process.
    """

    def __init__(self, timeout: float = 0.0) -> None:
        """Creates a watchdog whose threads do not run yet.

        Args:
          timeout: seconds within which the next beat must follow; 0 waits for ever.
        """
        self.timeout, self._doing = timeout, "starting"
        self.patience = timeout or 600.0
        self._due = time.monotonic() + timeout if timeout else float("inf")
        self._interval = min(2.0, timeout / 5) if timeout else 2.0
        self._closed = threading.Event()
        self._heard: dict[int, tuple[Any, float]] = {}  # last message of each process, and when it was new here
        self._talked = time.monotonic()
        self._threads: list[threading.Thread] = []
        self._entered = 0

    def __enter__(self) -> "Watchdog":
        self._entered += 1
        if self._entered > 1:
            return self
        together = hosts.client() is not None
        tasks = ([self._watch] if self.timeout else []) + ([self._talk] if together else [])
        self._threads = [threading.Thread(target=task, daemon=True) for task in tasks]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exception: Any) -> None:
        self._entered -= 1
        if exception[0] is None and not self._entered:  # after an error it runs on, until the others are told
            self._closed.set()
            for thread in self._threads:
                thread.join(5)

    def beat(self, doing: str) -> None:
        """Reports progress and restarts the timeout; `doing` names the next piece of work."""
        self._doing = doing
        if self.timeout:
            self._due = time.monotonic() + self.timeout

    def _watch(self) -> None:
        while not self._closed.wait(self._interval / 2):
            if time.monotonic() > self._due:
                message = f"no progress for {self.timeout:g} s while {self._doing}"
                faulthandler.dump_traceback(sys.stderr)
                hosts.leave(hosts.LOST, "\n  ".join([message, *self._suspects()]))

    def _suspects(self) -> list[str]:
        """Describes the other processes, those that seem to be missing first, as far as this one can tell."""
        index, count = hosts.rank()
        if count == 1:
            return []
        now, patience = time.monotonic(), 4 * self._interval
        if now - self._talked > patience and index != 0:
            return [f"process 0, which coordinates, is missing: no answer for {now - self._talked:.0f} s"]
        lines = []
        for other in range(count):
            if other == index:
                continue
            said, when = self._heard.get(other, (("", "nothing heard of it yet"), 0.0))
            missing = f"is missing: silent for {now - when:.0f} s, last" if now - when > patience else "is there,"
            lines.append(f"process {other} {missing} {said[1]}")
        return sorted(lines, key=lambda line: "is there" in line)

    def _talk(self) -> None:
        """Publishes regularly that this process is alive and what it does, and reads the messages of the others."""
        index, _ = hosts.rank()
        store, beats = hosts.client(), 0
        while not self._closed.wait(self._interval):
            try:
                beats += 1  # makes every message differ from the last one, also while the work stays the same
                said = json.dumps([beats, self._doing])
                store.key_value_set(f"gan_jax/alive/{index}", said, allow_overwrite=True)
                alive, left = store.key_value_dir_get("gan_jax/alive/"), hosts.departed()
            except Exception as error:  # the client raises many types when its connection is lost
                if not self._closed.is_set():
                    hosts.end(hosts.LOST, f"process 0, which coordinates, is missing: {str(error).splitlines()[0]}")
                return
            self._talked = time.monotonic()
            for key, value in alive:
                other, words = int(key.rsplit("/", 1)[1]), json.loads(value)
                if self._heard.get(other, (None,))[0] != words:
                    self._heard[other] = (words, self._talked)
            if left and index not in left:
                hosts.leave(hosts.LOST, "ending, since another process has left")
