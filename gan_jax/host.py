"""What the host does with arrays and files: the two ranges of images, placement on devices, files in one piece."""

import contextlib
import json
import os
import pathlib
import uuid
from collections.abc import Iterator
from typing import IO, Any

import jax
import numpy as np
from jax.sharding import Sharding
from jaxtyping import Array

from gan_jax.types import InvalidInputError


def from_uint8(images: Any) -> Any:
    """Images of 0 to 255 as float32 in [-1, 1]: x / 127.5 - 1; a numpy array stays one."""
    return images.astype(np.float32) / 127.5 - 1.0


def to_uint8(images: np.ndarray) -> np.ndarray:
    """Images in [-1, 1] as uint8, to the nearest, as they would be in files.

    Raises:
      InvalidInputError: for images that are not finite, which would be black.
    """
    if not np.isfinite(images).all():
        raise InvalidInputError("samples are not finite: the generator has diverged; evaluate an earlier checkpoint")
    return np.clip(np.round((images + 1.0) * 127.5), 0, 255).astype(np.uint8)


def put(x: Any, sharding: Sharding) -> Array:
    """An array that every process has whole, on the devices of a sharding; a key array too."""
    if isinstance(x, jax.Array) and x.sharding == sharding:
        return x
    if sharding.is_fully_addressable:
        return jax.device_put(x, sharding)
    if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(put(np.asarray(jax.random.key_data(x)), sharding), impl=jax.random.key_impl(x))
    host = np.asarray(x)
    return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])


@contextlib.contextmanager
def replacing(path: pathlib.Path, mode: str = "w", *, shared: bool = False, **options: Any) -> Iterator[IO[Any]]:
    """A file that takes the place of another in one piece, when it is closed: a reader, or a kill, meets no half.

    Args:
      path: of the file that is replaced, if it is there.
      mode: `w` or `wb`.
      shared: whether other processes may write the same file at the same time.
      **options: of `open`.

    Yields:
      The new file, under another name in the same directory.
    """
    temporary = path.with_name(f"{path.name}{f'.{uuid.uuid4().hex}' if shared else ''}.tmp")
    with open(temporary, mode, **options) as file:
        yield file
    os.replace(temporary, path)


def write_json(path: pathlib.Path, value: Any) -> None:
    """Writes a JSON file in one piece."""
    with replacing(path) as file:
        file.write(json.dumps(value, indent=2) + "\n")
