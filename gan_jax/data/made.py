"""Pairs made from single images, whose sources are degraded targets: colourisation, edges, inpainting, and others."""

import dataclasses
import functools
import hashlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float

from gan_jax.data.combine import Transformed
from gan_jax.data.sources import Source, to_model
from gan_jax.types import Batch, InvalidInputError, PRNGKey

Make = Callable[[PRNGKey, Array], Array]  # (key, image [h, w, c]) -> source image [h, w, k]
_LUMA = (0.299, 0.587, 0.114)  # of red, green and blue in the brightness that video and JPEG use (ITU-R BT.601)


def luma(image: Float[Array, "*b h w c"]) -> Float[Array, "*b h w 1"]:
    """Returns the brightness of images: 0.299 R + 0.587 G + 0.114 B of the stored values; grey images as they are."""
    if image.shape[-1] == 1:
        return image
    if image.shape[-1] != 3:
        raise InvalidInputError(f"images of shape {image.shape}: expected 1 channel (grey) or 3 (red, green, blue)")
    return image @ jnp.array(_LUMA, image.dtype)[:, None]


@dataclasses.dataclass(frozen=True)
class Colourisation:
    """Colourisation: the source is the brightness of the target, `[h, w, 1]`.

    Example:
      >>> red = jnp.array([1.0, -1.0, -1.0]).reshape(1, 1, 3)
      >>> print(Colourisation()(jax.random.key(0), red).round(3))
      [[[-0.402]]]
    """

    def __call__(self, key: PRNGKey, image: Float[Array, "h w c"]) -> Float[Array, "h w 1"]:
        """Returns the brightness of an image, `luma`, in [-1, 1]."""
        del key
        return luma(image)


@dataclasses.dataclass(frozen=True)
class EdgesToImage:
    """Edges to image: the source is a drawing of the target's edges, dark lines on white, `[h, w, 1]`.

    1 - 2 min(1, |g| / `steepness`), where g is the gradient of the brightness by Sobel's filters, in brightness (from
    -1 to 1) per pixel. pix2pix's data have edges from a network (HED); these need none.

    Attributes:
      steepness: gradient from which on a line is black.
    """

    steepness: float = 0.25

    def __post_init__(self) -> None:
        if not self.steepness > 0:
            raise InvalidInputError(f"steepness={self.steepness}: expected a positive gradient")

    def __call__(self, key: PRNGKey, image: Float[Array, "h w c"]) -> Float[Array, "h w 1"]:
        """Returns the drawing of an image's edges, in [-1, 1]."""
        del key
        grey = jnp.pad(luma(image)[..., 0], 1, mode="edge")
        down, across = (jnp.moveaxis(_sobel(jnp.moveaxis(grey, axis, 0)), 0, axis) for axis in (0, 1))
        length = jnp.hypot(down, across)
        return (1.0 - 2.0 * jnp.minimum(1.0, length / self.steepness))[..., None]


def _sobel(x: Float[Array, "h w"]) -> Float[Array, "p q"]:
    """Returns the derivative along the first axis, smoothed by [1, 2, 1] / 4 along the second."""
    slope = (x[2:] - x[:-2]) / 2.0
    return (slope[:, :-2] + 2.0 * slope[:, 1:-1] + slope[:, 2:]) / 4.0


