"""The geometric half of ADA's pipeline: blits, which move whole pixels, and resampled transformations.

Beyond its edges an image continues as its reflection, which does not repeat the edge. Resampling follows the paper:
the image, so continued, is upsampled by two with the symlet-6 low-pass filter, interpolated bilinearly, and downsampled
by two with the same filter. So neither aliases nor blur show the discriminator which images were transformed. Blits
and transformations of an image are one map (`move`), so that none of it is cropped in between.
"""

import math
from collections.abc import Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from gan_jax.augment.diffaug import Images, Probability, chosen, exact_einsum, widen
from gan_jax.types import InvalidInputError

Operations = Collection[str] | Mapping[str, float | int]  # names, or names with factors of their probability
BLIT = ("x_flip", "rotate_90", "integer_translation")
GEOMETRY = ("isotropic_scaling", "rotation", "anisotropic_scaling", "fractional_translation")

# The symlet-6 scaling filter (Daubechies, "Ten Lectures on Wavelets", 1992): orthonormal to its even shifts.
SYM6 = np.array(
    [
        0.015404109327027373, 0.0034907120842174702, -0.11799011114819057, -0.048311742585633, 0.4910559419267466,
        0.787641141030194, 0.3379294217276218, -0.07263752278646252, -0.021060292512300564, 0.04472490177066578,
        0.0017677118642428036, -0.007800708325034148,
    ]
)  # fmt: skip
_MARGIN = 5  # samples at twice the resolution that the filter needs beyond the image on either side
_DELAY = float(np.arange(len(SYM6)) @ SYM6 / SYM6.sum())  # centre of mass, in taps; the filter is not symmetric


def reflect(index: Any, size: int) -> Any:
    """Folds coordinates (arrays or a number) into [0, size - 1], at the centres of the outermost pixels."""
    last = size - 1
    return last - abs(index % (2 * last) - last) if last else index * 0


def check_operations(given: Collection[str], known: Collection[str]) -> None:
    """Raises InvalidInputError for operations that are not among those a function has."""
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise InvalidInputError(f"operations={unknown}: expected some of {', '.join(known)}")


def share(operations: Operations, name: str, p: Probability) -> Probability:
    """Returns the probability of an operation: p, times the operation's factor if there are factors."""
    return p * operations[name] if isinstance(operations, Mapping) else p


def blit(key: Key[Array, ""], images: Images, p: Probability, *, operations: Operations = BLIT) -> Images:
    """Moves whole pixels: horizontal flips, quarter turns, and translations by at most an eighth of the image.

    Every pixel of the result is a pixel of the image. Each operation takes place with probability p. Then one of its
    cases is drawn uniformly (a translation is a uniform number, rounded); the identity is among them, as in the paper.

    Args:
      key: random key.
      images: `[b, h, w, c]`; images that are not square get half turns only.
      p: probability of each operation.
      operations: some of 'x_flip', 'rotate_90' and 'integer_translation'.

    Returns:
      Images of the same shape and dtype.

    Raises:
      InvalidInputError: for an unknown operation.

    References:
      Karras et al., "Training Generative Adversarial Networks with Limited Data", arXiv:2006.06676, 2020, appendix B.

    Example:
      >>> rows = jnp.broadcast_to(jnp.arange(3.0)[:, None], (64, 1, 3, 1))
      >>> flipped = blit(jax.random.key(0), rows, 1.0, operations=["x_flip"])
      >>> print(jnp.unique(flipped[:, 0, :, 0], axis=0))
      [[0. 1. 2.]
       [2. 1. 0.]]
    """
    return move(key, None, images, p, operations)


def geometry(key: Key[Array, ""], images: Images, p: Probability, *, operations: Operations = GEOMETRY) -> Images:
    """Scales, rotates, stretches and moves images by fractions of a pixel, in one resampling.

    isotropic_scaling: by s ~ 2^N(0, 0.2^2); rotation: by a uniform angle, before and after the stretching, each with
    probability 1 - sqrt(1 - p), so that p is the probability of at least one; anisotropic_scaling (stretching): by s
    and 1 / s along the two axes, s ~ 2^N(0, 0.2^2); fractional_translation: by N(0, (size / 8)^2) pixels.

    Args:
      key: random key.
      images: `[b, h, w, c]`.
      p: probability of each operation.
      operations: some of 'isotropic_scaling', 'rotation', 'anisotropic_scaling' and 'fractional_translation'.

    Returns:
      Images of the same shape and dtype. An example for which no operation takes place is returned bit for bit.

    Raises:
      InvalidInputError: for an unknown operation.

    References:
      Karras et al., arXiv:2006.06676, 2020, appendix B. Reflections go on beyond the second one, where the authors'
      padding ends and zeros begin. The filter is not quite symmetric, and in the authors' code it moves a turned image
      by a tenth of a pixel; here its centre of mass counts as its centre. The authors' code resamples every image of a
      batch, which leaves an image that is not transformed as it is but for rounding.

    Example:
      >>> image = jnp.ones((1, 8, 8, 1))
      >>> print(geometry(jax.random.key(0), image, 1.0).shape)
      (1, 8, 8, 1)
    """
    return move(None, key, images, p, operations)


