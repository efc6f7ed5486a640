"""Moving digits: videos with a known content (digit, size) and a known motion, without a download."""

from typing import NamedTuple

import numpy as np

from gan_jax.data.digits import digits
from gan_jax.data.videos import Clips, video_arrays
from gan_jax.types import InvalidInputError

MOTIONS = ("straight", "bouncing", "circling")
SIZES = (10.0, 13.0, 16.0)
_SIDE = 32  # height and width of the frames at which the sizes and speeds below are meant, in pixels
_TURN = 16  # frames of a whole turn of a circling digit
_BOUNCE = (1.5, 2.2)  # least and largest speed of a bouncing digit along each axis, in pixels a frame
_CODES = {"motion": len(MOTIONS), "digit": 10, "cell": 10 * len(MOTIONS)}


class DigitTruth(NamedTuple):
    """The parameters of moving digits.

    Attributes:
      digit: digit that each video shows, 0 to 9, `[n]`.
      size: side of the digit's 8x8 pixels in the video, in pixels, `[n]`.
      motion: kind of motion, an index of `MOTIONS`, `[n]`.
      path: centre of the digit in each frame, (x, y) in pixels from the top left corner, `[n, t, 2]`.
    """

    digit: np.ndarray
    size: np.ndarray
    motion: np.ndarray
    path: np.ndarray


def moving_digits(
    *,
    labels: str | None,
    clip_frames: int = 16,
    every: int = 1,
    image_size: int = 32,
    videos: int = 3000,
    frames: int = 32,
    seed: int = 0,
) -> Clips:
    """Returns clips of handwritten digits that move over black ground, `'real'`, `[clip_frames, size, size, 1]`.

    Digits move straight from one place to another, bounce off the borders, or circle once in 16 frames. The content
    (digit, size) and the motion are drawn independently, and are read from a clip in closed form or by a classifier:
    `metrics.clip_attributes`. `moving_digits_truth` returns the parameters.

    Args:
      labels: class that is delivered as `'label'`: `motion` (3), `digit` (10), `cell` (digit and motion, 30), or None.
      clip_frames: number of frames of a clip.
      every: distance between the frames of a clip.
      image_size: height and width in pixels; sizes and speeds grow with it.
      videos: number of videos.
      frames: number of frames of each video.
      seed: seed of the parameters.

    Returns:
      The source.

    Raises:
      InvalidInputError: for an unknown kind of label, or sizes out of range.
    """
    if labels is not None and labels not in _CODES:
        raise InvalidInputError(f"labels={labels!r}: expected {', '.join(_CODES)} or None")
    made, truth = moving_digits_truth(image_size=image_size, videos=videos, frames=frames, seed=seed)
    codes = {"motion": truth.motion, "digit": truth.digit, "cell": len(MOTIONS) * truth.digit + truth.motion}
    names = {
        "motion": MOTIONS,
        "digit": tuple(map(str, range(10))),
        "cell": tuple(f"{digit} {motion}" for digit in range(10) for motion in MOTIONS),
    }
    return video_arrays(
        "moving digits", made, clip_frames=clip_frames, every=every,
        labels=codes[labels] if labels else None, num_classes=_CODES[labels] if labels else None,
        class_names=names[labels] if labels else (),
    )  # fmt: skip


