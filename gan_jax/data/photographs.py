"""Patches of the two photographs inside scikit-learn: real images in colour, without a download."""

import numpy as np

from gan_jax.data.sources import Arrays
from gan_jax.types import InvalidInputError

NAMES = ("china", "flower")
_HELD_OUT = (256, 384)  # columns of both photographs that `test` consists of; a temple's wing, petals, trees and water
_GOLDEN = 0.6180339887498949  # multiples of it, modulo 1, fill an interval evenly, however many there are
_STRIDE = {"train": 8, "test": 16}  # pixels from one patch to the next


def photographs(part: str = "train", *, labels: bool = False, image_size: int = 64) -> Arrays:
    """Returns overlapping patches of scikit-learn's two photographs, a temple and a flower, as `'real'`.

    A band of 128 columns in the middle of both, of 640, is held out: no pixel of `test` is in `train`.

    Args:
      part: `train`: patches every 8 pixels, 4,600 of 64x64 pixels; `test`: every 16 pixels, 230.
      labels: whether to deliver the photograph as `'label'`: 0 for the temple, 1 for the flower.
      image_size: height and width of the patches, at most 128.

    Returns:
      The source, of uint8 images `[image_size, image_size, 3]`.

    Raises:
      InvalidInputError: for another part, or patches that are larger than the held-out band.

    References:
      `sklearn.datasets.load_sample_images`: china.jpg and flower.jpg, of 640x427 pixels.
    """
    low, high = _HELD_OUT
    if part not in _STRIDE:
        raise InvalidInputError(f"part={part!r}: expected {' or '.join(_STRIDE)}")
    if not 1 <= image_size <= high - low:
        raise InvalidInputError(f"image_size={image_size}: expected 1 to {high - low}, the width of the held-out band")
    from sklearn.datasets import load_sample_images  # noqa: PLC0415 - slow to import

    photos = load_sample_images().images
    regions = {"train": [(0, low), (high, photos[0].shape[1])], "test": [(low, high)]}[part]
    patches, targets = [], []
    for label, photo in enumerate(photos):
        for left, right in regions:
            windows = np.lib.stride_tricks.sliding_window_view(photo[:, left:right], (image_size, image_size), (0, 1))
            chosen = np.moveaxis(windows[:: _STRIDE[part], :: _STRIDE[part]], 2, -1)
            patches.append(chosen.reshape(-1, image_size, image_size, 3))
            targets += [label] * len(patches[-1])
    # The first few of `test`, which grids of pictures show, are from all over the photographs.
    order = np.argsort(np.arange(len(targets)) * _GOLDEN % 1.0) if part == "test" else np.arange(len(targets))
    arrays = {"real": np.concatenate(patches)[order]}
    if labels:
        arrays["label"] = np.asarray(targets, np.int32)[order]
    return Arrays(f"photographs ({part})", arrays, len(NAMES) if labels else None, NAMES if labels else ())
