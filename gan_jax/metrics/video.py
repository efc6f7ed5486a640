"""Attributes of clips in closed form: one bright thing on black ground, its look and its path; and what they tell.

They replace judging clips by eye where the data are such clips: the moving shapes of MoCoGAN, and moving digits. All of
them are differentiable almost everywhere, and computed from the pixels alone.
"""

import math
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from gan_jax.types import InvalidInputError

_FAINT = 0.2  # of a clip's brightest value: darker pixels are ground
_COMPACT = 1.3  # least spread that is not that of one compact blob; a square has pi / 3
_SQUARE = 0.89  # of the bounding box, between a circle's pi / 4 and a square's 1
_SIDES = (8.0, 10.0, 12.0, 14.0)  # of the shapes of MoCoGAN, in pixels of frames of 64x64
_SIDE = 64
CELLS = 16
STRAIGHT, BOUNCING, CIRCLING = range(3)
_OFF = 0.5  # pixels of frames of 32x32: a path that is farther than this from both a line and a circle bounces


class ClipAttributes(NamedTuple):
    """Attributes of clips; lengths are in pixels.

    Attributes:
      color: mean colour of the thing, from 0 to 1, `[n, c]`.
      color_std: standard deviation of its colour over the frames, the root mean square over channels, `[n]`.
      area: mean area, `[n]`.
      area_std: standard deviation of the area over the frames, `[n]`.
      side: mean of the width and height of the bounding box, `[n]`.
      fill: mean share of the bounding box that is covered: 1 for a square, pi / 4 for a circle, `[n]`.
      compact: share of the frames with one compact blob, `[n]`.
      visible: share of the frames in which there is something, `[n]`.
      start: place (x, y) in the first frame, `[n, 2]`.
      displacement: place in the last frame minus that in the first, `[n, 2]`.
      closure: distance between the first and the last place across the main axis of the motion, `[n]`.
      smoothness: mean length of the second differences of the path; 0 for a constant velocity, `[n]`.
      line: root mean square distance of the path from the best motion of constant velocity, `[n]`.
      circle: the same from the best circular motion of one turn in 16 frames, `[n]`.
    """

    color: Array
    color_std: Array
    area: Array
    area_std: Array
    side: Array
    fill: Array
    compact: Array
    visible: Array
    start: Array
    displacement: Array
    closure: Array
    smoothness: Array
    line: Array
    circle: Array

    def rows(self) -> Float[Array, "n d"]:
        """Returns all attributes in one array, as features; `of_rows` is the inverse."""
        return jnp.concatenate([x.reshape(x.shape[0], -1) for x in self], axis=-1)

    @classmethod
    def of_rows(cls, rows: Array | np.ndarray) -> "ClipAttributes":
        """Returns the attributes from what `rows` has returned."""
        channels = rows.shape[-1] - 15
        sizes = [channels, *(2 if name in ("start", "displacement") else 1 for name in cls._fields[1:])]
        ends = np.cumsum(sizes)
        parts = [rows[:, end - size : end] for size, end in zip(sizes, ends, strict=True)]
        vectors = ("color", "start", "displacement")
        named: dict[str, Any] = dict(zip(cls._fields, parts, strict=True))
        return cls(**{name: x if name in vectors else x[:, 0] for name, x in named.items()})


