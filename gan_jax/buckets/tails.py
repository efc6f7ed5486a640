"""Logs in a bucket, whose objects cannot be appended to: parts, of which the last is written again with each new line.

`log.jsonl` is the first part, `log.jsonl.0001` the next one. A part that is written again replaces itself, so a request
that is repeated writes no line twice; and what was written before stays whole whenever a process is killed. Lines wait
for at most about a second, in a thread, since a bucket takes only so many writes of an object; `settle` waits until
they are there, and whatever is written by `BucketPath` waits too. So a checkpoint is never ahead of its log.
"""

import atexit
import concurrent.futures
import contextlib
import re
import threading
from collections.abc import Callable
from typing import Any

from gan_jax.buckets.lease import Lease, now
from gan_jax.buckets.objects import Bucket, StorageError

_AT_ONCE = 16  # logs that are written at a time: a population has one for each member
_PART = 2**19  # bytes from which on the next line begins another part
_INTERVALS = {"gs": 1.05, "s3": 0.2}  # seconds between writes of one object; Google's limit is one a second

_tails: dict[str, "Tail"] = {}  # by the URL of the log
_news = threading.Condition(threading.RLock())
_writer: list[threading.Thread] = []


def part_keys(at: Bucket, key: str) -> list[str]:
    """Returns the keys of a log's parts, in order."""
    return [one for one in at.keys(key) if re.fullmatch(r"(\.\d{4})?", one[len(key) :])]


def read_parts(at: Bucket, key: str) -> dict[str, bytes]:
    """Reads the parts of a log, by their keys in order."""
    found = at.read_all(part_keys(at, key))
    return dict(sorted(found.items()))


def write_parts(
    at: Bucket, key: str, content: bytes, put: Callable[[str, bytes], Any], delete: Callable[[str], Any]
) -> None:
    """Makes a log's parts hold `content`, from the last one to the first, so that a kill leaves a log that is shorter.

    Args:
      at: the bucket.
      key: key of the log.
      content: what the log is to hold, mostly a beginning of what it holds.
      put: writes an object.
      delete: deletes an object.
    """
    parts, kept = read_parts(at, key), 0
    names = list(parts)
    while kept < len(names) and content.startswith(b"".join(parts[name] for name in names[: kept + 1])):
        kept += 1
    rest = content[sum(len(parts[name]) for name in names[:kept]) :]
    for name in reversed(names[kept + bool(rest) :]):
        delete(name)
    if rest or not parts:
        put(names[kept] if kept < len(names) else _numbered(key, kept), rest)


def _numbered(key: str, number: int) -> str:
    return f"{key}.{number:04d}" if number else key


class Tail:
    """The last part of a log that this process appends to."""

    def __init__(self, at: Bucket, key: str, lease: Lease | None) -> None:
        self.bucket, self._log, self._lease = at, key, lease
        names = part_keys(at, key)
        self._number, self._written, self._generation = max(0, len(names) - 1), b"", b""
        self._load()
        self.waiting = b""  # lines that are not in the bucket
        self.due = 0.0  # when the next write may begin

    @property
    def _key(self) -> str:
        return _numbered(self._log, self._number)

    def _load(self) -> None:
        found, self._generation = self.bucket.read(self._key)
        whole = found or b""
        self._written = whole[: whole.rfind(b"\n") + 1]  # a file that was copied here may end within a line

    def turn(self) -> None:
        """Begins another part, if this one is full. Nothing may be waiting."""
        if len(self._written) > _PART:
            self._number += 1
            self._load()

    def write(self) -> None:
        """Writes the part with the lines that wait."""
        with _news:
            lines = self.waiting
        while True:
            if self._lease is not None:
                self._lease.check()
            content = self._written + lines
            generation = self.bucket.write(self._key, content, only_if=self._generation)
            if generation is not None:
                break
            # Written by this very request, whose answer was lost, or by somebody else.
            found, self._generation = self.bucket.read(self._key)
            if found == content:
                generation = self._generation
                break
            if self._lease is None:
                self._load()  # the other process's lines are kept
            else:
                self._lease.check(surely=True)  # what a holder that is gone wrote late is not kept
        with _news:
            self._written, self._generation, self.waiting = content, generation, self.waiting[len(lines) :]
            self.due = now() + _INTERVALS[self.bucket.url.partition(":")[0]]


def append(at: Bucket, key: str, line: bytes, lease: Lease | None) -> None:
    """Appends a line to a log. It is in the bucket after `settle`; without a lease, when this returns.

    Args:
      at: the bucket.
      key: key of the log.
      line: the line, with its end.
      lease: lease under which the log is written; None where several processes may append to it.

    Raises:
      StorageError: if this, or an earlier line, cannot be written.
    """
    url = f"{at.url}/{key}"
    with _news:
        tail = _tails.get(url)
    if tail is None or tail._lease is not lease:
        tail = Tail(at, key, lease)
    if len(tail._written) + len(tail.waiting) > _PART:
        settle()
        tail.turn()
    with _news:
        _raise_failure()
        tail.waiting += line
        if lease is None:
            tail.write()
            return
        _tails[url] = tail
        if not _writer:
            _writer.append(threading.Thread(target=_write_all, daemon=True, name="logs"))
            _writer[0].start()
        _news.notify_all()


_failure: list[Exception] = []


def _raise_failure() -> None:
    if _failure:
        raise _failure[0]


def _write_all() -> None:
    """Writes the lines that wait, for ever; stops at an error, which `append` and `settle` raise."""
    pool = concurrent.futures.ThreadPoolExecutor(_AT_ONCE)
    while True:
        with _news:
            waiting = [tail for tail in _tails.values() if tail.waiting]
            ready = [tail for tail in waiting if tail.due <= now()]
            if not ready or _failure:
                _news.wait(None if not waiting or _failure else max(0.001, min(x.due for x in waiting) - now()))
                continue
        try:
            for failed in pool.map(_failed, ready):
                _failure.extend(failed)
        except RuntimeError:  # the process is ending, and `_write_last` does the rest
            return
        with _news:
            _news.notify_all()


def _failed(tail: Tail) -> list[Exception]:
    try:
        tail.write()
    except Exception as error:  # which nobody would see in this thread
        return [error]
    return []


def settle() -> None:
    """Waits until every line that was appended is in its bucket.

    Raises:
      StorageError: if one cannot be written.
    """
    with _news:
        while any(tail.waiting for tail in _tails.values()):
            _raise_failure()
            _news.wait()
        _raise_failure()


def _write_last() -> None:
    """Writes what waits at the end of the process: nothing, unless it ends early."""
    for tail in _tails.values():
        if tail.waiting and not _failure and not tail.bucket.failed:
            _failure.extend(_failed(tail))


atexit.register(_write_last)


def close(prefix: str) -> None:
    """Writes what waits below a URL, and forgets it and its error, so that a later run in this process begins again."""
    with contextlib.suppress(StorageError), _news:
        if not any(tail.bucket.failed for tail in _tails.values()):
            settle()
    with _news:
        for url in [url for url in _tails if url.startswith(prefix)]:
            del _tails[url]
        _failure.clear()


def forget(url: str) -> None:
    """Forgets what is known of a log that was written otherwise. Nothing may be waiting."""
    with _news:
        _tails.pop(url, None)
