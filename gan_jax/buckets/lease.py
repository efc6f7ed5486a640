"""Leases: who may write a workdir in a bucket, where no system releases the lock of a process that has died.

A lease is an object that its holder writes again and again, each time on the condition that nobody else has. Whoever
finds it unchanged for its whole term, on his own clock, takes it, on the same condition: clocks need not agree, and of
two takers one succeeds. A holder that has not renewed in time renews before it writes anything, and if somebody else
has the lease by then, it ends (Gray and Cheriton, "Leases", SOSP 1989). A write that was on its way while the lease
changed hands fails too, once the new holder has written that object: every write depends on the generation that the
writer knows (see `put`).
"""

import atexit
import concurrent.futures
import contextlib
import json
import os
import pathlib
import secrets
import socket
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from gan_jax.buckets.objects import Bucket, StorageError, absent, bucket, lease_seconds

_SHARE = 4  # renewals in a term
_LOOK = 0.25  # seconds between two looks at a lease
_AT_ONCE = 16  # leases that are renewed at a time

_held: dict[str, "Lease"] = {}  # by the URL of the lease's object
_seen: dict[str, "_Seen"] = {}  # foreign leases, by URL
_lock = threading.Condition(threading.RLock())
_keeper: list[threading.Thread] = []


class _Seen(NamedTuple):
    """The generation of a lease, when it was first seen, and when it was last seen."""

    generation: bytes
    since: float
    last: float