def clip_attributes(clips: Float[Array, "n t h w c"], *, turn: int = 16, pixels: int | None = None) -> ClipAttributes:
    """Measures the one bright thing that each clip shows.

    The coverage a of a pixel is its largest channel divided by the clip's largest value, and 0 below 0.2. A pixel that
    is half covered has half the colour, so that all measures are exact for antialiased borders too: the area is the sum
    of a; the place its centre of mass; the colour sum(x) / sum(a); width and height of the bounding box the sums over
    columns and rows of the largest a. A frame has one compact blob if 2 pi (var x + var y) / area is at most 1.3: it is
    1 for a disc, the least possible, pi / 3 for a square, and large for two blobs.

    Args:
      clips: clips in [-1, 1]; black ground is -1. At least three frames.
      turn: frames of a whole turn, for `circle`.
      pixels: height of frames to which lengths and areas are scaled; None for that of the clips.

    Returns:
      The attributes. A frame without anything counts as one whose place is the middle.

    Raises:
      InvalidInputError: for clips of fewer than three frames.

    Example:
      >>> square = jnp.full((3, 16, 16, 1), -1.0)
      >>> for k in range(3):
      ...     square = square.at[k, 2:6, 4 + k:8 + k].set(1.0)
      >>> found = clip_attributes(square[None])
      >>> print(found.area, found.side, found.fill, found.displacement)
      [16.] [4.] [1.] [[2. 0.]]
    """
    t, height, width = clips.shape[1:4]
    if t < 3:
        raise InvalidInputError(f"clips {clips.shape}: expected three frames or more")
    light = (clips.astype(jnp.float32) + 1.0) / 2.0
    value = jnp.max(light, axis=-1)
    peak = jnp.maximum(jnp.max(value, axis=(1, 2, 3), keepdims=True), 1e-6)
    cover = jnp.where(value / peak >= _FAINT, value / peak, 0.0)
    area = jnp.sum(cover, axis=(2, 3))
    safe = jnp.maximum(area, 1e-6)
    places, spread = [], jnp.zeros_like(area)
    for axis, size in ((2, width), (3, height)):  # x is summed over rows first, y over columns
        middle = jnp.arange(size) + 0.5
        along = jnp.sum(cover, axis=axis)
        mean = jnp.where(area > 0, along @ middle / safe, size / 2)
        spread += jnp.sum(along * (middle - mean[..., None]) ** 2, axis=-1) / safe + 1 / 12
        places.append(mean)
    path = jnp.stack(places, axis=-1)
    color = jnp.sum(jnp.where(cover[..., None] > 0, light, 0.0), axis=(2, 3)) / safe[..., None]
    extents = [jnp.sum(jnp.max(cover, axis=axis), axis=-1) for axis in (2, 3)]
    seen = (area > 0).astype(jnp.float32)
    compact = seen * (2 * math.pi * spread / safe <= _COMPACT)
    unit = 1.0 if pixels is None else pixels / height
    path, area = path * unit, area * unit**2
    displacement = path[:, -1] - path[:, 0]
    return ClipAttributes(
        color=jnp.mean(color, axis=1),
        color_std=jnp.sqrt(jnp.mean(jnp.var(color, axis=1), axis=-1)),
        area=jnp.mean(area, axis=1),
        area_std=jnp.std(area, axis=1),
        side=jnp.mean((extents[0] + extents[1]) / 2, axis=1) * unit,
        fill=jnp.mean(safe / jnp.maximum(extents[0] * extents[1], 1e-6), axis=1),
        compact=jnp.mean(compact, axis=1),
        visible=jnp.mean(seen, axis=1),
        start=path[:, 0],
        displacement=displacement,
        closure=jnp.min(jnp.abs(displacement), axis=-1),
        smoothness=jnp.mean(jnp.linalg.norm(jnp.diff(path, n=2, axis=1), axis=-1), axis=1),
        line=_residual(path, np.stack([np.ones(t), np.arange(t)], -1)),
        circle=_residual(path, _circular(t, turn)),
    )


def _circular(t: int, turn: int) -> np.ndarray:
    angle = 2 * np.pi * np.arange(t) / turn
    return np.stack([np.ones(t), np.cos(angle), np.sin(angle)], -1)


def _residual(path: Array, basis: np.ndarray) -> Array:
    """Returns the root mean square distance of paths `[n, t, 2]` from their best combination of basis functions."""
    off = np.eye(len(basis)) - basis @ np.linalg.pinv(basis)
    return jnp.sqrt(jnp.mean(jnp.sum(jnp.einsum("st,ntk->nsk", off.astype(np.float32), path) ** 2, -1), -1))


