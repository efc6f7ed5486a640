"""Arrays and files on the host: conversion of image ranges, placement on devices, and atomic replacement of files."""

import contextlib
import json
import os
import pathlib
import tempfile
import uuid
from collections.abc import Iterator
from typing import IO, Any

import jax
import numpy as np
from jax.sharding import Sharding
from jaxtyping import Array

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


def user_path(path: str | os.PathLike[str], name: str) -> pathlib.Path:
    """Resolves a path given by the user: `~` is the home directory, as the shell leaves it in `--workdir=~/x`.

    Args:
      path: path as given.
      name: name of the argument, for the message.

    Returns:
      The path.

    Raises:
      InvalidInputError: for an empty path, which would mean the current directory (a variable of the shell that is not
        set gives one), or the home directory of a user that does not exist.
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
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError as error:
        raise InvalidInputError(
            f"{what}: files cannot be created in {str(directory)!r} ({error}): name another directory, or change its "
            "permissions"
        ) from error


@contextlib.contextmanager
def replacing(path: pathlib.Path, mode: str = "w", *, shared: bool = False, **options: Any) -> Iterator[IO[Any]]:
    """Opens a temporary file that atomically replaces `path` when it is closed.

    Readers never see a half-written file, and a kill never leaves one.

    Args:
      path: path of the file to create or replace.
      mode: mode of the file, `w` for text in UTF-8 or `wb`.
      shared: whether other processes may write the same file at the same time; each then gets a temporary file of its
        own.
      **options: more arguments of `open`.

    Yields:
      The temporary file, in the same directory. It is renamed at the end unless an exception is raised.
    """
    temporary = path.with_name(f"{path.name}{f'.{uuid.uuid4().hex}' if shared else ''}.tmp")
    with open(temporary, mode, **({} if "b" in mode else {"encoding": "utf-8"}) | options) as file:
        yield file
    os.replace(temporary, path)


def write_json(path: pathlib.Path, value: Any) -> None:
    """Writes a JSON file atomically; see `replacing`."""
    with replacing(path) as file:
        file.write(json.dumps(value, indent=2) + "\n")
