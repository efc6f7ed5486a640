"""Stacked-MNIST: three digits as the channels of one image, a distribution with 1,000 modes."""

import dataclasses
import functools
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from gan_jax.data import order
from gan_jax.data.rows import gathered, rows
from gan_jax.data.sources import Arrays, Feed, Source, describe, fingerprint, to_model
from gan_jax.types import Batch, InvalidInputError, Spec

CHANNELS = 3


@dataclasses.dataclass(frozen=True)
class Stacked:
    """An endless source of images whose three channels are drawn independently; the digits are held on the device.

    Each channel traverses the single-channel images in its own order, reshuffled every epoch. All images are therefore
    equally frequent, and a batch is a function of (seed, step).

    Attributes:
      name: name of the source in the log.
      images: single-channel images, `[n, h, w, 1]`, uint8.
      classes: digit that each image shows, 0 to 9, `[n]`; an example with digits a, b, c has mode 100 a + 10 b + c.
    """

    name: str
    images: np.ndarray
    classes: np.ndarray

    @property
    def num_classes(self) -> None:
        """None: the modes are not delivered as labels."""
        return None

    @property
    def class_names(self) -> tuple[str, ...]:
        return ()

    @property
    def spec(self) -> Spec:
        height, width = self.images.shape[1:3]
        return {"real": jax.ShapeDtypeStruct((height, width, CHANNELS), jnp.float32)}

    def summary(self) -> str:
        shown = describe({"real": self.images[:1000]}, None)
        return f"{self.name}: {len(self.images):,} images, stacked by {CHANNELS} at random, on the device\n{shown}"

    def fingerprint(self) -> str:
        """Returns a hash of every byte of the images and classes."""
        return fingerprint({"images": self.images, "classes": self.classes}, CHANNELS)

    def feed(self, seed: int, draws: int, batch_size: int, local_indices: order.LocalIndices) -> Feed:
        def stream(start: int, length: int) -> Iterator[np.ndarray]:
            while True:
                steps = range(start, start + length)
                where = np.stack([order.positions(step, draws, batch_size, local_indices) for step in steps])
                yield self.choose(seed, where)
                start += length

        def fetch(data: jax.Array, index: jax.Array, step: jax.Array) -> Batch:
            del step
            images = gathered(data, index, self.images.shape[1:])
            return {"real": to_model("real", jnp.moveaxis(images[..., 0], -3, -1))}

        def input_spec(length: int) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct((length, draws, len(local_indices), CHANNELS), jnp.int32)

        return Feed(self._rows, input_spec, fetch, stream)

    @functools.cached_property
    def _rows(self) -> np.ndarray:
        """The images as rows; made once, since members of a population share arrays that are the same object."""
        return rows(self.images)

    def choose(self, seed: int, positions: np.ndarray) -> np.ndarray:
        """Returns the indices of the images that are stacked at positions of the endless sequence, `[..., 3]`."""
        size = len(self.images)
        # The channel goes into the high bits of the seed, which gives each channel its own order.
        return np.stack([order.indices(seed + (channel << 56), positions, size) for channel in range(CHANNELS)], -1)

    def __len__(self) -> int:
        """Returns the number of images, which is also the number of stacked examples per epoch."""
        return len(self.images)

    def read(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """Returns the stacked examples at the indices, always those of seed 0."""
        chosen = self.choose(0, indices)
        return {"real": np.moveaxis(self.images[chosen][..., 0], -3, -1)}

    def labelled(self) -> tuple[np.ndarray, np.ndarray, int]:
        """Returns the single digits, their classes and the number of classes, to train a classifier on."""
        return self.images, self.classes, 10

    def modes(self, indices: np.ndarray) -> np.ndarray:
        """Returns the modes of the examples that `read` returns for these indices."""
        return self.classes[self.choose(0, indices)] @ np.array([100, 10, 1])


def stacked(source: Source, image_size: int | None = None) -> Stacked:
    """Makes a source of stacked digits from a source of single digits.

    Args:
      source: single digits, such as MNIST: uint8 images `[n, h, w, 1]` in memory, with labels from 0 to 9.
      image_size: height and width to which images are padded with black, such as 28 to 32; None for no padding.

    Returns:
      The source of stacked digits.

    Raises:
      InvalidInputError: if the source has no such images or labels, or if `image_size` is smaller than the images.

    References:
      Metz et al., "Unrolled Generative Adversarial Networks", arXiv:1611.02163, 2017; Srivastava et al., "VEEGAN",
      arXiv:1705.07761, 2017. Some public code stacks a fixed set of 25,600 or 128,000 triples once; here triples are
      drawn without end.
    """
    if not isinstance(source, Arrays):
        raise InvalidInputError(f"{source.name}: expected a data set held in memory, as MNIST is by default")
    images, labels = source.arrays.get("real"), source.arrays.get("label")
    if images is None or images.ndim != 4 or images.shape[-1] != 1 or images.dtype != np.uint8 or labels is None:
        raise InvalidInputError(f"{source.name}: expected uint8 images [n, h, w, 1] with labels (labels=True)")
    if source.num_classes != 10:
        raise InvalidInputError(f"{source.name} has {source.num_classes} classes: expected the ten digits")
    margins = [0, 0] if image_size is None else [image_size - size for size in images.shape[1:3]]
    if min(margins) < 0:
        raise InvalidInputError(f"image_size={image_size}: expected {max(images.shape[1:3])} or more")
    sides = [(margin // 2, margin - margin // 2) for margin in margins]
    padded = np.pad(images, [(0, 0), *sides, (0, 0)])
    return Stacked(f"stacked {source.name}", padded, np.asarray(labels, np.int64))
