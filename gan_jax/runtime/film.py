"""Pictures that move: grids of clips, and a still picture of them."""

import base64
import dataclasses
import io
from typing import IO

import numpy as np
from PIL import Image

from gan_jax.runtime.preview import image_grid
from gan_jax.types import InvalidInputError

ANIMATED = {".webp": "WEBP", ".gif": "GIF"}
_STRIPS = 8  # clips in the still picture, at most


@dataclasses.dataclass(frozen=True)
class Film:
    """A picture that moves.

    Attributes:
      frames: the pictures, all of one size.
      still: picture that shows what happens, for logs.
      rate: pictures per second.
    """

    frames: tuple[Image.Image, ...] = dataclasses.field(repr=False)
    still: Image.Image = dataclasses.field(repr=False)
    rate: float

    def _repr_html_(self) -> str:
        """Returns the moving picture for notebooks."""
        file = io.BytesIO()
        self.save(file, "WEBP")
        return f'<img alt="clips" src="data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}">'

    def save(self, file: IO[bytes], format: str) -> None:
        """Writes an animated WebP or GIF that runs for ever; for other formats the still picture."""
        if format not in ANIMATED.values():
            self.still.save(file, format=format)
            return
        # Frames that are all equal would be stored as one without a duration that WebP's readers report.
        options = {"lossless": True, "method": 0} if format == "WEBP" else {"optimize": False}
        first, *others = self.frames
        first.save(
            file, format=format, save_all=True, append_images=others, duration=round(1000 / self.rate), loop=0,
            **options,
        )  # fmt: skip


def clip_grid(samples: np.ndarray, columns: int, *, rate: float = 10.0, min_pixels: int = 40) -> Film:
    """Arranges clips in a grid that moves; the still picture has a row of frames for each of the first clips.

    Args:
      samples: clips `[n, t, h, w, c]` in [-1, 1].
      columns: clips per row.
      rate: frames per second.
      min_pixels: smallest width of a clip; see `image_grid`.

    Returns:
      The picture.

    Raises:
      InvalidInputError: for samples that are no clips, or for `columns` below 1.
    """
    if samples.ndim != 5 or not samples.shape[1]:
        raise InvalidInputError(
            f"samples {samples.shape}: clip_grid draws clips [n, t, h, w, c]; use preview=image_grid for images"
        )
    frames = tuple(image_grid(frame, columns, min_pixels=min_pixels) for frame in np.moveaxis(samples, 1, 0))
    shown = samples[:_STRIPS]
    still = image_grid(shown.reshape(-1, *samples.shape[2:]), samples.shape[1], min_pixels=min_pixels)
    return Film(frames, still, rate)
