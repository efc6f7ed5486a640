"""Pictures of samples: grids of images, outputs beside their inputs, and scatter plots."""

import io
import math
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from PIL import Image

from gan_jax.host import to_uint8
from gan_jax.types import Batch, Game, InvalidInputError, PRNGKey, State, check_images

_GAP = 2  # grey pixels between images


def image_grid(samples: np.ndarray, columns: int, *, min_pixels: int = 40) -> Image.Image:
    """Arranges images in a grid, row by row; small images are enlarged by a whole factor.

    Args:
      samples: images `[n, h, w, c]` in [-1, 1]. One channel is grey; of more channels the first three are red, green
        and blue, and a missing third one is black.
      columns: images per row.
      min_pixels: smallest width of an image in the picture; narrower images are enlarged to at least this width.

    Returns:
      The picture.

    Raises:
      InvalidInputError: for samples that are no images `[n, h, w, c]`: videos, points, or images with their channels
        first; or for `columns` below 1.
    """
    check_images(samples=samples)
    if columns < 1:
        raise InvalidInputError(f"columns={columns}: expected at least 1")
    n, height, width, channels = samples.shape
    if channels != 1:
        samples = np.pad(samples[..., :3], ((0, 0),) * 3 + ((0, max(0, 3 - channels)),), constant_values=-1.0)
        channels = 3
    rows = -(-n // columns)
    scale = max(1, -(-min_pixels // width))
    # Values that are not finite are replaced, since `to_uint8` refuses them: diverged samples are drawn too.
    pixels = to_uint8(np.nan_to_num(samples, nan=-1.0, posinf=1.0, neginf=-1.0))
    pixels = pixels.repeat(scale, axis=1).repeat(scale, axis=2)
    height, width = height * scale + _GAP, width * scale + _GAP
    canvas = np.full((rows * height + _GAP, columns * width + _GAP, channels), 64, np.uint8)
    for index, image in enumerate(pixels):
        top, left = index // columns * height + _GAP, index % columns * width + _GAP
        canvas[top : top + height - _GAP, left : left + width - _GAP] = image
    return Image.fromarray(canvas[..., 0] if channels == 1 else canvas)


def side_by_side(game: Game, function: str = "sample") -> Callable[[State, PRNGKey, Batch], Array]:
    """Makes a preview that shows a function's input, output and, where it is known, target side by side.

    Args:
      game: game that has the function.
      function: name of a function that maps inputs: `sample` of a game without a prior, `reconstruct`, or another.

    Returns:
      `(state, key, examples) -> images` for `Experiment.previews`: `[n, h, 2 w or 3 w, c]`. One-channel images are
      repeated to three channels where others have three. Inputs that are not images of the output's size are left out.
    """

    def preview(state: State, key: PRNGKey, examples: Batch) -> Array:
        inputs = examples["inputs"]
        rest = {"label": examples["label"]} if "label" in examples else {}
        if function == "sample":
            output = game.sample(state, key, len(inputs), inputs=inputs, **rest)
        else:
            output = game.functions[function](state, key, inputs, **rest)
        # The target of a reconstruction is its input, which is shown already.
        target = None if function == "reconstruct" else examples.get("target")
        row = [x for x in (inputs, output, target) if x is not None and x.shape[:-1] == output.shape[:-1]]
        channels = max(x.shape[-1] for x in row)
        return jnp.concatenate([jnp.broadcast_to(x, (*x.shape[:-1], channels)) for x in row], axis=-2)

    preview.function = function  # type: ignore[attr-defined]  # its domain may have examples of its own
    return preview


def grid_columns(n: int, num_classes: int | None) -> int:
    """Returns the columns for a grid of `n` samples: one per class if rows stay short enough to read, else a square."""
    by_class = num_classes is not None and num_classes <= 20 and n >= 2 * num_classes
    return num_classes if by_class and num_classes is not None else math.ceil(math.sqrt(n))


def scatter(samples: np.ndarray, columns: int, *, centers: np.ndarray | None = None) -> Image.Image:
    """Plots points in the plane, over the centres of the modes that they should cover.

    Args:
      samples: points, `[n, 2]`.
      columns: unused; it is here because previews of images need it.
      centers: centres of the modes, `[modes, 2]`, drawn as crosses.

    Returns:
      The picture.

    Raises:
      InvalidInputError: for samples that are no points of the plane.
    """
    del columns
    if samples.ndim != 2 or samples.shape[1] != 2:
        raise InvalidInputError(
            f"samples {samples.shape}: scatter draws points [n, 2]; use preview=image_grid for images"
        )
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