def move(
    blit_key: Key[Array, ""] | None,
    geometry_key: Key[Array, ""] | None,
    images: Images,
    p: Probability,
    operations: Operations,
) -> Images:
    """Applies blits, then transformations, to the same image in one resampling.

    Args:
      blit_key: random key of the blits; None for none of them.
      geometry_key: random key of the transformations; None for none of them.
      images: `[b, h, w, c]`.
      p: probability of each operation.
      operations: some of `BLIT` for the one, of `GEOMETRY` for the other.

    Returns:
      Images of the same shape and dtype. An example for which no transformation takes place has the pixels of the
      image.
    """
    check_operations(
        operations, (*(BLIT if blit_key is not None else ()), *(GEOMETRY if geometry_key is not None else ()))
    )
    n, h, w, _ = images.shape
    turn, shift = jnp.broadcast_to(jnp.eye(2), (n, 2, 2)), jnp.zeros((n, 2))
    pixels = images
    if blit_key is not None:
        turn, shift = _draw_blit(blit_key, (n, h, w), p, operations)
        pixels = _take_pixels(images, turn, shift)
    if geometry_key is None:
        return pixels
    active, inverse, origin = _draw_geometry(geometry_key, (n, h, w), p, operations)
    # a point of the result lies in the blitted image at inverse @ x + origin, and that at turn @ (.. - shift)
    source = exact_einsum("nij,njk->nik", turn, inverse), exact_einsum("nij,nj->ni", turn, origin - shift)
    resampled = resample(widen(images), *source).astype(images.dtype)
    return jnp.where(active[:, None, None, None], resampled, pixels)


def _draw_blit(
    key: Key[Array, ""], shape: tuple[int, int, int], p: Probability, operations: Operations
) -> tuple[Float[Array, "n 2 2"], Float[Array, "n 2"]]:
    """Draws matrices of signs and swaps, and shifts by whole pixels: point x shows the image at turn @ (x - shift)."""
    n, h, w = shape
    # every operation takes its keys, also one that is left out, so that the draws of the others stay the same
    keys = iter(jax.random.split(key, 7))

    def draw(name: str, low: int, high: int) -> Int[Array, " n"]:
        """Draws an integer for each example; it is 0 where the operation does not take place."""
        which, value = next(keys), next(keys)
        take = chosen(which, share(operations, name, p), n) if name in operations else jnp.zeros(n, bool)
        return jnp.where(take, jax.random.randint(value, (n,), low, high), 0)

    flip, turns = draw("x_flip", 0, 2), draw("rotate_90", 0, 4 if h == w else 2) * (1 if h == w else 2)
    which, *translation_keys = (next(keys) for _ in range(3))
    name = "integer_translation"
    moved = chosen(which, share(operations, name, p), n) if name in operations else jnp.zeros(n, bool)
    shift = jnp.stack(
        [
            jnp.where(moved, jnp.round(jax.random.uniform(k, (n,), minval=-0.125, maxval=0.125) * size), 0)
            for k, size in zip(translation_keys, (h, w), strict=True)
        ],
        -1,
    )
    quarter_turns = jnp.array([[[1, 0], [0, 1]], [[0, 1], [-1, 0]], [[-1, 0], [0, -1]], [[0, -1], [1, 0]]], jnp.float32)
    signs = jnp.stack([jnp.ones(n), 1.0 - 2.0 * flip], -1)
    return signs[:, :, None] * quarter_turns[turns], shift


