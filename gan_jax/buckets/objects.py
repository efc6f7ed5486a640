"""The objects of a bucket, through TensorStore, which Orbax brings: read, written on a condition, listed, deleted.

TensorStore finds the platform's own credentials; this package neither reads nor logs any.
"""

import contextlib
import functools
import math
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from gan_jax.types import InvalidInputError

SCHEMES = ("gs", "s3")
_DRIVERS = {"gs": "gcs", "s3": "s3"}
_LARGEST_DELAY = 32.0  # seconds between two attempts
_SILENCE = 20.0  # seconds without an answer after which this is said
_BATCH = 64  # objects that are on their way at a time
_REASONS = {  # beginnings of TensorStore's messages; what they mean, and what to do
    "PERMISSION_DENIED": (
        "permission denied",
        "log in on this machine (gcloud auth application-default login; aws configure; or the role of the machine), "
        "and let the account read, write, list and delete the bucket's objects",
    ),
    "UNAUTHENTICATED": (
        "no valid credentials",
        "log in on this machine (gcloud auth application-default login; aws configure; or the role of the machine)",
    ),
    "NOT_FOUND": ("there is no such bucket", "check its name, or create it"),
}
_EXHAUSTED = ("ABORTED", "UNAVAILABLE", "DEADLINE_EXCEEDED")  # of a request that was repeated until it was given up
_NO_LIST = (
    "the bucket does not exist, or this account may not list its objects",
    "check its name and the account's permissions",
)
_REASONS |= {"INTERNAL: Failed to parse response": _NO_LIST, "Malformed List response": _NO_LIST}  # by version


class StorageError(InvalidInputError):
    """The error for a bucket that cannot be used. The message says what failed and where, and what to do.

    It is no `OSError`, and whoever reads a file passes it on: a bucket that does not answer must not be taken for a
    file that is missing or damaged.
    """


@contextlib.contextmanager
def telling(what: str) -> Iterator[None]:
    """Begins the message of a `StorageError` with `what`."""
    try:
        yield
    except StorageError as error:
        raise StorageError(f"{what}: {error}") from error


def patience() -> float:
    """Returns for how many seconds a failing request is repeated: $GAN_JAX_BUCKET_PATIENCE, 300 by default."""
    return _seconds("GAN_JAX_BUCKET_PATIENCE", 300.0)


def lease_seconds() -> float:
    """Returns after how many seconds without renewal a lease ends: $GAN_JAX_LEASE_SECONDS, 60 by default."""
    return _seconds("GAN_JAX_LEASE_SECONDS", 60.0)


def _seconds(name: str, usual: float) -> float:
    text = os.environ.get(name, "").strip()
    try:
        value = float(text) if text else usual
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise StorageError(f"${name} is {text!r}: expected a positive number of seconds")
    return value


def _retries() -> dict[str, Any]:
    """Returns TensorStore's retry policy: delays that double up to a limit, as many as the patience allows."""
    most, delay = patience(), min(1.0, patience() / 8)
    largest, waited, count = min(_LARGEST_DELAY, most / 4), 0.0, 0
    while waited < most:
        waited, count = waited + min(largest, delay * 2**count), count + 1
    return {"max_retries": count, "initial_delay": f"{delay}s", "max_delay": f"{largest}s"}


