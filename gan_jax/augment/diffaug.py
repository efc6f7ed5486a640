"""DiffAugment: differentiable changes of colour, translation and cutout, for reals and fakes alike.

Zhao et al., "Differentiable Augmentation for Data-Efficient GAN Training", arXiv:2006.10738, 2020. Each function has
the signature `(key, images, p) -> images`. It changes each example with probability p, which may be a traced value; at
p = 0 it changes none. The paper uses p = 1.
"""

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from gan_jax.types import InvalidInputError

Images = Float[Array, "b h w c"]
Probability = Float[Array, ""] | float
Augment = Callable[[Key[Array, ""], Images, Probability], Images]


def chosen(key: Key[Array, ""], p: Probability, n: int) -> Bool[Array, " n"]:
    """Draws n independent booleans, each true with probability p; never at p = 0, always at p = 1."""
    return jax.random.uniform(key, (n,)) < p


# For coordinates and pixels: full float32, also where matrix products are rounded to bfloat16 or TF32 by default.
exact_einsum = functools.partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)


def widen(images: Images) -> Images:
    """Converts images to float32; a wider dtype stays as it is."""
    return images.astype(jnp.promote_types(images.dtype, jnp.float32))


def color(key: Key[Array, ""], images: Images, p: Probability) -> Images:
    """Changes brightness, saturation and contrast by amounts drawn for each example.

    In this order: x + u1 - 1/2; m + 2 u2 (x - m), with m the mean over channels; M + (u3 + 1/2) (x - M), with M the
    mean over the image. u1, u2 and u3 are uniform in [0, 1).

    Args:
      key: random key.
      images: `[b, h, w, c]` in [-1, 1].
      p: probability that an example is changed.

    Returns:
      Images of the same shape and dtype; values can leave [-1, 1].

    References:
      Zhao et al., arXiv:2006.10738, 2020.

    Example:
      >>> image = jnp.ones((1, 2, 2, 3))
      >>> print(bool(jnp.all(color(jax.random.key(0), image, 0.0) == image)))
      True
    """
    which, brightness, saturation, contrast = jax.random.split(key, 4)
    n = images.shape[0]
    u1, u2, u3 = (jax.random.uniform(k, (n, 1, 1, 1)).astype(images.dtype) for k in (brightness, saturation, contrast))
    x = images + (u1 - 0.5)
    channel_mean = jnp.mean(x, axis=-1, keepdims=True)
    x = channel_mean + 2.0 * u2 * (x - channel_mean)
    image_mean = jnp.mean(x, axis=(1, 2, 3), keepdims=True)
    x = image_mean + (u3 + 0.5) * (x - image_mean)
    return jnp.where(chosen(which, p, n)[:, None, None, None], x, images)


def translation(key: Key[Array, ""], images: Images, p: Probability, *, ratio: float = 0.125) -> Images:
    """Moves each example by whole pixels, at most `ratio` of its size, and fills with 0.

    Args:
      key: random key.
      images: `[b, h, w, c]` in [-1, 1].
      p: probability that an example is moved.
      ratio: largest move, as a fraction of height and width.

    Returns:
      Images of the same shape and dtype.

    References:
      Zhao et al., arXiv:2006.10738, 2020 (ratio 1/8).

    Example:
      >>> moved = translation(jax.random.key(0), jnp.ones((1, 8, 8, 1)), 1.0)
      >>> print(bool(jnp.all((moved == 0) | (moved == 1))))
      True
    """
    which, *keys = jax.random.split(key, 3)
    n, size = images.shape[0], images.shape[1:3]
    move = chosen(which, p, n)
    for axis in (1, 2):
        limit = int(size[axis - 1] * ratio + 0.5)
        shift = jnp.where(move, jax.random.randint(keys[axis - 1], (n,), -limit, limit + 1), 0)
        source = jnp.arange(size[axis - 1]) - shift[:, None]
        inside = (source >= 0) & (source < size[axis - 1])
        shape = [n, 1, 1, 1]
        shape[axis] = size[axis - 1]
        moved = jnp.take_along_axis(images, jnp.clip(source, 0, size[axis - 1] - 1).reshape(shape), axis=axis)
        images = jnp.where(inside.reshape(shape), moved, 0)
    return images


def cutout(key: Key[Array, ""], images: Images, p: Probability, *, ratio: float = 0.5) -> Images:
    """Sets a rectangle of each example to 0, with its centre anywhere in the image.

    Args:
      key: random key.
      images: `[b, h, w, c]` in [-1, 1].
      p: probability that an example is changed.
      ratio: size of the rectangle, as a fraction of height and width; parts of it may lie outside the image.

    Returns:
      Images of the same shape and dtype.

    References:
      Zhao et al., arXiv:2006.10738, 2020 (ratio 1/2); also one of the operations of ADA, Karras et al.,
      arXiv:2006.06676, 2020. As in ADA's code the centre is any real number, and pixels whose centres lie inside are
      cut: of an odd size, such as 7, a rectangle of 3.5 pixels covers 3 or 4. DiffAugment's code cuts whole pixels,
      half the size rounded up (4 of 7), at a whole offset.

    Example:
      >>> cut = cutout(jax.random.key(0), jnp.ones((1, 8, 8, 1)), 1.0)
      >>> print(bool(jnp.any(cut == 0)), bool(jnp.any(cut == 1)))
      True True
    """
    which, *keys = jax.random.split(key, 3)
    n = images.shape[0]
    inside = chosen(which, p, n)[:, None, None]
    for axis, axis_key in zip((1, 2), keys, strict=True):
        size = images.shape[axis]
        center = jax.random.uniform(axis_key, (n, 1), maxval=float(size))
        near = jnp.abs(jnp.arange(size) + 0.5 - center) < 0.5 * ratio * size
        inside = inside & jnp.expand_dims(near, 3 - axis)
    return jnp.where(inside[..., None], 0, images)


POLICIES: dict[str, Augment] = {"color": color, "translation": translation, "cutout": cutout}


def diff_augment(policies: Sequence[str] = ("color", "translation", "cutout")) -> Augment:
    """Combines the policies of DiffAugment into one function, which applies them in turn.

    Args:
      policies: some of 'color', 'translation' and 'cutout', in the order in which they are applied.

    Returns:
      `(key, images, p) -> images`.

    Raises:
      InvalidInputError: for an unknown policy, or none.

    References:
      Zhao et al., arXiv:2006.10738, 2020. The default order and the translation by whole pixels are the paper's. The
      paper's cutout has its centre on a whole pixel, all equally likely; here it lies anywhere. Ports draw once, with
      probability p, for all policies together; here each policy has its own draw.

    Example:
      >>> augment = diff_augment(["color", "cutout"])
      >>> print(augment(jax.random.key(0), jnp.zeros((2, 8, 8, 3)), 1.0).shape)
      (2, 8, 8, 3)
    """
    unknown = [name for name in policies if name not in POLICIES]
    if unknown or not policies:
        raise InvalidInputError(f"policies={list(policies)}: expected some of {', '.join(POLICIES)}")

    def augment(key: Key[Array, ""], images: Images, p: Probability) -> Images:
        for name, policy_key in zip(policies, jax.random.split(key, len(policies)), strict=True):
            images = POLICIES[name](policy_key, images, p)
        return images

    return augment
