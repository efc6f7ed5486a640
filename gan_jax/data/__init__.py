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
from gan_jax.data.made import (
    Colourisation,
    Denoising,
    EdgesToImage,
    Inpainting,
    Made,
    Make,
    SuperResolution,
    luma,
    made_pairs,
)
from gan_jax.data.mixtures import Mixture, grid, ring
from gan_jax.data.movies import video_folder
from gan_jax.data.moving_digits import DigitTruth, moving_digits, moving_digits_truth
from gan_jax.data.pairs import paired_folder, unpaired_folder, unpaired_tfds
from gan_jax.data.photographs import photographs
from gan_jax.data.sources import Arrays, Draws, Feed, Records, Source, to_model
from gan_jax.data.stacked import Stacked, stacked
from gan_jax.data.tfds import tfds_images
from gan_jax.data.turned_digits import turned, turned_digit_pairs, turned_digits
from gan_jax.data.videos import Clips, tfds_videos, video_arrays

__all__ = [
    "Arrays",
    "Clips",
    "Colourisation",
    "Combined",
    "Denoising",
    "DigitTruth",
    "Draws",
    "EdgesToImage",
    "Feed",
    "Inpainting",
    "Made",
    "Make",
    "Mixture",
    "Records",
    "Renamed",
    "Source",
    "Stacked",
    "SuperResolution",
    "Transformed",
    "clip",
    "crop",
    "digits",
    "flip",
    "grid",
    "image_folder",
    "luma",
    "made_pairs",
    "moving_digits",
    "moving_digits_truth",
    "paired_folder",
    "photographs",
    "renamed",
    "ring",
    "stacked",
    "tfds_images",
    "tfds_videos",
    "to_model",
    "transformed",
    "turned",
    "turned_digit_pairs",
    "turned_digits",
    "unpaired",
    "unpaired_folder",
    "unpaired_tfds",
    "video_arrays",
    "video_folder",
    "zip_sources",
]
