"""Functions that all image sources share: resizing, checks, and the choice between memory and streaming."""

import concurrent.futures
import pathlib
import sys
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
from PIL import Image

from gan_jax.data.sources import Arrays, Reader, Records
from gan_jax.host import user_path
from gan_jax.types import InvalidInputError

RESIDENT_BYTES = 2**30
FITS = ("crop", "stretch")
_CHUNK, _THREADS = 64, 8  # examples of one piece of work, and pieces at once
_SHOWN = 20  # of many broken images the message names the first ones

T = TypeVar("T")


class BrokenImagesError(InvalidInputError):
    """Raised by readers for examples that cannot be decoded, with one line for each."""


def directory(path: str, what: str) -> pathlib.Path:
    """Resolves a directory given by the user. An empty path is an error: it would mean the current directory."""
    if not path:
        raise InvalidInputError(f"data_dir is missing: {what}, such as --config.data_dir=DIR")
    root = user_path(path, "data_dir")
    if not root.is_dir():
        raise InvalidInputError(
            f"data_dir={path!r} does not exist: expected {what}; if the data were moved, their new place"
        )
    return root


def check_size(image_size: int | None) -> None:
    """Raises for sizes below one pixel."""
    if image_size is not None and image_size < 1:
        raise InvalidInputError(f"image_size={image_size}: expected at least 1 pixel")


def check_fit(fit: str) -> None:
    """Raises for an unknown way of making images square."""
    if fit not in FITS:
        raise InvalidInputError(
            f"fit={fit!r}: expected 'crop' (the largest central square) or 'stretch' (the whole image, of any shape)"
        )


def resize(image: np.ndarray, image_size: int | None, fit: str = "crop") -> np.ndarray:
    """Makes an image square, with antialiasing.

    Args:
      image: `[h, w, c]`, uint8.
      image_size: requested height and width; None keeps the size and does not crop.
      fit: `crop` resizes the largest central square, by Lanczos interpolation; `stretch` the whole image, ignoring its
        ratio of height to width, by bicubic interpolation, as pix2pix and CycleGAN do.

    Returns:
      `[image_size, image_size, c]`, uint8.
    """
    if image_size is None or image.shape[:2] == (image_size, image_size):
        return image
    picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
    if fit == "stretch":
        stretched = np.asarray(picture.resize((image_size, image_size), Image.Resampling.BICUBIC))
        return stretched.reshape(image_size, image_size, image.shape[-1])
    side = min(picture.size)
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    box = (left, top, left + side, top + side)
    resized = np.asarray(picture.resize((image_size, image_size), Image.Resampling.LANCZOS, box=box))
    return resized.reshape(image_size, image_size, image.shape[-1])


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


def in_threads(work: Callable[[np.ndarray], T], size: int, doing: str) -> list[T]:
    """Calls a function for all examples, in threads and with progress on stderr.

    Args:
      work: takes the indices of some examples.
      size: number of examples.
      doing: what is done, for the progress line.

    Returns:
      What `work` returned, in the order of the examples.
    """
    made: list[T] = []
    start = shown = time.monotonic()
    pool = concurrent.futures.ThreadPoolExecutor(_THREADS)
    try:
        chunks = [np.arange(low, min(low + _CHUNK, size)) for low in range(0, size, _CHUNK)]
        for result in pool.map(work, chunks):
            made.append(result)
            now, done = time.monotonic(), min(len(made) * _CHUNK, size)
            if now - shown > 5:
                shown = now
                eta = (now - start) / done * (size - done)
                print(f"{doing}: {done:,} of {size:,}, ETA {eta:.0f} s", file=sys.stderr, flush=True)
    finally:
        pool.shutdown(cancel_futures=True)
    return made


def refuse_broken(lines: Sequence[str]) -> None:
    """Raises for broken images, if there are any, with one line for each of the first ones."""
    if lines:
        more = [f"and {len(lines) - _SHOWN:,} more"] if len(lines) > _SHOWN else []
        raise InvalidInputError("\n".join([*lines[:_SHOWN], *more]))


def hold_or_stream(
    name: str,
    reader: Reader,
    num_classes: int | None,
    resident_bytes: int = RESIDENT_BYTES,
    class_names: Sequence[str] = (),
    notes: Sequence[str] = (),
    check: bool = False,
) -> Arrays | Records:
    """Returns a source in memory if the decoded examples take at most `resident_bytes`, and else one that streams.

    Args:
      name: name of the data set in the log.
      reader: random access to the examples.
      num_classes: number of classes; None without labels.
      resident_bytes: the largest size that is held in memory.
      class_names: names of the classes.
      notes: lines for the summary.
      check: whether to decode all examples of a source that streams once, so that a broken one is found before the
        training begins, and not by its batch.

    Returns:
      The source.

    Raises:
      InvalidInputError: if examples cannot be decoded, or if they differ in shape.
    """
    size = len(reader)
    first = reader.read(np.zeros(1, int))  # the size of all examples is estimated from this one
    shapes = {key: value.shape[1:] for key, value in first.items()}
    held = size * sum(value.nbytes for value in first.values()) <= resident_bytes

    def part(indices: np.ndarray) -> dict[str, np.ndarray] | str:
        try:
            read = reader.read(indices)
        except BrokenImagesError as error:
            return str(error)
        if {key: value.shape[1:] for key, value in read.items()} != shapes:
            raise InvalidInputError(f"{name}: images differ in shape from example {indices[0]} on: set image_size")
        return read if held else {}

    parts = in_threads(part, size, f"reading {name}" if held else f"checking {name}") if held or check else []
    refuse_broken([line for lines in parts if isinstance(lines, str) for line in lines.split("\n")])
    if not held:
        return Records(name, reader, num_classes, tuple(class_names), notes=tuple(notes))
    arrays = {key: np.concatenate([part[key] for part in parts if not isinstance(part, str)]) for key in first}
    return Arrays(name, arrays, num_classes, tuple(class_names), tuple(notes))
