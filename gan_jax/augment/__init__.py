"""Differentiable augmentation of the discriminator's inputs, as pure functions that need only JAX and NumPy."""

from gan_jax.augment.ada import AdaState, control, init_ada, observe
from gan_jax.augment.clips import per_clip
from gan_jax.augment.diffaug import color, cutout, diff_augment, translation
from gan_jax.augment.geometry import blit, geometry
from gan_jax.augment.pipeline import OPERATIONS, ada_pipeline, band_filters, corrupt, filter_bands, transform_color

__all__ = [
    "OPERATIONS",
    "AdaState",
    "ada_pipeline",
    "band_filters",
    "blit",
    "color",
    "control",
    "corrupt",
    "cutout",
    "diff_augment",
    "filter_bands",
    "geometry",
    "init_ada",
    "observe",
    "per_clip",
    "transform_color",
    "translation",
]
