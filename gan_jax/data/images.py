"""Functions that all image sources share: resizing, checks, and the choice between memory and streaming."""

import pathlib
import sys
import time
from collections.abc import Sequence

import numpy as np
from PIL import Image

from gan_jax.data.sources import Arrays, Reader, Records
from gan_jax.host import user_path
from gan_jax.types import InvalidInputError

RESIDENT_BYTES = 2**30


def directory(path: str, what: str) -> pathlib.Path:
    """Resolves a directory given by the user. An empty path is an error: it would mean the current directory."""
    if not path:
        raise InvalidInputError(f"data_dir is missing: {what}, such as --config.data_dir=DIR")
    root = user_path(path, "data_dir")
    if not root.is_dir():
        raise InvalidInputError(f"data_dir={path!r} does not exist: expected {what}")
    return root


def check_format(image_size: int | None, channels: int | None) -> None:
    """Raises for sizes below one pixel, and for numbers of channels other than 1 and 3."""
    if image_size is not None and image_size < 1:
        raise InvalidInputError(f"image_size={image_size}: expected at least 1 pixel")
    if channels not in (None, 1, 3):
        raise InvalidInputError(f"channels={channels}: expected 1 (grey) or 3 (colour)")


def resize(image: np.ndarray, image_size: int | None, channels: int | None) -> np.ndarray:
    """Crops an image to its largest central square, resizes it with antialiasing, and converts it to grey or colour.

    Args:
      image: `[h, w, c]`, uint8.
      image_size: requested height and width; None keeps the size and does not crop.
      channels: 1 for grey, 3 for colour; None keeps the channels.

    Returns:
      `[image_size, image_size, channels]`, uint8.
    """
    if (
        channels not in (None, image.shape[-1])
        or image_size not in (None, image.shape[0])
        or (image_size is not None and image.shape[0] != image.shape[1])
    ):
        picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
        if channels not in (None, image.shape[-1]):
            picture = picture.convert({1: "L", 3: "RGB"}[channels])
        if image_size is not None:
            side = min(picture.size)
            left, top = (picture.width - side) // 2, (picture.height - side) // 2
            box = (left, top, left + side, top + side)
            picture = picture.resize((image_size, image_size), Image.Resampling.LANCZOS, box=box)
        image = np.asarray(picture)
    return image if image.ndim == 3 else image[..., None]


def stack(examples: list[dict[str, np.ndarray]], name: str) -> dict[str, np.ndarray]:
    """Stacks examples into arrays with a leading axis; raises if their shapes differ."""
    for key, first in examples[0].items():
        shapes = sorted({np.shape(example[key]) for example in examples})
        if len(shapes) > 1:
            raise InvalidInputError(
                f"{name}: {key!r} has several shapes (first {np.shape(first)}, all {shapes}): set image_size (and "
                "channels) to bring all images to one shape"
            )
    return {key: np.stack([example[key] for example in examples]) for key in examples[0]}


def hold_or_stream(
    name: str,
    reader: Reader,
    num_classes: int | None,
    resident_bytes: int = RESIDENT_BYTES,
    class_names: Sequence[str] = (),
) -> Arrays | Records:
    """Returns a source in memory if the decoded examples take at most `resident_bytes`, and else one that streams."""
    size, chunk = len(reader), 1024
    first = reader.read(np.zeros(1, int))  # the size of all examples is estimated from this one
    if size * sum(value.nbytes for value in first.values()) > resident_bytes:
        return Records(name, reader, num_classes, tuple(class_names))
    parts: list[dict[str, np.ndarray]] = []
    start = shown = time.monotonic()
    for low in range(0, size, chunk):
        parts.append(reader.read(np.arange(low, min(low + chunk, size))))
        if {key: value.shape[1:] for key, value in parts[-1].items()} != {k: v.shape[1:] for k, v in first.items()}:
            raise InvalidInputError(f"{name}: images differ in shape from example {low} on: set image_size")
        now = time.monotonic()
        if now - shown > 5:
            shown = now
            done = min(low + chunk, size)
            eta = (now - start) / done * (size - done)
            print(f"reading {name}: {done:,} of {size:,}, ETA {eta:.0f} s", file=sys.stderr, flush=True)
    arrays = {key: np.concatenate([part[key] for part in parts]) for key in first}
    return Arrays(name, arrays, num_classes, tuple(class_names))
