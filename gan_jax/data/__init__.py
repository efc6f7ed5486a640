"""Data sources: each batch is a function of (seed, step), independent of the number of hosts."""

from gan_jax.data.combine import (
    Combined,
    Renamed,
    Transformed,
    clip,
    crop,
    flip,
    renamed,
    transformed,
    unpaired,
    zip_sources,
)
from gan_jax.data.digits import digits
from gan_jax.data.folder import image_folder
from gan_jax.data.mixtures import Mixture, grid, ring
from gan_jax.data.sources import Arrays, Draws, Feed, Records, Source, to_model
from gan_jax.data.stacked import Stacked, stacked
from gan_jax.data.tfds import tfds_images

__all__ = [
    "Arrays",
    "Combined",
    "Draws",
    "Feed",
    "Mixture",
    "Records",
    "Renamed",
    "Source",
    "Stacked",
    "Transformed",
    "clip",
    "crop",
    "digits",
    "flip",
    "grid",
    "image_folder",
    "renamed",
    "ring",
    "stacked",
    "tfds_images",
    "to_model",
    "transformed",
    "unpaired",
    "zip_sources",
]
