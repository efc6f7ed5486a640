"""The picture of `benchmarks.vae_gan`: what each method makes, from the checkpoints of its first seed."""

import pathlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image, ImageDraw

from gan_jax import runtime

if TYPE_CHECKING:
    from benchmarks.vae_gan import Subject

_SHOWN = 8
_STEPS = jnp.linspace(0.0, 1.0, _SHOWN)
COLUMNS = ("samples of the prior", "ex-post mixture", "held out, and nearest output", "interpolation")


def strips(subject: "Subject") -> list[np.ndarray]:
    """Returns the four strips of a method, each `[2 * 8, h, w, c]`; black where the method has no such thing."""
    prior, held_out = subject.game.prior, subject.data.held_out[:_SHOWN]
    assert prior is not None
    latents = np.asarray(prior.sample(jax.random.key(1), 2 * _SHOWN))
    if subject.encodes:
        mixture = np.asarray(subject.fitted["fcd_mixture"].sample(jax.random.key(1), 2 * _SHOWN))
        expost, near = subject.mapped("sample", mixture), subject.mapped("reconstruct", held_out)
        ends = subject.mapped("encode", held_out[:4])
    else:
        expost, near = (
            -np.ones((2 * _SHOWN, *held_out.shape[1:])),
            subject.mapped("sample", subject.inverted(held_out)[0]),
        )
        ends = subject.inverted(held_out[:4])[0]
    repeated = [jnp.tile(z, (_SHOWN, 1)) for z in ends]
    paths = [prior.interpolate(repeated[i], repeated[i + 1], _STEPS) for i in (0, 2)]
    between = subject.mapped("sample", np.concatenate(paths))
    return [subject.mapped("sample", latents), expost, np.concatenate([held_out, near]), between]


def draw(subjects: "Mapping[str, Subject]", path: pathlib.Path) -> None:
    """Draws the picture of a data set: a row for each trained method."""
    methods, rows = (
        list(subjects),
        [
            [runtime.image_grid(strip, _SHOWN, min_pixels=28) for strip in strips(subject)]
            for subject in subjects.values()
        ],
    )
    width, height = rows[0][0].size
    left, top, gap = 90, 18, 6
    canvas = Image.new("RGB", (left + 4 * (width + gap), top + len(rows) * (height + gap)), "white")
    pen = ImageDraw.Draw(canvas)
    for column, title in enumerate(COLUMNS):
        pen.text((left + column * (width + gap), 3), title, fill="black")
    for row, (method, pictures) in enumerate(zip(methods, rows, strict=True)):
        pen.text((3, top + row * (height + gap) + height // 2 - 6), method, fill="black")
        for column, picture in enumerate(pictures):
            canvas.paste(picture.convert("RGB"), (left + column * (width + gap), top + row * (height + gap)))
    path.parent.mkdir(exist_ok=True)
    canvas.save(path)
