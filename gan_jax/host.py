"""Arrays and files on the host: image ranges, placement on devices, atomic files, and JSON records that are checked."""

import contextlib
import dataclasses
import fcntl
import io
import json
import os
import pathlib
import re
import socket
import tempfile
import types
import typing
import uuid
from collections.abc import Callable, Iterator
from typing import IO, Any

import jax
import numpy as np
from jax.sharding import Sharding
from jaxtyping import Array

from gan_jax import buckets
from gan_jax.buckets import BucketPath, StorageError
from gan_jax.buckets.path import parse
from gan_jax.types import InvalidInputError


def from_uint8(images: Any) -> Any:
    """Converts images from 0..255 to float32 in [-1, 1]: x / 127.5 - 1. A numpy array stays a numpy array."""
    return images.astype(np.float32) / 127.5 - 1.0


def to_uint8(images: np.ndarray) -> np.ndarray:
    """Converts images from [-1, 1] to uint8 as in image files, rounded to the nearest integer and clipped.

    Raises:
      InvalidInputError: for images that are not finite, which would come out black.
    """
    if not np.isfinite(images).all():
        raise InvalidInputError("samples are not finite: the generator has diverged; evaluate an earlier checkpoint")
    return np.clip(np.round((images + 1.0) * 127.5), 0, 255).astype(np.uint8)


def put(x: Any, sharding: Sharding) -> Array:
    """Places an array, or a key array, that every process holds whole on the devices of a sharding."""
    if isinstance(x, jax.Array) and x.sharding == sharding:
        return x
    if sharding.is_fully_addressable:
        return jax.device_put(x, sharding)
    # The sharding spans several processes: each of them fills the shards on its own devices. A key goes as its data.
    if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(put(np.asarray(jax.random.key_data(x)), sharding), impl=jax.random.key_impl(x))
    host = np.asarray(x)
    return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])


_LONGEST_NAME = 255  # bytes of the name of a file or directory, on the usual file systems


def user_path(path: str | os.PathLike[str], name: str, *, bucket: bool = False) -> pathlib.Path:
    """Resolves a path given by the user: `~` is the home directory, as the shell leaves it in `--workdir=~/x`.

    Args:
      path: path as given.
      name: name of the argument, for the message.
      bucket: whether it may be in a bucket, such as `gs://bucket/run`.

    Returns:
      The path. One in a bucket is a `BucketPath`, which has the methods of `pathlib.Path` that workdirs need.

    Raises:
      InvalidInputError: for an empty path, which would mean the current directory (a variable of the shell that is not
        set gives one), the home directory of a user that does not exist, or a URL that names no place to write to.
    """
    text = os.fspath(path)
    if not text.strip() or "\0" in text:
        raise InvalidInputError(f"{name} is {text!r}: expected a path; `.` is the current directory")
    if any("\ud800" <= letter <= "\udfff" for letter in text):  # bytes that Python could not decode
        raise InvalidInputError(
            f"{name} is {text!a}: the locale cannot read its letters; set PYTHONUTF8=1, or a locale of UTF-8"
        )
    if max(len(os.fsencode(part)) for part in text.split("/")) > _LONGEST_NAME:
        raise InvalidInputError(f"{name} is {text[:60]!r}...: expected names of at most {_LONGEST_NAME} bytes")
    if re.match(r"[a-z][a-z0-9+.-]*:/", text, re.IGNORECASE):
        found = parse(text) if bucket else "expected a path on this machine, not a URL"
        if isinstance(found, str):
            raise InvalidInputError(f"{name} is {text!r}: {found}")
        return typing.cast(pathlib.Path, found)
    try:
        return pathlib.Path(text).expanduser()
    except RuntimeError as error:
        raise InvalidInputError(f"{name} is {text!r}: {error}; write the whole path") from error


def check_writable(directory: pathlib.Path, what: str) -> None:
    """Creates a directory if it is missing, and checks that files can be created there: before work, not after it.

    Args:
      directory: the directory.
      what: argument that names it, with its value, for the message.

    Raises:
      InvalidInputError: if the directory cannot be created or written.
    """
    if isinstance(directory, BucketPath):
        with buckets.telling(what):
            probe = directory / f"probe_{uuid.uuid4().hex}"
            probe.write_bytes(b"probe\n")
            probe.unlink()
        return
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError as error:
        raise InvalidInputError(
            f"{what}: files cannot be created in {str(directory)!r} ({error}): name another directory, or change its "
            "permissions"
        ) from error


