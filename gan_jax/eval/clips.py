"""Metrics of clips: their attributes in closed form, compared with those of the reference."""

import math
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from gan_jax import metrics
from gan_jax.eval.extract import Extractor
from gan_jax.host import from_uint8

PIXELS = 64  # lengths are in pixels of frames of this height, whatever the frames are
MATRIX = 16  # contents and motions of one matrix of clips
_LEAST = 0.01  # least scale of an attribute, for those that are constant in the reference
# What varies within a clip may not vary at all in the reference, so it is compared with how much clips differ in the
# quantity itself. Shares of frames have the scale 1.
_SPREAD_OF = {
    "color_std": "color", "area_std": "area", "closure": "displacement", "smoothness": "displacement",
    "line": "displacement", "circle": "displacement", "compact": None, "visible": None,
}  # fmt: skip


def attributes() -> Extractor:
    """Returns the extractor of clips' attributes, `metrics.clip_attributes`, in place of a network's features."""

    def apply(params: PyTree, clips: Array) -> dict[str, Array]:
        del params
        return {"features": metrics.clip_attributes(from_uint8(clips), pixels=PIXELS).rows()}

    return Extractor(apply, None, {"name": "attributes", "version": 2, "pixels": PIXELS}, "clips")


def fd_attributes(found: Any) -> dict[str, float]:
    """Computes the Frechet distance of attributes, each divided by its scale in the reference."""
    real, fake = (np.asarray(side.outputs.features, np.float64) for side in (found.real, found.fake))
    scale = scales(real)
    return {"": metrics.frechet_distance(metrics.moments(real / scale), metrics.moments(fake / scale))}


def scales(rows: np.ndarray) -> np.ndarray:
    """Returns the scale of each attribute: its standard deviation, or that of what it is a change of.

    Args:
      rows: attributes of the reference's clips, from `ClipAttributes.rows`.
    """
    spread = {
        name: np.maximum(np.std(x.reshape(len(x), -1), axis=0), _LEAST)
        for name, x in metrics.ClipAttributes.of_rows(rows)._asdict().items()
    }
    of = {name: spread[source] if source else np.ones(1) for name, source in _SPREAD_OF.items()}
    common = {name: np.sqrt(np.mean(x**2, keepdims=True)) for name, x in of.items()}
    return np.concatenate([common.get(name, x) for name, x in spread.items()])


def shapes(found: Any) -> dict[str, float]:
    """Measures clips of MoCoGAN's moving shapes."""
    real, fake = (metrics.ClipAttributes.of_rows(side.outputs.features) for side in (found.real, found.fake))
    across = math.sqrt(float(np.var(real.color, axis=0).mean()))
    shares = np.bincount(metrics.shape_cells(real, PIXELS), minlength=metrics.CELLS) / len(real.area)
    coverage = metrics.mode_coverage(metrics.shape_cells(fake, PIXELS), metrics.CELLS, shares)
    return {
        "_compact": float(np.mean(fake.compact)),
        "_color": float(np.mean(fake.color_std)) / max(across, 1e-9),
        "_vertical": float(1 - np.mean(metrics.horizontal(fake))),
        "_path": float(np.mean(np.abs(fake.displacement).max(axis=1))),
        "_closure": float(np.mean(fake.closure)),
        "_smoothness": float(np.mean(fake.smoothness)),
        "_modes": float(coverage.modes),
        "_kl": coverage.kl,
    }


def moving_digits(found: Any) -> dict[str, float]:
    """Measures clips of moving digits: shares of the motions, their KL from the reference, constancy of the ink."""
    real, fake = (metrics.ClipAttributes.of_rows(side.outputs.features) for side in (found.real, found.fake))
    kinds = [metrics.motion_kinds(side, PIXELS) for side in (real, fake)]
    shares = [np.bincount(kind, minlength=3) / len(kind) for kind in kinds]
    coverage = metrics.mode_coverage(kinds[1], 3, shares[0])
    return {
        **{
            f"_{name}": float(share)
            for name, share in zip(("straight", "bouncing", "circling"), shares[1], strict=True)
        },
        "_kl": coverage.kl,
        "_ink": float(np.mean(fake.area_std / np.maximum(fake.area, 1e-6))),
        "_smoothness": float(np.mean(fake.smoothness)),
    }


def disentanglement(found: Any) -> dict[str, float]:
    """Computes the share of the content in the variance of attributes, in matrices of 16 contents and 16 motions."""
    rows = np.asarray(found.fake.outputs.features)
    count = len(rows) // MATRIX**2
    fake = metrics.ClipAttributes.of_rows(rows[: count * MATRIX**2])
    chosen = {"_color": fake.color, "_size": fake.side, "_shape": fake.fill, "_path": fake.displacement}
    made = {name: np.asarray(x).reshape(count, MATRIX, MATRIX, -1) for name, x in chosen.items()}
    return {name: float(np.mean([metrics.disentanglement(each) for each in x])) for name, x in made.items()}


SHAPES = {
    "_compact": "max", "_color": "min", "_vertical": "", "_path": "", "_closure": "min", "_smoothness": "",
    "_modes": "max", "_kl": "min",
}  # fmt: skip
MOVING_DIGITS = dict.fromkeys(("_straight", "_bouncing", "_circling"), "") | {
    "_kl": "min", "_ink": "min", "_smoothness": "",
}  # fmt: skip
DISENTANGLEMENT = {"_color": "max", "_size": "max", "_shape": "max", "_path": "min"}


def over_time(made: Extractor) -> Extractor:
    """Applies a classifier of images to clips, whose frames are the channels of one image."""

    def apply(weights: PyTree, clips: Array) -> dict[str, Array]:
        return made.apply(weights, folded(clips))

    return made._replace(apply=apply, record=made.record | {"over_time": True}, takes="clips")


def folded(clips: Any) -> Any:
    """Makes one image of each clip, with the channels of all frames: `[n, t, h, w, c] -> [n, h, w, t c]`."""
    moved = (jnp if not isinstance(clips, np.ndarray) else np).moveaxis(clips, 1, 3)
    return moved.reshape(*moved.shape[:3], -1)
