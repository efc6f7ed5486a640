"""Digits in two domains, plain, and inverted, coloured and turned: unpaired data whose true translation is known."""

import numpy as np

from gan_jax.data.combine import Combined, unpaired
from gan_jax.data.sources import Arrays, Source
from gan_jax.types import InvalidInputError

PAPER, INK = (255, 200, 80), (40, 30, 160)  # colours of the turned digits: dark blue on orange


def turned(images: np.ndarray, turns: int = 1) -> np.ndarray:
    """Translates digits to the other domain: inverts and colours them, and turns them left by 90 degrees.

    (1 - v) paper + v ink, for grey values v from 0 (the ground of a digit) to 1 (its strokes).

    Args:
      images: grey digits `[n, h, h, 1]`, or the same in three equal channels, uint8: light on dark.
      turns: number of times that they are turned; 0 leaves them upright.

    Returns:
      `[n, h, h, 3]`, uint8: dark blue on orange.

    Example:
      >>> print(turned(np.array([[[[0], [255]], [[0], [0]]]], np.uint8))[0, 0])
      [[ 40  30 160]
       [255 200  80]]
    """
    strokes = images[..., :1].astype(np.float32) / 255.0
    coloured = (1.0 - strokes) * np.array(PAPER, np.float32) + strokes * np.array(INK, np.float32)
    return np.rint(np.rot90(coloured, turns, axes=(1, 2))).astype(np.uint8)


def turned_digits(source: Source, image_size: int = 32, *, turns: int = 1) -> Combined:
    """Makes two domains without pairs: `'a'`, digits, and `'b'`, other digits that are inverted, coloured and turned.

    The first half of the examples is a and the second half b, so that no digit is on both sides. What a translation
    should be is known: `turned`. No label is delivered.

    Args:
      source: digits, `[n, h, h, 1]` uint8 as `'real'`, such as MNIST's training part.
      image_size: height and width that images are padded to with black: 28 to 32.
      turns: number of times that the digits of b are turned; see `turned`.

    Returns:
      The combined source, of uint8 images in three channels.

    Raises:
      InvalidInputError: if the source has other images, or `image_size` is smaller than they are.
    """
    images, _ = _digits(source, image_size)
    half = len(images) // 2
    return unpaired(
        a=Arrays(f"{source.name}, first half", {"real": images[:half]}),
        b=Arrays(f"{source.name}, second half, turned", {"real": turned(images[half:], turns)}),
    )


def turned_digit_pairs(source: Source, image_size: int = 32, *, turns: int = 1) -> Arrays:
    """Returns the digits of a source with their true translations, to test what `turned_digits` has taught.

    Args:
      source: digits with labels, such as MNIST's test part.
      image_size: height and width that images are padded to with black.
      turns: number of times that the digits of b are turned; see `turned`.

    Returns:
      The source: digits `'a'`, their translations `'b'`, both `[image_size, image_size, 3]` uint8, and `'label'` if
      `source` has labels.

    Raises:
      InvalidInputError: as for `turned_digits`.
    """
    images, labels = _digits(source, image_size)
    arrays = {"a": images, "b": turned(images, turns)} | ({} if labels is None else {"label": labels})
    return Arrays(f"{source.name} and its translations", arrays, source.num_classes, source.class_names)


def _digits(source: Source, image_size: int) -> tuple[np.ndarray, np.ndarray | None]:
    """Reads all digits of a source, pads them with black, and repeats them in three channels."""
    held = source.read(np.arange(len(source)))
    images = held.get("real")
    if images is None or images.ndim != 4 or images.shape[-1] != 1 or images.dtype != np.uint8:
        has = ", ".join(f"{name} {x.shape} {x.dtype}" for name, x in held.items())
        raise InvalidInputError(f"{source.name} has {has}: expected grey uint8 digits 'real' [n, h, h, 1]")
    height, width = images.shape[1:3]
    if height != width or image_size < height:
        raise InvalidInputError(f"image_size={image_size} for digits of {height}x{width}: expected square ones, padded")
    margin = image_size - height
    side = (margin // 2, margin - margin // 2)
    padded = np.pad(images, [(0, 0), side, side, (0, 0)])
    return padded.repeat(3, axis=-1), held.get("label")