class FileLock:
    """A lock of the system on an open file, which the end of the process releases however it comes."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file

    def check(self, *, surely: bool = False) -> None:
        """Does nothing, unlike `buckets.Lease.check`: a lock of the system cannot be lost."""

    def release(self) -> None:
        """Releases the lock."""
        self._file.close()


def take_lock(
    path: pathlib.Path, *, patient: bool = False, told: bool = False, log: Callable[[str], None] = lambda message: None
) -> FileLock | buckets.Lease | str:
    """Takes the lock that a file stands for: one of the system on a disk, a lease in a bucket.

    Args:
      path: path of the file; its directory must exist.
      patient: whether to wait for a holder that lives.
      told: whether to write into the file which process holds it, for the description; a lease always tells.
      log: receives a message if it takes a while to see whether the holder of a lease lives.

    Returns:
      The lock, or a description of the process that holds it.
    """
    if isinstance(path, BucketPath):
        return buckets.take(str(path), patient=patient, log=log)
    file = path.open("a+", encoding="utf-8")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if patient else fcntl.LOCK_NB))
    except BlockingIOError:
        file.seek(0)
        with file:
            return file.read().strip() or "another process"
    if told:
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
    return FileLock(file)


@contextlib.contextmanager
def replacing(path: pathlib.Path, mode: str = "w", *, shared: bool = False, **options: Any) -> Iterator[IO[Any]]:
    """Opens a temporary file that atomically replaces `path` when it is closed.

    Readers never see a half-written file, and neither a kill nor a power failure leaves one: the content is on disk
    before the name is. In a bucket, the object is replaced as a whole.

    Args:
      path: path of the file to create or replace.
      mode: mode of the file, `w` for text in UTF-8 or `wb`.
      shared: whether other processes may write the same file at the same time; each then gets a temporary file of its
        own.
      **options: more arguments of `open`.

    Yields:
      The temporary file, in the same directory. It is renamed at the end, and removed if an exception is raised.
    """
    options = options if "b" in mode else {"encoding": "utf-8"} | options
    if isinstance(path, BucketPath):
        content = io.BytesIO()
        yield (file := content if "b" in mode else io.TextIOWrapper(content, **options))
        file.flush()
        path.write_bytes(content.getvalue())
        return
    temporary = path.with_name(f"{path.name}{f'.{uuid.uuid4().hex}' if shared else ''}.tmp")
    try:
        with open(temporary, mode, **options) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def write_json(path: pathlib.Path, value: Any) -> None:
    """Writes a JSON record atomically; it is on disk when this returns. See `replacing`."""
    with replacing(path) as file:
        file.write(json.dumps(value, indent=2) + "\n")


def append_line(path: pathlib.Path, record: Any) -> None:
    """Appends a line to a file of JSON lines; it is on disk when this returns.

    An incomplete last line, which a kill in the middle of an earlier append has left, is removed first. In a bucket the
    line is there before the next checkpoint is; see `buckets.tails`.
    """
    if isinstance(path, BucketPath):
        buckets.append_line(path, f"{json.dumps(record)}\n".encode())
        return
    with path.open("a+b") as file:
        trim(file)
        file.write(f"{json.dumps(record)}\n".encode())
        file.flush()
        os.fsync(file.fileno())


def trim(file: IO[bytes]) -> int:
    """Removes an incomplete last line from a file that is open for reading and writing; returns its bytes."""
    size = end = file.seek(0, os.SEEK_END)
    while end:  # backwards, by parts, to the newest end of a line
        low = max(0, end - 2**16)
        file.seek(low)
        last = file.read(end - low).rfind(b"\n")
        end = low if last < 0 else low + last + 1
        if last >= 0:
            break
    if end < size:
        file.truncate(end)
    return size - end


def read_json(path: pathlib.Path, form: Any, *, remedy: str) -> Any:
    """Reads a JSON record and checks its form. All JSON records of the package are read here or by `read_lines`.

    Args:
      path: path of the file.
      form: expected type: `int`, `float` (which takes an integer too), `str`, `bool`, `None`, `Any`, `list[...]`,
        `dict[str, ...]`, a union, a `TypedDict`, a dataclass, or a tuple of types that must all fit. Keys that a
        `TypedDict` or a dataclass does not have are not checked.
      remedy: what the user can do, for the message; it follows a colon.

    Returns:
      The record.

    Raises:
      InvalidInputError: if the file is missing, cannot be read, is not JSON, or has another form; the message names the
        file, what is wrong, and the remedy.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except StorageError:
        raise
    except (OSError, ValueError) as error:
        raise InvalidInputError(f"{path} cannot be read ({error}): {remedy}") from error
    return _parsed(text, form, f"{path}", remedy)