def now() -> float:
    """Returns seconds of a clock that goes on while the machine sleeps, where there is one."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class Lease:
    """A lease that this process holds. It is renewed in the background until `release`.

    Attributes:
      url: URL of the object.
    """

    def __init__(self, at: Bucket, key: str, generation: bytes) -> None:
        self.url, self._bucket, self._key = f"{at.url}/{key}", at, key
        self._seconds, self._owner, self._beat = lease_seconds(), secrets.token_hex(8), 0
        self._generation, self._renewed, self._lost = generation, 0.0, ""
        self._known: dict[str, bytes] = {}  # generations of objects that this holder has written
        self._alone = threading.RLock()

    def renew(self) -> None:
        """Writes the lease again.

        Raises:
          StorageError: if another process has it now, or the bucket does not answer.
        """
        with self._alone:
            self._raise_if_lost()
            began, self._beat = now(), self._beat + 1
            record = {"owner": self._owner, "beat": self._beat} | _this_process()
            content = json.dumps(record).encode()
            while (generation := self._bucket.write(self._key, content, only_if=self._generation)) is None:
                found, self._generation = self._bucket.read(self._key)
                if (
                    _record(found).get("owner") != self._owner
                ):  # else an earlier write has come, and its answer was lost
                    self._lost = _described(found)
                    self._raise_if_lost()
            self._generation, self._renewed = generation, began

    def check(self, *, surely: bool = False) -> None:
        """Checks that the lease is still held; asks the bucket if the last renewal is old, or `surely`."""
        self._raise_if_lost()
        if surely or now() - self._renewed > self._seconds / 2:
            self.renew()

    def _raise_if_lost(self) -> None:
        if self._lost:
            raise StorageError(
                f"{self.url} was lost: this process did not renew it within {self._seconds:g} s, and {self._lost} has "
                "taken it. Nothing is written any more; what was saved before is in the bucket. Let the other process "
                "go on, or stop it and run the same command again"
            )

    def put(self, key: str, content: bytes, *, new: bool = False) -> None:
        """Writes an object while the lease is held, and only over the generation that this holder knows.

        Args:
          key: key of the object.
          content: its content.
          new: whether no such object is expected; saves a request.

        Raises:
          StorageError: if the lease is lost.
        """
        self.check()
        known = self._known.get(key) or (absent() if new else self._bucket.read(key)[1])
        while (generation := self._bucket.write(key, content, only_if=known)) is None:
            self.check(surely=True)
            found, known = self._bucket.read(key)  # of a holder that is gone, or of this very write
            if found == content:
                generation = known
                break
        self._known[key] = generation

    def forget(self, key: str) -> None:
        """Notes that an object was deleted, or is written by others too."""
        self._known.pop(key, None)

    def release(self) -> None:
        """Gives the lease back, so that nobody waits for its end."""
        with self._alone, _lock:
            _held.pop(self.url, None)
            if not self._lost and not self._bucket.failed:
                with contextlib.suppress(StorageError):  # then it ends by itself
                    self._bucket.write(self._key, b"{}\n", only_if=self._generation)
                self._lost = "nobody, since it was given back,"


def take(url: str, *, patient: bool = False, log: Callable[[str], None] = lambda message: None) -> Lease | str:
    """Takes a lease if it is free, or its holder has died.

    Where nothing tells at once, the lease is watched until it is renewed, or for its whole term.

    Args:
      url: URL of the object.
      patient: whether to wait for a holder that lives.
      log: receives a message if this takes a while.

    Returns:
      The lease, or a description of the process that holds it.
    """
    scheme, _, rest = url.partition("://")
    name, _, key = rest.partition("/")
    at, told = bucket(scheme, name), False
    while True:
        before = _seen[url].generation if url in _seen else b""
        found, generation = at.read(key)
        if _is_free(found) or _has_expired(url, generation):
            lease = Lease(at, key, generation)
            with contextlib.suppress(_TakenError):
                return _begun(lease)
            continue
        if generation != before and before and not patient:  # it was renewed
            return _described(found)
        if not told:
            told = True
            log(f"waiting for at most {lease_seconds():g} s to see whether {_described(found)} still lives")
        time.sleep(min(_LOOK, lease_seconds() / _SHARE / 8))


class _TakenError(Exception):
    pass


def _begun(lease: Lease) -> Lease:
    try:
        lease.renew()
    except StorageError as error:
        if lease._lost:
            raise _TakenError from error  # somebody else was faster
        raise
    with _lock:
        _held[lease.url] = lease
        _seen.pop(lease.url, None)
        if not _keeper:
            _keeper.append(threading.Thread(target=_keep, daemon=True, name="leases"))
            _keeper[0].start()
        _lock.notify_all()
    return lease


def _keep() -> None:
    """Renews all leases of this process, for ever."""
    with concurrent.futures.ThreadPoolExecutor(_AT_ONCE) as pool:
        while True:
            with _lock:
                shortest = min((lease._seconds for lease in _held.values()), default=None)
                _lock.wait(None if shortest is None else shortest / _SHARE)
                due = [x for x in _held.values() if now() - x._renewed >= x._seconds / _SHARE and not x._lost]
            try:
                list(pool.map(_renew, due))
            except RuntimeError:  # the process is ending
                return


def _renew(lease: Lease) -> None:
    with contextlib.suppress(StorageError):  # `check` raises it where something is to be written
        lease.renew()


def _has_expired(url: str, generation: bytes) -> bool:
    """Whether a lease was in this very state for a whole term, in which the bucket has answered all the time.

    While a bucket answers nobody, the holder cannot renew either: the term begins again after two looks that lie far
    apart.
    """
    seen, time_now = _seen.get(url), now()
    followed = seen is not None and seen.generation == generation and time_now - seen.last <= lease_seconds() / 2
    _seen[url] = _Seen(generation, seen.since if seen is not None and followed else time_now, time_now)
    return time_now - _seen[url].since > lease_seconds()


def _is_free(content: bytes | None) -> bool:
    """Whether nobody holds a lease: it was given back, or its holder ran on this machine and is dead."""
    record = _record(content)
    if not record.get("owner"):
        return True
    if record.get("machine") != _machine() or not record.get("machine"):
        return False
    return record.get("began") != _began(record.get("pid", 0))


def _record(content: bytes | None) -> dict[str, Any]:
    try:
        found = json.loads(content or b"{}")
    except ValueError:
        found = {}
    return found if isinstance(found, dict) else {}


def _described(content: bytes | None) -> str:
    record = _record(content)
    return f"process {record['pid']} on {record.get('host')}" if "pid" in record else "another process"


def _this_process() -> dict[str, Any]:
    pid = os.getpid()
    return {"pid": pid, "host": socket.gethostname(), "machine": _machine(), "began": _began(pid)}


def _machine() -> str:
    """Names the running system and its space of process ids; empty where neither can be told."""
    try:
        boot = pathlib.Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _began(pid: int) -> str:
    """Returns when a process of this machine began, in ticks since its start; empty if it has ended."""
    try:
        text = pathlib.Path(f"/proc/{int(pid)}/stat").read_text(encoding="ascii", errors="replace")
    except (OSError, ValueError):
        return ""
    state, *rest = text.rpartition(")")[2].split()
    return "" if state in "ZX" else rest[18]


def _release_all() -> None:
    for lease in list(_held.values()):
        lease.release()


atexit.register(_release_all)


def holding(url: str) -> Lease | None:
    """Returns the lease of the nearest workdir above a URL, under which this process writes it; None without."""
    with _lock:
        fitting = [one for one in _held if url.startswith(one.rpartition("/")[0] + "/") and "/claims/" not in one]
        return _held[max(fitting, key=len)] if fitting else None