def _spec(scheme: str, name: str) -> dict[str, Any]:
    spec: dict[str, Any] = {"driver": _DRIVERS[scheme], "bucket": name}
    spec["context"] = {f"{_DRIVERS[scheme]}_request_retries": _retries()}
    if scheme == "s3" and (endpoint := os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")):
        region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
        spec |= {"endpoint": endpoint.rstrip("/"), "aws_region": region}
    return spec


def _environment() -> None:
    """Sets what TensorStore reads from the environment, where the user has not."""
    if host := os.environ.get("STORAGE_EMULATOR_HOST"):  # the variable of Google's own clients
        url = host if "://" in host else f"http://{host}"
        os.environ.setdefault("TENSORSTORE_GCS_HTTP_URL", url.rstrip("/"))
    # Without these a connection that is dead on the server's side hangs until TCP gives up, half an hour later.
    os.environ.setdefault("TENSORSTORE_CURL_LOW_SPEED_TIME_SECONDS", "30")
    os.environ.setdefault("TENSORSTORE_CURL_LOW_SPEED_LIMIT_BYTES", "1")
    os.environ.setdefault("TENSORSTORE_CURL_CONNECT_TIMEOUT_SECONDS", "10")


@functools.cache
def absent() -> bytes:
    """Returns the generation of an object that does not exist."""
    import tensorstore as ts  # noqa: PLC0415 - slow to import, and only buckets need it

    return ts.KvStore.open("memory://").result().read(b"x").result().stamp.generation


class Bucket:
    """A bucket. Every change of an object gives it another generation, on which a write can depend.

    Attributes:
      url: such as `gs://name`.
      failed: whether the newest request has failed. What could be left out is then not waited for once more.
    """

    def __init__(self, scheme: str, name: str) -> None:
        import tensorstore as ts  # noqa: PLC0415

        _environment()
        self.url, self._ts, self.failed = f"{scheme}://{name}", ts, False
        try:
            self._store = ts.KvStore.open(_spec(scheme, name)).result()
        except ValueError as error:
            raise StorageError(f"{self.url} is no bucket: {_short(error)}; check its name") from error
        self.keys(".gan_jax")  # a bucket that does not exist is an error here; to a read, it has no objects

    def read(self, key: str) -> tuple[bytes | None, bytes]:
        """Returns an object's content, None if there is none, and its generation."""
        found = self._result(self._store.read(key), "read", key)
        return (found.value if found.state == "value" else None), found.stamp.generation

    def read_all(self, keys: Iterable[str]) -> dict[str, bytes]:
        """Reads many objects at a time; those that do not exist are left out."""
        return {key: one.value for key, one in self._read(keys).items() if one.state == "value"}

    def write(self, key: str, content: bytes, *, only_if: bytes | None = None) -> bytes | None:
        """Writes an object.

        Args:
          key: its key.
          content: its content.
          only_if: the generation that it must have; see `absent`. By default it may have any.

        Returns:
          The new generation; None, and nothing is written, if the object has another one than `only_if`. After a
          connection that broke, None may also mean that this very write has succeeded: compare the content.
        """
        made = self._result(self._store.write(key, content, if_equal=only_if), "written", key)
        return made.generation or None

    def generations(self, keys: Iterable[str]) -> dict[str, bytes]:
        """Returns the generations of objects; see `absent`."""
        return {key: one.stamp.generation for key, one in self._read(keys).items()}

    def _read(self, keys: Iterable[str]) -> dict[str, Any]:
        return self._together({key: lambda key=key: self._store.read(key) for key in keys}, "read")  # type: ignore[misc]

    def delete_all(self, keys: Mapping[str, bytes | None]) -> None:
        """Deletes many objects at a time, if they exist.

        Args:
          keys: their keys, each with the generation that it must have to be deleted; None for any.
        """
        starts = {
            key: lambda key=key, only_if=only_if: self._store.write(key, None, if_equal=only_if)  # type: ignore[misc]
            for key, only_if in keys.items()
        }
        self._together(starts, "deleted")

    def keys(self, prefix: str) -> list[str]:
        """Returns the keys of all objects that begin with a prefix, in order."""
        every = self._ts.KvStore.KeyRange
        # TensorStore takes a range of keys, which ends before the prefix with its last byte increased.
        low = prefix.encode()
        ranges = every(low, low[:-1] + bytes([low[-1] + 1])) if low else every()
        try:
            listed = [key.decode() for key in self._result(self._store.list(ranges), "listed", prefix)]
        except StorageError as error:
            if not str(error.__cause__).startswith(_EXHAUSTED):
                # TensorStore hides why Google refuses to list; a read tells, if it fails too.
                self.read(f"{prefix}lock")
            raise
        return sorted(key for key in listed if key.startswith(prefix))  # some services ignore the end of the range

    def _together(self, starts: Mapping[str, Any], done: str) -> dict[str, Any]:
        names, found = list(starts), dict[str, Any]()
        for low in range(0, len(names), _BATCH):
            begun = {name: starts[name]() for name in names[low : low + _BATCH]}
            found |= {name: self._result(future, done, name) for name, future in begun.items()}
        return found

    def _result(self, future: Any, done: str, key: str) -> Any:
        try:
            found, self.failed = self._answer(future), False
            return found
        except ValueError as error:  # whatever status the request has ended with
            self.failed = True
            text = str(error)
            known = next((_REASONS[start] for start in _REASONS if text.startswith(start)), None)
            reason, remedy = known or (
                "the bucket does not answer",
                "check the network and this machine's credentials, and run the same command again",
            )
            what = f"{self.url}/{key}" if done != "listed" else self.url
            raise StorageError(f"{what} cannot be {done}: {reason} ({_short(error)}): {remedy}") from error

    def _answer(self, future: Any) -> Any:
        try:
            return future.result(timeout=_SILENCE)
        except TimeoutError:
            print(
                f"{self.url} has not answered for {_SILENCE:g} s; a request is given up after {patience():g} s",
                file=sys.stderr, flush=True,
            )  # fmt: skip
            return future.result()


@functools.cache
def bucket(scheme: str, name: str) -> Bucket:
    """Returns a bucket, opened once per process."""
    return Bucket(scheme, name)


def _short(error: Exception) -> str:
    """Returns TensorStore's message without the body of the answer and the places in its source code."""
    text = " ".join(str(error).partition("[http_response_body")[0].partition("[source locations")[0].split())
    return text if len(text) < 200 else text[:200] + "..."
