"""Pictures of a run: files of samples, metrics against images seen, and samples beside their nearest references."""

import fractions
import io
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from PIL import Image

from gan_jax.buckets import StorageError
from gan_jax.host import from_uint8, replacing
from gan_jax.metrics import nearest
from gan_jax.runtime import Evaluator, Experiment, Film
from gan_jax.runtime.film import ANIMATED
from gan_jax.types import InvalidInputError

_GAP = 4  # grey pixels between pictures in rows
_NEAREST = 7  # reference images beside each sample
# Formats for grey and colour in all usual sizes, by file ending.
PICTURES = {
    ".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP", ".bmp": "BMP", ".gif": "GIF", ".tif": "TIFF",
    ".tiff": "TIFF", ".pdf": "PDF",
}  # fmt: skip
MOVING = {**ANIMATED, ".mp4": "MP4"}
"""Formats in which clips move, by file ending; the others show a still picture of them."""


def write(out: pathlib.Path, samples: np.ndarray, picture: Callable[[], Image.Image | Film], name: str) -> None:
    """Writes samples to a file, as an array (`.npy`) or as a picture, according to its ending: `PICTURES`, `MOVING`.

    Args:
      out: path of the file.
      samples: the samples.
      picture: makes the picture of them.
      name: the argument that names the file, for the message.

    Raises:
      InvalidInputError: if the file cannot be written, or its format does not hold such a picture.
    """
    ending = out.suffix.lower()
    if ending == ".mp4":
        _write_film(out, picture(), name)
        return
    try:
        with replacing(out, "wb") as file:
            if ending == ".npy":
                np.save(file, samples)
            else:
                picture().save(file, format=PICTURES[ending])
    except StorageError:
        raise
    except (OSError, ValueError) as error:
        raise InvalidInputError(
            f"{name} cannot be written ({error}): .png holds pictures of every kind and size"
        ) from error


def _write_film(out: pathlib.Path, picture: Image.Image | Film, name: str) -> None:
    """Writes clips as MP4, in H.264 with 4:2:0 colours, which all players show."""
    if not isinstance(picture, Film):
        raise InvalidInputError(f"{name}: the samples of this run do not move; use .png")
    try:
        import av  # noqa: PLC0415 - an optional dependency
    except ImportError as error:
        raise InvalidInputError(
            f"{name}: films are written by PyAV, which is not installed: pip install 'gan_jax[video]', or use .webp"
        ) from error
    width, height = picture.frames[0].size
    with replacing(out, "wb") as file, av.open(file, mode="w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=fractions.Fraction(picture.rate).limit_denominator(1000))
        stream.width, stream.height, stream.pix_fmt = width + width % 2, height + height % 2, "yuv420p"
        for frame in picture.frames:
            padded = Image.new("RGB", (stream.width, stream.height))
            padded.paste(frame)
            container.mux(stream.encode(av.VideoFrame.from_image(padded)))
        container.mux(stream.encode(None))


def save(picture: Image.Image | Film, path: pathlib.Path) -> None:
    """Writes a picture as PNG, of clips the still one."""
    with replacing(path, "wb") as file:
        picture.save(file, format="PNG")


def rows(pictures: Sequence[Sequence[np.ndarray]], cell: int = 256) -> Image.Image:
    """Arranges pictures of any sizes in rows, each scaled to fit into a square; its ratio of height to width stays.

    Args:
      pictures: rows of pictures `[h, w, 1]` or `[h, w, 3]`, uint8.
      cell: height and width of the squares, in pixels.

    Returns:
      The picture.
    """
    step = cell + _GAP
    columns = max(map(len, pictures))
    canvas = Image.new("RGB", (columns * step + _GAP, len(pictures) * step + _GAP), (64, 64, 64))
    for row, members in enumerate(pictures):
        for column, values in enumerate(members):
            picture = Image.fromarray(values[..., 0] if values.shape[-1] == 1 else values)
            ratio = cell / max(picture.size)
            size = max(1, round(ratio * picture.width)), max(1, round(ratio * picture.height))
            scaled = picture.resize(size, Image.Resampling.LANCZOS if ratio < 1 else Image.Resampling.NEAREST)
            left, top = ((cell - extent) // 2 for extent in size)
            canvas.paste(scaled, (_GAP + column * step + left, _GAP + row * step + top))
    return canvas


def curves(lines: Sequence[dict[str, Any]]) -> Image.Image:
    """Plots each metric against the images seen in training.

    Args:
      lines: lines of eval.jsonl, all under one protocol.

    Returns:
      The picture.
    """
    from matplotlib.figure import Figure  # noqa: PLC0415 - slow to import

    names = list(lines[-1]["metrics"])
    columns = min(3, len(names))
    rows = -(-len(names) // columns)
    figure = Figure(figsize=(4.5 * columns, 3.2 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.ravel()[len(names) :]:
        axis.set_visible(False)
    ordered = sorted(lines, key=lambda line: line["images"])
    for axis, name in zip(axes.ravel(), names, strict=False):
        axis.plot([line["images"] for line in ordered], [line["metrics"][name] for line in ordered], marker="o")
        axis.set_title(name)
        axis.set_xlabel("images")
        axis.set_ylim(bottom=0)
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=100)
    return Image.open(buffer).convert("RGB")


def neighbours(samples: np.ndarray, experiment: Experiment, evaluator: Evaluator) -> Image.Image | Film:
    """Shows each sample in a row of its own, followed by its nearest neighbours in the reference.

    The distance is between features of the evaluator's first network.

    Args:
      samples: generated images, `[n, h, w, c]`, in [-1, 1].
      experiment: experiment that the samples are of; its `preview` lays out the picture.
      evaluator: evaluator that has the reference and its features.

    Returns:
      The picture.

    Raises:
      InvalidInputError: if no metric of the evaluator compares features.
    """
    if not evaluator.real:
        raise InvalidInputError(
            "--neighbours: none of the --metrics compares features with those of the data; add one, such as fcd2k"
        )
    features, reference = evaluator.features(samples)
    _, index = nearest(features, reference, _NEAREST)
    images = from_uint8(evaluator.images(index.ravel()))
    rows = np.concatenate([samples[:, None], images.reshape(-1, _NEAREST, *samples.shape[1:])], axis=1)
    return experiment.preview(rows.reshape(-1, *samples.shape[1:]), _NEAREST + 1)