def shape_cells(attributes: ClipAttributes, image_size: int) -> Int[np.ndarray, " n"]:
    """Classifies clips of MoCoGAN's moving shapes by axis, size and shape.

    Args:
      attributes: attributes of the clips.
      image_size: height and width of the frames in pixels.

    Returns:
      From 0 to 15: 8 axis + 2 size + shape. The axis is 0 for vertical motion and 1 for horizontal, the size the
      nearest of 8, 10, 12 and 14 pixels in frames of 64x64, and the shape 0 for circles and 1 for squares.
    """
    axis = horizontal(attributes)
    side = np.asarray(attributes.side) * _SIDE / image_size
    size = np.abs(side[:, None] - np.array(_SIDES)).argmin(axis=1)
    return 8 * axis + 2 * size + (np.asarray(attributes.fill) > _SQUARE)


def horizontal(attributes: ClipAttributes) -> Int[np.ndarray, " n"]:
    """Says for each clip whether the thing moves more in width than in height: 1 or 0."""
    moved = np.abs(np.asarray(attributes.displacement))
    return (moved[:, 0] > moved[:, 1]).astype(np.int64)


def motion_kinds(attributes: ClipAttributes, image_size: int) -> Int[np.ndarray, " n"]:
    """Classifies the motion of moving digits: 0 straight, 1 bouncing, 2 circling.

    A path within 0.5 pixels (at 32x32) of a motion of constant velocity or of a circle is of the kind that it is nearer
    to; all others bounce.

    Args:
      attributes: attributes of clips.
      image_size: height and width of the frames in pixels.

    Returns:
      The kind of each clip.
    """
    line, circle = np.asarray(attributes.line), np.asarray(attributes.circle)
    near = np.minimum(line, circle) <= _OFF * image_size / 32
    return np.where(near, np.where(line <= circle, STRAIGHT, CIRCLING), BOUNCING)


def disentanglement(values: Float[Array, "contents motions *k"] | Float[np.ndarray, "contents motions *k"]) -> float:
    """Computes which share of an attribute's variance the content decides.

    S = V_c / (V_c + V_m). V_c is the variance over contents of the mean over motions, V_m the variance over motions of
    the mean over contents; with several numbers, the sums of their variances.

    Args:
      values: attribute of the clips of all pairs of a content and a motion.

    Returns:
      From 0, for an attribute of the motion, to 1, for one of the content; NaN for an attribute that does not vary.

    Raises:
      InvalidInputError: for fewer than two contents or motions.

    Example:
      >>> disentanglement(np.array([[1.0, 1.0], [3.0, 3.0]]))
      1.0
    """
    found = np.asarray(values, np.float64)
    if found.ndim < 2 or min(found.shape[:2]) < 2:
        raise InvalidInputError(f"values {found.shape}: expected [contents, motions, ...], two or more of each")
    of_content, of_motion = (float(found.mean(axis=axis).var(axis=0).sum()) for axis in (1, 0))
    total = of_content + of_motion
    return of_content / total if total > 0 else math.nan


def mutual_information(a: Int[np.ndarray, " n"], b: Int[np.ndarray, " n"]) -> float:
    """Computes the mutual information of two classifications of the same examples, in bits.

    I = sum p(a, b) log2(p(a, b) / (p(a) p(b))), with the shares of the examples as probabilities.

    Args:
      a: first class of each example, from 0.
      b: second class of each example, from 0.

    Returns:
      Bits, from 0. For independent classes of ka and kb values it is about (ka - 1) (kb - 1) / (2 n log 2), not 0.

    Raises:
      InvalidInputError: for no examples, several lengths or negative classes.

    Example:
      >>> mutual_information(np.array([0, 0, 1, 1]), np.array([2, 2, 0, 0]))
      1.0
    """
    a, b = np.asarray(a), np.asarray(b)
    if a.shape != b.shape or a.ndim != 1 or not a.size or min(a.min(), b.min()) < 0:
        raise InvalidInputError(f"a {a.shape}, b {b.shape}: expected classes from 0 of the same examples, one or more")
    joint = np.zeros((a.max() + 1, b.max() + 1))
    np.add.at(joint, (a, b), 1.0 / len(a))
    apart = joint.sum(1, keepdims=True) * joint.sum(0, keepdims=True)
    hit = joint > 0
    return float(np.sum(joint[hit] * np.log2(joint[hit] / apart[hit])))