def _take_pixels(images: Images, turn: Float[Array, "n 2 2"], shift: Float[Array, "n 2"]) -> Images:
    """Returns images whose point x is the pixel at turn @ (x - shift), from the centre."""
    n, h, w, c = images.shape
    # twice the coordinates are integers, also about a centre between pixels
    grid = np.stack(np.meshgrid(*(2 * np.arange(size) - (size - 1) for size in (h, w)), indexing="ij"), -1)
    moved = jnp.asarray(grid) - 2 * shift.astype(int)[:, None, None]
    row, column = (
        reflect((jnp.sum(turn[:, i].astype(int)[:, None, None] * moved, -1) + size - 1) // 2, size)
        for i, size in enumerate((h, w))
    )
    index = (row * w + column).reshape(n, h * w, 1)
    return jnp.take_along_axis(images.reshape(n, h * w, c), index, axis=1).reshape(images.shape)


def _draw_geometry(
    key: Key[Array, ""], shape: tuple[int, int, int], p: Probability, operations: Operations
) -> tuple[Bool[Array, " n"], Float[Array, "n 2 2"], Float[Array, "n 2"]]:
    """Draws which examples are transformed, and how: point x shows the image at inverse @ x + origin."""
    n, *size = shape
    # every operation takes its keys, also one that is left out, so that the draws of the others stay the same
    keys = iter(jax.random.split(key, 10))
    active = jnp.zeros(n, bool)

    def draw(name: str, values: Float[Array, "n *rest"], neutral: float) -> Float[Array, "n *rest"]:
        nonlocal active
        key, chance = next(keys), share(operations, name, p) if name in operations else 0.0
        chance = 1.0 - jnp.sqrt(1.0 - chance) if name == "rotation" else chance  # it is drawn twice
        take = chosen(key, chance, n) if name in operations else jnp.zeros(n, bool)
        active = active | take
        return jnp.where(take.reshape(n, *[1] * (values.ndim - 1)), values, neutral)

    def scale() -> Float[Array, " n"]:
        return jnp.exp2(0.2 * jax.random.normal(next(keys), (n,)))

    def angle() -> Float[Array, " n"]:
        return jax.random.uniform(next(keys), (n,), minval=-math.pi, maxval=math.pi)

    isotropic = draw("isotropic_scaling", scale(), 1.0)
    before = draw("rotation", angle(), 0.0)
    stretch = draw("anisotropic_scaling", scale(), 1.0)
    after = draw("rotation", angle(), 0.0)
    sizes = jnp.array(size, jnp.float32)
    translation = draw("fractional_translation", 0.125 * sizes * jax.random.normal(next(keys), (n, 2)), 0.0)
    # maps a point of the result to one of the image: the inverse of scaling, turning, stretching, turning and moving
    stretched = jnp.stack([1.0 / stretch, stretch], axis=-1)[:, :, None] * _rotation(-after)
    inverse = exact_einsum("nij,njk->nik", _rotation(-before), stretched) / isotropic[:, None, None]
    return active, inverse, -exact_einsum("nij,nj->ni", inverse, translation)


def _rotation(angle: Float[Array, " n"]) -> Float[Array, "n 2 2"]:
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    return jnp.stack([jnp.stack([cos, -sin], -1), jnp.stack([sin, cos], -1)], -2)


def resample(images: Images, inverse: Float[Array, "b 2 2"], origin: Float[Array, "b 2"]) -> Images:
    """Resamples images: point x of the result takes the value of the image at inverse @ x + origin.

    Points are (row, column), measured from the centre of the image.

    Args:
      images: `[b, h, w, c]`, float32 or wider.
      inverse: inverse of each example's linear map.
      origin: the point of the image that comes to the centre of the result.

    Returns:
      Images of the same shape.
    """
    n, h, w, c = images.shape
    up_h, up_w = _up(h), _up(w)
    fine = exact_einsum("jw,biwc->bijc", up_w, exact_einsum("ih,bhwc->biwc", up_h, images)).reshape(n, -1, c)
    center = jnp.array([(h - 1) / 2, (w - 1) / 2], jnp.float32)
    rows, columns = ((np.arange(2 * size + 2 * _MARGIN) - _DELAY) / 2 for size in (h, w))
    grid = jnp.asarray(np.stack(np.meshgrid(rows, columns, indexing="ij"), -1), jnp.float32) - center
    source = exact_einsum("bxy,ijy->bijx", inverse, grid) + (origin + center)[:, None, None]
    total = jnp.zeros((n, grid.shape[0] * grid.shape[1], c), images.dtype)
    corners = []
    for axis, period in enumerate((len(up_h), len(up_w))):
        place = 2.0 * source[..., axis] + (_DELAY - _MARGIN)  # as an index of the samples at twice the resolution
        low = jnp.floor(place)
        index = low.astype(jnp.int32)
        corners.append([(index % period, low + 1.0 - place), ((index + 1) % period, place - low)])
    for row, row_weight in corners[0]:
        for column, column_weight in corners[1]:
            index = (row * len(up_w) + column).reshape(n, -1, 1)
            weight = (row_weight * column_weight).reshape(n, -1, 1)
            total += weight * jnp.take_along_axis(fine, index, axis=1)
    total = total.reshape(n, *grid.shape[:2], c)
    return exact_einsum("wj,bhjc->bhwc", _down(w), exact_einsum("hi,bijc->bhjc", _down(h), total))


def _down(size: int) -> Float[np.ndarray, "size fine"]:
    """Returns the matrix that filters and halves: pixel n is made of the 12 fine samples at n + (k - _DELAY) / 2."""
    matrix = np.zeros((size, 2 * size + 2 * _MARGIN), np.float32)
    for n in range(size):
        matrix[n, 2 * n : 2 * n + len(SYM6)] = SYM6 / SYM6.sum()
    return matrix


def _up(size: int) -> Float[np.ndarray, "fine size"]:
    """Returns the matrix that doubles and filters the image with its reflections, which repeat: one period of them.

    Fine sample q lies at (q + _MARGIN - _DELAY) / 2.
    """
    period = max(4 * (size - 1), 2)
    matrix = np.zeros((period, size), np.float32)
    reach = len(SYM6)
    for n in range(-reach, period // 2 + reach):
        for k in range(reach):
            q = 2 * n + k - _MARGIN
            if 0 <= q < period:
                matrix[q, reflect(n, size)] += 2 * SYM6[k] / SYM6.sum()
    return matrix
