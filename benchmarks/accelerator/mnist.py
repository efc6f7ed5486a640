"""MNIST from a file, since an accelerator's machine may have neither TFDS nor a network."""

import pathlib

import numpy as np

from benchmarks.accelerator.context import SkippedError
from gan_jax import data

_ARRAYS = {"train": ("x_train", "y_train"), "test": ("x_test", "y_test")}


def pack(file: pathlib.Path, directory: str) -> None:
    """Writes MNIST, which TFDS prepared in a directory, to a file in the format of Keras' mnist.npz; 11 MB."""
    arrays: dict[str, np.ndarray] = {}
    for split, (images, labels) in _ARRAYS.items():
        found = data.tfds_images("mnist", data_dir=directory, labels=True, split=split)
        assert isinstance(found, data.Arrays)
        arrays |= {images: found.arrays["real"][..., 0], labels: found.arrays["label"]}
    with file.open("wb") as stream:
        np.savez_compressed(stream, allow_pickle=False, **arrays)
    print(f"{file}: {len(arrays['x_train']):,} and {len(arrays['x_test']):,} digits")


def load(path: str, split: str) -> data.Arrays:
    """Reads a split.

    Raises:
      SkippedError: if no file is given, or it has not the arrays of Keras' file.
    """
    if not path:
        raise SkippedError("needs MNIST: give --mnist=FILE, which --pack_mnist=FILE makes elsewhere")
    images, labels = _ARRAYS[split]
    with np.load(path, allow_pickle=False) as file:
        if missing := {images, labels} - set(file.files):
            raise SkippedError(
                f"--mnist={path} has no {', '.join(sorted(missing))}: expected the format of Keras' mnist.npz"
            )
        return data.Arrays("mnist", {"real": file[images][..., None], "label": file[labels].astype(np.int64)}, 10)
