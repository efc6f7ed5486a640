"""Pictures of a run: files of samples, metrics against images seen, and samples beside their nearest references."""

import fractions
import io
import math
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from gan_jax.buckets import StorageError
from gan_jax.host import from_uint8, replacing
from gan_jax.metrics import nearest
from gan_jax.runtime import Evaluator, Experiment, Film, image_grid
from gan_jax.runtime.film import ANIMATED
from gan_jax.types import InvalidInputError

_GAP = 4  # grey pixels between pictures in rows
_NEAREST = 7  # reference images beside each sample
_CELL = 96  # least width of an image among its neighbours, in pixels
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
    """Arranges pictures of any sizes in rows, each scaled to a longest side; its ratio of height to width stays.

    Args:
      pictures: rows of pictures `[h, w, 1]` or `[h, w, 3]`, uint8.
      cell: longest side of each, in pixels.

    Returns:
      The picture.
    """
    scaled = [[_scaled(values, cell) for values in members] for members in pictures]
    heights = [max(picture.height for picture in members) for members in scaled]
    widest = max(picture.width for members in scaled for picture in members)
    columns = max(map(len, scaled))
    size = (columns * (widest + _GAP) + _GAP, sum(heights) + len(heights) * _GAP + _GAP)
    canvas, top = Image.new("RGB", size, (64, 64, 64)), _GAP
    for members, height in zip(scaled, heights, strict=True):
        for column, picture in enumerate(members):
            left = _GAP + column * (widest + _GAP)
            canvas.paste(picture, (left + (widest - picture.width) // 2, top + (height - picture.height) // 2))
        top += height + _GAP
    return canvas


def _scaled(values: np.ndarray, longest: int) -> Image.Image:
    """Returns a picture scaled to a longest side; small ones are enlarged without blur."""
    picture = Image.fromarray(values[..., 0] if values.shape[-1] == 1 else values)
    ratio = longest / max(picture.size)
    size = max(1, round(ratio * picture.width)), max(1, round(ratio * picture.height))
    return picture.resize(size, Image.Resampling.LANCZOS if ratio < 1 else Image.Resampling.NEAREST)


def curves(lines: Sequence[dict[str, Any]], directions: Mapping[str, str]) -> Image.Image:
    """Plots each metric against the images seen in training, and marks its best checkpoint.

    Args:
      lines: lines of eval.jsonl, all under one protocol.
      directions: `min` or `max` by the name of the value, whichever is better; others have no best.

    Returns:
      The picture.
    """
    from matplotlib.figure import Figure  # noqa: PLC0415 - slow to import

    names = list(lines[-1]["metrics"])
    columns = min(3, len(names))
    rows = -(-len(names) // columns)
    figure = Figure(figsize=(4.8 * columns, 3.4 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in panels[len(names) :]:
        axes.set_visible(False)
    ordered = sorted(lines, key=lambda line: line["images"])
    for axes, name in zip(panels, names, strict=False):
        _curve(axes, ordered, name, directions.get(name, ""))
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=100)
    return Image.open(buffer).convert("RGB")


def _curve(axes: Any, lines: Sequence[dict[str, Any]], name: str, direction: str) -> None:
    """Plots one metric, with room around its points; 0 is in sight where it is near."""
    images, values = [line["images"] for line in lines], [line["metrics"][name] for line in lines]
    axes.plot(images, values, marker="o", markersize=4)
    axes.margins(0.08)
    axes.set_title(name, fontsize=10)
    axes.set_xlabel("images")
    axes.locator_params(axis="x", nbins=5)  # numbers of images are long, and more of them would run together
    axes.xaxis.set_major_formatter("{x:,.0f}")
    known = [(value, index) for index, value in enumerate(values) if math.isfinite(value)]
    if known and 0 <= min(known)[0] < max(known)[0] / 2:
        axes.set_ylim(bottom=-0.04 * max(known)[0])
    if known and direction:
        value, index = (min if direction == "min" else max)(known)
        axes.plot(
            images[index], value, "o", markersize=11, markerfacecolor="none", color="tab:red", markeredgewidth=1.5
        )
        axes.set_title(f"{name}\nbest {value:.4g} at step {lines[index]['step']:,}", fontsize=10)


def neighbours(samples: np.ndarray, experiment: Experiment, evaluator: Evaluator) -> Image.Image | Film:
    """Shows each sample in a row of its own, followed by its nearest neighbours in the reference, with distances.

    The distance is between features of the evaluator's first network.

    Args:
      samples: generated images, `[n, h, w, c]`, in [-1, 1].
      experiment: experiment that the samples are of; its `preview` draws each image.
      evaluator: evaluator that has the reference and its features.

    Returns:
      The picture; of clips, a film without distances.

    Raises:
      InvalidInputError: if no metric of the evaluator compares features.
    """
    if not evaluator.real:
        raise InvalidInputError(
            "--neighbours: none of the --metrics compares features with those of the data; add one, such as fcd2k"
        )
    features, reference = evaluator.features(samples)
    distances, index = nearest(features, reference, _NEAREST)
    images = from_uint8(evaluator.images(index.ravel())).reshape(-1, _NEAREST, *samples.shape[1:])
    if samples.ndim != 4:
        rows = np.concatenate([samples[:, None], images], axis=1)
        return experiment.preview(rows.reshape(-1, *samples.shape[1:]), _NEAREST + 1)
    network = next(iter(evaluator.real))
    title = f"{_NEAREST} nearest of {len(reference):,} images of {evaluator.reference.name}, by features of {network}"
    return beside(samples, images, distances, title)


def beside(samples: np.ndarray, others: np.ndarray, distances: np.ndarray, title: str) -> Image.Image:
    """Draws samples in a column of their own, with a frame, and other images beside each, with numbers below.

    Args:
      samples: images `[n, h, w, c]` in [-1, 1].
      others: images `[n, k, h, w, c]` in [-1, 1].
      distances: numbers `[n, k]`.
      title: text above the other images.

    Returns:
      The picture.
    """
    cells = [[np.asarray(image_grid(x[None], 1, min_pixels=_CELL).convert("RGB")) for x in (one, *many)]
             for one, many in zip(samples, others, strict=True)]  # fmt: skip
    high, wide, _ = cells[0][0].shape
    font, small = ImageFont.load_default(14), ImageFont.load_default(11)
    left, step_x, step_y, top = 3 * _GAP, wide + _GAP, high + 18, 26
    apart = left + wide + 10 * _GAP  # where the others begin
    canvas = Image.new("RGB", (apart + len(cells[0][1:]) * step_x + left, top + len(cells) * step_y + _GAP), "white")
    pen = ImageDraw.Draw(canvas)
    pen.text((left, 5), "sample", "black", font)
    pen.text((apart, 5), title, "black", font)
    for row, (one, *many) in enumerate(cells):
        y = top + row * step_y
        canvas.paste(Image.fromarray(one), (left, y))
        pen.rectangle((left - 2, y - 2, left + wide + 1, y + high + 1), outline="#d62728", width=3)
        for column, pixels in enumerate(many):
            x = apart + column * step_x
            canvas.paste(Image.fromarray(pixels), (x, y))
            pen.text((x + wide / 2, y + high + 2), f"{distances[row, column]:.3g}", "black", small, anchor="ma")
    return canvas