def moving_digits_truth(
    *, image_size: int = 32, videos: int = 3000, frames: int = 32, seed: int = 0
) -> tuple[np.ndarray, DigitTruth]:
    """Makes the videos of `moving_digits`, with their parameters.

    A digit of 8x8 pixels is enlarged and moved at once, by linear interpolation, and averaged over each pixel of the
    frame: pixel (i, j) is sum over u, v of h(i, u, y) h(j, v, x) digit[u, v], where h is the mean over the pixel of
    max(0, 1 - |(i - y) / scale - u|). So positions are not rounded, and the amount of ink is the same everywhere.

    Args:
      image_size: height and width in pixels.
      videos: number of videos.
      frames: number of frames of each video.
      seed: seed of the parameters.

    Returns:
      The videos, uint8 `[videos, frames, image_size, image_size, 1]`, and their parameters.

    Raises:
      InvalidInputError: for sizes out of range.
    """
    if image_size < 16 or videos < 1 or frames < 1:
        raise InvalidInputError(
            f"image_size={image_size}, videos={videos}, frames={frames}: expected 16 or more pixels, and 1 or more"
        )
    random = np.random.default_rng(seed)
    bunch = digits(labels=True)
    chosen = random.integers(0, len(bunch), videos)
    motion, size = random.integers(0, len(MOTIONS), videos), random.choice(SIZES, videos)
    path = np.stack([_path(random, MOTIONS[kind], side, frames) for kind, side in zip(motion, size, strict=True)])
    truth = DigitTruth(bunch.arrays["label"][chosen], size * image_size / _SIDE, motion, path * image_size / _SIDE)
    pictures = (bunch.arrays["real"][chosen, ..., 0] + 1.0) / 2.0
    made = np.empty((videos, frames, image_size, image_size, 1), np.uint8)
    for low in range(0, videos, 256):
        some = slice(low, low + 256)
        made[some, ..., 0] = _drawn(pictures[some], truth.path[some], truth.size[some], image_size)
    return made, truth


def _path(random: np.random.Generator, kind: str, side: float, frames: int) -> np.ndarray:
    """Draws the centres of a digit in frames of 32 pixels, `[frames, 2]`; the digit stays within the frame."""
    margin = side * 9 / 16  # interpolation spreads the 8 pixels of a digit by half a pixel on every side
    low, high, time = margin, _SIDE - margin, np.arange(frames)
    if kind == "circling":
        radius = random.uniform(0.5, 1.0) * (high - low) / 2
        centre = random.uniform(low + radius, high - radius, 2)
        angle = random.uniform(0, 2 * np.pi) + random.choice([-1, 1]) * 2 * np.pi * time / _TURN
        return centre + radius * np.stack([np.cos(angle), np.sin(angle)], -1)
    if kind == "bouncing":
        speed = random.uniform(*_BOUNCE, 2) * random.choice([-1, 1], 2)
        along = random.uniform(0, 2 * (high - low), 2) + speed * time[:, None]
        return low + np.abs((along + (high - low)) % (2 * (high - low)) - (high - low))  # reflected at both ends
    start = random.uniform(low, high, 2)
    end = random.uniform(low, high, 2)
    while np.abs(end - start).max() < (high - low) / 2:
        end = random.uniform(low, high, 2)
    return start + (end - start) * (time / max(1, frames - 1))[:, None]


def _drawn(pictures: np.ndarray, path: np.ndarray, size: np.ndarray, image_size: int) -> np.ndarray:
    """Draws digits `[n, 8, 8]` of values 0 to 1 at their places, as uint8 `[n, t, image_size, image_size]`."""
    scale = (size / pictures.shape[-1])[:, None, None, None]
    # position of each border between pixels on the digit, in the digit's pixels
    along = (np.arange(image_size + 1) - path[..., None]) / scale + pictures.shape[-1] / 2 - 0.5
    below = _hat_below(along[..., None] - np.arange(pictures.shape[-1]))
    hats = scale[..., None] * np.diff(below, axis=-2)
    across, down = hats[:, :, 0], hats[:, :, 1]  # [n, t, image_size, 8]
    drawn = np.einsum("ntiu,nuv,ntjv->ntij", down, pictures, across, optimize=True)
    return np.round(255.0 * drawn.clip(0, 1)).astype(np.uint8)


def _hat_below(r: np.ndarray) -> np.ndarray:
    """Returns the integral of max(0, 1 - |x|) over x below r."""
    r = r.clip(-1, 1)
    return np.where(r < 0, (r + 1) ** 2 / 2, 1 - (1 - r) ** 2 / 2)
