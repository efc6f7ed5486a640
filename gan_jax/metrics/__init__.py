"""Metrics of samples and of pairs of images, computed from features, predictions, points or images.

The package depends on jax, jaxtyping and numpy only. Sums over samples run in float64 on the host. Computations over
all pairs (nearest neighbours, CMMD) run in blocks on the devices that hold their arguments.
"""

from gan_jax.metrics.frechet import Moments, frechet_distance, frechet_infinity, merge, moments
from gan_jax.metrics.inception import Score, inception_score
from gan_jax.metrics.kernel import KernelDistance, cmmd, kernel_distance
from gan_jax.metrics.modes import Coverage, MixtureCoverage, mixture_coverage, mode_coverage
from gan_jax.metrics.neighbours import DensityCoverage, PrecisionRecall, density_coverage, nearest, precision_recall
from gan_jax.metrics.pairs import feature_distance, l1, psnr, ssim
from gan_jax.metrics.probe import linear_probe
from gan_jax.metrics.transport import sliced_wasserstein
from gan_jax.metrics.variational import active_units
from gan_jax.metrics.video import (
    CELLS,
    ClipAttributes,
    clip_attributes,
    disentanglement,
    horizontal,
    motion_kinds,
    mutual_information,
    shape_cells,
)

__all__ = [
    "CELLS",
    "ClipAttributes",
    "Coverage",
    "DensityCoverage",
    "KernelDistance",
    "MixtureCoverage",
    "Moments",
    "PrecisionRecall",
    "Score",
    "active_units",
    "clip_attributes",
    "cmmd",
    "density_coverage",
    "disentanglement",
    "feature_distance",
    "frechet_distance",
    "frechet_infinity",
    "horizontal",
    "inception_score",
    "kernel_distance",
    "l1",
    "linear_probe",
    "merge",
    "mixture_coverage",
    "mode_coverage",
    "moments",
    "motion_kinds",
    "mutual_information",
    "nearest",
    "precision_recall",
    "psnr",
    "shape_cells",
    "sliced_wasserstein",
    "ssim",
]
