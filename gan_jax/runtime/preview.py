"""Pictures of samples."""

import io
import math
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from PIL import Image

from gan_jax.host import to_uint8
from gan_jax.types import Batch, Game, PRNGKey, State

_GAP = 2  # grey pixels between images


def image_grid(samples: np.ndarray, columns: int, *, min_pixels: int = 40) -> Image.Image:
    """Images side by side, row by row, with small ones enlarged by whole factors.

    Args:
      samples: `[n, h, w, c]` in [-1, 1]; one channel is grey, of any other number the first three are red, green and
        blue.
      columns: images in a row.
      min_pixels: enlarge until an image is at least so wide.

    Returns:
      The picture.
    """
    n, height, width, channels = samples.shape
    if channels != 1:
        samples = np.pad(samples[..., :3], ((0, 0),) * 3 + ((0, max(0, 3 - channels)),), constant_values=-1.0)
        channels = 3
    rows = -(-n // columns)
    scale = max(1, -(-min_pixels // width))
    pixels = to_uint8(np.nan_to_num(samples, nan=-1.0, posinf=1.0, neginf=-1.0))  # also what has just diverged is drawn
    pixels = pixels.repeat(scale, axis=1).repeat(scale, axis=2)
    height, width = height * scale + _GAP, width * scale + _GAP
    canvas = np.full((rows * height + _GAP, columns * width + _GAP, channels), 64, np.uint8)
    for index, image in enumerate(pixels):
        top, left = index // columns * height + _GAP, index % columns * width + _GAP
        canvas[top : top + height - _GAP, left : left + width - _GAP] = image
    return Image.fromarray(canvas[..., 0] if channels == 1 else canvas)


def side_by_side(game: Game, function: str = "sample") -> Callable[[State, PRNGKey, Batch], Array]:
    """A preview of what a function makes of examples: inputs, output and, where it is known, target in one picture.

    Args:
      game: whose function.
      function: that maps inputs: `sample` of a game without a prior, `reconstruct`, or another.

    Returns:
      `(state, key, examples) -> images` for `Experiment.previews`: `[n, h, 2 w or 3 w, c]`. Images of one channel
      become three where others have three, and inputs that are no images of the outputs' size are left out.
    """

    def preview(state: State, key: PRNGKey, examples: Batch) -> Array:
        inputs = examples["inputs"]
        rest = {"label": examples["label"]} if "label" in examples else {}
        if function == "sample":
            output = game.sample(state, key, len(inputs), inputs=inputs, **rest)
        else:
            output = game.functions[function](state, key, inputs, **rest)
        target = None if function == "reconstruct" else examples.get("target")  # there it is the input
        row = [x for x in (inputs, output, target) if x is not None and x.shape[:-1] == output.shape[:-1]]
        channels = max(x.shape[-1] for x in row)
        return jnp.concatenate([jnp.broadcast_to(x, (*x.shape[:-1], channels)) for x in row], axis=-2)

    return preview


def grid_columns(n: int, num_classes: int | None) -> int:
    """Columns of a grid of `n` samples: one for each class where rows stay short enough to read, else a square."""
    by_class = num_classes is not None and num_classes <= 20 and n >= 2 * num_classes
    return num_classes if by_class and num_classes is not None else math.ceil(math.sqrt(n))


def scatter(samples: np.ndarray, columns: int, *, centers: np.ndarray | None = None) -> Image.Image:
    """Points in the plane, over the centres of the modes that they should cover.

    Args:
      samples: `[n, 2]`.
      columns: unused; samples of images need it.
      centers: `[modes, 2]`, drawn as crosses.

    Returns:
      The picture.
    """
    del columns
    from matplotlib.figure import Figure  # noqa: PLC0415 - slow to import, and image experiments never need it

    figure = Figure(figsize=(5, 5))
    axes = figure.add_subplot()
    if centers is not None:
        axes.scatter(centers[:, 0], centers[:, 1], marker="+", s=200, color="tab:red", zorder=3, label="modes")
    axes.scatter(samples[:, 0], samples[:, 1], s=4, alpha=0.5, color="tab:blue", label="samples")
    axes.set_aspect("equal")
    axes.legend(loc="center")
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=100)
    return Image.open(buffer).convert("RGB")
