"""Stacked-MNIST: three digits as the channels of one image, a distribution with a thousand modes."""

import dataclasses
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from gan_jax.data import order
from gan_jax.data.sources import Arrays, Feed, Source, describe, fingerprint, to_model
from gan_jax.types import Batch, InvalidInputError, Spec

CHANNELS = 3


@dataclasses.dataclass(frozen=True)
class Stacked:
    """Images of one channel, three at a time, each drawn on its own; endless, and held on the device.

    Every channel goes through the images in an order of its own, shuffled anew each epoch, so that each image is as
    frequent as any other, and a batch is a function of (seed, step).

    Attributes:
      name: for the log.
      images: `[n, h, w, 1]`, uint8.
      classes: `[n]`, what each image shows, from 0 to 9; an example's mode is 100 a + 10 b + c.
    """

    name: str
    images: np.ndarray
    classes: np.ndarray

    @property
    def num_classes(self) -> None:
        """Modes are not given to the game."""
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
        """Of every byte."""
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
            return {"real": to_model("real", jnp.moveaxis(data[index][..., 0], -3, -1))}

        def input_spec(length: int) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct((length, draws, len(local_indices), CHANNELS), jnp.int32)

        return Feed(self.images, input_spec, fetch, stream)

    def choose(self, seed: int, positions: np.ndarray) -> np.ndarray:
        """Which images are stacked at the positions of the endless sequence: `[..., 3]`."""
        size = len(self.images)
        return np.stack([order.indices(seed + (channel << 56), positions, size) for channel in range(CHANNELS)], -1)

    def __len__(self) -> int:
        """As many as there are images; every one is a third of three of these."""
        return len(self.images)

    def read(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """Fixed examples, of seed 0."""
        chosen = self.choose(0, indices)
        return {"real": np.moveaxis(self.images[chosen][..., 0], -3, -1)}

    def labelled(self) -> tuple[np.ndarray, np.ndarray, int]:
        """Single digits, what each shows, and the number of classes: what a classifier learns from."""
        return self.images, self.classes, 10

    def modes(self, indices: np.ndarray) -> np.ndarray:
        """Modes of those that `read` gives."""
        return self.classes[self.choose(0, indices)] @ np.array([100, 10, 1])


def stacked(source: Source, image_size: int | None = None) -> Stacked:
    """Stacked digits, of a source of single ones.

    Args:
      source: images uint8 `[n, h, w, 1]` in memory, with labels from 0 to 9: MNIST.
      image_size: pad with black to this height and width, such as from 28 to 32; None for none.

    Returns:
      The source.

    Raises:
      InvalidInputError: for a source without such images or labels, or a size that is below theirs.

    References:
      Metz et al., "Unrolled Generative Adversarial Networks", arXiv:1611.02163, 2017; Srivastava et al., "VEEGAN",
      arXiv:1705.07761, 2017. Some code stacks a fixed set of 25,600 or 128,000 triples once; here triples are endless.
    """
    if not isinstance(source, Arrays):
        raise InvalidInputError(f"{source.name}: expected images in memory, which a data set as small as MNIST's are")
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
