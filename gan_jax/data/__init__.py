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
from gan_jax.data.movies import video_folder
from gan_jax.data.moving_digits import DigitTruth, moving_digits, moving_digits_truth
from gan_jax.data.sources import Arrays, Draws, Feed, Records, Source, to_model
from gan_jax.data.stacked import Stacked, stacked
from gan_jax.data.tfds import tfds_images
from gan_jax.data.videos import Clips, tfds_videos, video_arrays

__all__ = [
    "Arrays",
    "Clips",
    "Combined",
    "DigitTruth",
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
    "moving_digits",
    "moving_digits_truth",
    "renamed",
    "ring",
    "stacked",
    "tfds_images",
    "tfds_videos",
    "to_model",
    "transformed",
    "unpaired",
    "video_arrays",
    "video_folder",
    "zip_sources",
]