def read_lines(path: pathlib.Path, form: Any, *, remedy: str) -> list[Any]:
    """Reads a file of JSON lines, without an incomplete last line; returns no lines if the file does not exist.

    Args:
      path: path of the file.
      form: expected type of every line, as for `read_json`.
      remedy: what the user can do, for the message.

    Returns:
      The lines.

    Raises:
      InvalidInputError: as for `read_json`; the message names the line too.
    """
    try:
        lines = read_log(path).decode().split("\n")[:-1]
    except FileNotFoundError:
        return []
    except StorageError:
        raise
    except (OSError, ValueError) as error:
        raise InvalidInputError(f"{path} cannot be read ({error}): {remedy}") from error
    return [_parsed(line, form, f"line {number} of {path}", remedy) for number, line in enumerate(lines, 1)]


def read_log(path: pathlib.Path) -> bytes:
    """Reads a file of lines; in a bucket, all of its parts."""
    return buckets.read_log(path) if isinstance(path, BucketPath) else path.read_bytes()


def write_log(path: pathlib.Path, content: bytes) -> None:
    """Replaces a file of lines, which in a bucket may have several parts."""
    if isinstance(path, BucketPath):
        buckets.write_log(path, content)
        return
    with replacing(path, "wb") as file:
        file.write(content)


def _parsed(text: str, form: Any, what: str, remedy: str) -> Any:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(f"{what} is damaged ({error}): {remedy}") from error
    if fault := misfit(value, form):
        raise InvalidInputError(f"{what} is damaged: {fault}: {remedy}")
    return value


_MISSING = object()  # stands for the value of a key that is not there


def misfit(value: Any, form: Any, where: str = "") -> str:
    """Describes where a JSON value differs from its expected form; empty if it fits.

    Args:
      value: value to check.
      form: expected type, as for `read_json`.
      where: name of the value, for the description.
    """
    if value is _MISSING:
        return f"{where} is missing"
    if typing.get_origin(form) in (typing.Union, types.UnionType):
        faults = [misfit(value, one, where) for one in typing.get_args(form)]
        return "" if "" in faults else faults[0]
    if isinstance(form, tuple):
        return next(filter(None, (misfit(value, one, where) for one in form)), "")
    return _wrong_kind(value, form, where) or next(
        filter(None, (misfit(*part) for part in _parts(value, form, where))), ""
    )


def _kind(form: Any) -> Any:
    return dict if typing.is_typeddict(form) or dataclasses.is_dataclass(form) else typing.get_origin(form) or form


def _wrong_kind(value: Any, form: Any, where: str) -> str:
    kind = _kind(form)
    accepted = {Any: (object,), float: (float, int)}.get(kind, (kind,))
    if isinstance(value, accepted) and (kind in (Any, bool) or not isinstance(value, bool)):
        return ""
    shown = json.dumps(value)
    expected = {dict: "an object", list: "a list", types.NoneType: "null"}.get(kind, getattr(kind, "__name__", ""))
    return f"{where or 'the record'} is {shown if len(shown) < 80 else shown[:77] + '...'}, expected {expected}"


def _parts(value: Any, form: Any, where: str) -> list[tuple[Any, Any, str]]:
    """Returns the values inside a list or an object that are to be checked, each with its form and its name."""
    inner = typing.get_args(form)
    if _kind(form) is list and inner:
        return [(one, inner[0], f"{where}[{index}]") for index, one in enumerate(value)]
    if _kind(form) is not dict:
        return []
    before = f"{where}." if where else ""
    if inner:
        return [(one, inner[1], f"{before}{key}") for key, one in value.items()]
    fields = {} if form is dict else typing.get_type_hints(form)
    wanted = fields.keys() - getattr(form, "__optional_keys__", frozenset()) | fields.keys() & value.keys()
    return [(value.get(key, _MISSING), fields[key], f"{before}{key}") for key in fields if key in wanted]