@dataclasses.dataclass(frozen=True)
class Inpainting:
    """Inpainting: the source is the target with a rectangle at a random place that is grey.

    Attributes:
      share: height and width of the rectangle, as a share of the image's.
      centered: whether the rectangle is always in the middle, as in the paper.

    References:
      Pathak et al., "Context Encoders: Feature Learning by Inpainting", arXiv:1604.07379, 2016.
    """

    share: float = 0.5
    centered: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise InvalidInputError(f"share={self.share}: expected a share of the height and width, between 0 and 1")

    def __call__(self, key: PRNGKey, image: Float[Array, "h w c"]) -> Float[Array, "h w c"]:
        """Returns the image with the rectangle set to 0, the middle of [-1, 1]."""
        inside = []
        for own, extent in zip(jax.random.split(key), image.shape[:2], strict=True):
            side = max(1, round(self.share * extent))
            middle = jnp.asarray((extent - side) // 2)
            start = middle if self.centered else jax.random.randint(own, (), 0, extent - side + 1)
            place = jnp.arange(extent)
            inside.append((place >= start) & (place < start + side))
        return jnp.where((inside[0][:, None] & inside[1])[..., None], 0.0, image)


@dataclasses.dataclass(frozen=True)
class SuperResolution:
    """Super-resolution: the source is the target made smaller by `factor` and enlarged to its size again.

    Both by bicubic interpolation, with antialiasing on the way down.

    Attributes:
      factor: factor of the height and width, which it must divide.
    """

    factor: int = 4

    def __post_init__(self) -> None:
        if self.factor < 2:
            raise InvalidInputError(f"factor={self.factor}: expected 2 or more")

    def __call__(self, key: PRNGKey, image: Float[Array, "h w c"]) -> Float[Array, "h w c"]:
        """Returns the blurred image, clipped to [-1, 1]."""
        del key
        height, width, channels = image.shape
        if height % self.factor or width % self.factor:
            raise InvalidInputError(f"factor={self.factor} does not divide {height}x{width}: choose a divisor")
        small = (height // self.factor, width // self.factor, channels)
        return jnp.clip(jax.image.resize(jax.image.resize(image, small, "cubic"), image.shape, "cubic"), -1.0, 1.0)


@dataclasses.dataclass(frozen=True)
class Denoising:
    """Denoising: the source is the target plus Gaussian noise, clipped to [-1, 1].

    Attributes:
      std: standard deviation of the noise, for images in [-1, 1]; 25 of 255 grey levels, a usual test, is 0.196.
    """

    std: float = 0.2

    def __post_init__(self) -> None:
        if not self.std > 0:
            raise InvalidInputError(f"std={self.std}: expected a positive standard deviation")

    def __call__(self, key: PRNGKey, image: Float[Array, "h w c"]) -> Float[Array, "h w c"]:
        """Returns the noisy image."""
        return jnp.clip(image + self.std * jax.random.normal(key, image.shape, image.dtype), -1.0, 1.0)


@dataclasses.dataclass(frozen=True)
class Made(Transformed):
    """Pairs that `make` makes of the images of a source.

    Attributes:
      make: `(key, image) -> source image`, for one image.
    """

    make: Make

    @property
    def name(self) -> str:
        return f"{_described(self.make)} of {self.source.name}"

    def summary(self) -> str:
        shapes = ", ".join(f"{name} {x.shape}" for name, x in self.spec.items())
        return f"{self.name}: pairs, {shapes}\n{self.source.summary()}"

    def fingerprint(self) -> str:
        """Returns a hash of the source's fingerprint and of the function's name and parameters."""
        return hashlib.sha256(f"{super().fingerprint()} {_described(self.make)}".encode()).hexdigest()

    def read(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """Returns the pairs at the indices: `'b'` as it is stored, and `'a'`, whose randomness is fixed per index."""
        stored = self.source.read(indices)
        target = stored.pop("real")
        # On this process's own device, since one process may read alone.
        with jax.set_mesh(Mesh(np.array(jax.local_devices()[:1]), ("one",))):
            made = np.asarray(self._fixed(np.asarray(indices, np.int32), to_model("real", target)))
        return {"a": made, "b": target} | stored

    @functools.cached_property
    def _fixed(self) -> Callable[[np.ndarray, np.ndarray], Array]:
        def one(index: Array, image: Array) -> Array:
            return self.make(jax.random.fold_in(jax.random.key(0), index), image)

        return jax.jit(jax.vmap(one))


def _described(make: Make) -> str:
    if dataclasses.is_dataclass(make):
        return repr(make)
    return str(getattr(make, "__qualname__", type(make).__qualname__))


def made_pairs(source: Source, make: Make) -> Made:
    """Makes pairs of single images: the images are the targets, `'b'`, and `make` computes the sources, `'a'`.

    In training, `make` runs in the compiled step, with another key for each image and step, so that masks and noise are
    new each time. When the pairs are read by index, as for metrics and grids, the key is that of the index.

    Random crops and flips come before or after: `made_pairs(transformed(source, crop(64)), make)` makes pairs of
    crops, `transformed(made_pairs(source, make), crop(64))` cuts both of a pair alike.

    Args:
      source: images, as `'real'` `[h, w, c]`; further arrays, such as `'label'`, are delivered as they are.
      make: pure function `(key, image) -> source image` of one image `[h, w, c]` in [-1, 1]: `Colourisation()`,
        `EdgesToImage()`, `Inpainting()`, `SuperResolution()`, `Denoising()`, or your own.

    Returns:
      The source of pairs.

    Raises:
      InvalidInputError: if the source has no images.

    Example:
      >>> from gan_jax import data
      >>> pairs = made_pairs(data.digits(labels=False), SuperResolution(2))
      >>> {name: x.shape for name, x in pairs.read(np.arange(3)).items()}
      {'a': (3, 8, 8, 1), 'b': (3, 8, 8, 1)}
    """
    spec = source.spec
    if "real" not in spec or len(spec["real"].shape) != 3:
        has = ", ".join(f"{name} {x.shape}" for name, x in spec.items())
        raise InvalidInputError(f"{source.name} has {has}: expected images 'real' of shape (h, w, c)")

    def change(key: PRNGKey, batch: Batch) -> Batch:
        rest: dict[str, Any] = dict(batch)
        target = rest.pop("real")
        return {"a": jax.vmap(make)(jax.random.split(key, len(target)), target), "b": target} | rest

    return Made(source, (change,), make)
