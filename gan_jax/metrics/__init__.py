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

__all__ = [
    "Coverage",
    "DensityCoverage",
    "KernelDistance",
    "MixtureCoverage",
    "Moments",
    "PrecisionRecall",
    "Score",
    "active_units",
    "cmmd",
    "density_coverage",
    "feature_distance",
    "frechet_distance",
    "frechet_infinity",
    "inception_score",
    "kernel_distance",
    "l1",
    "linear_probe",
    "merge",
    "mixture_coverage",
    "mode_coverage",
    "moments",
    "nearest",
    "precision_recall",
    "psnr",
    "sliced_wasserstein",
    "ssim",
]
