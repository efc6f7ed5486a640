"""Evaluation: feature networks, the feature pass, metrics by name, and selection of samples.

`eval.inception`, `eval.dinov2` and `eval.clip` each return a `FeatureNetwork`. Weights are never downloaded: they come
from the directory passed to `load`, or from `$GAN_JAX_WEIGHTS`.
"""

from gan_jax import deprecated
from gan_jax.eval.classifier import VERSION as CLASSIFIER_VERSION
from gan_jax.eval.classifier import (
    by_channel,
    classifier,
    load_classifier,
    save_classifier,
    train_classifier,
    untrained_classifier,
)
from gan_jax.eval.clips import attributes, folded, over_time
from gan_jax.eval.extract import Extractor, Outputs, extract, keep, lower, placed
from gan_jax.eval.latents import fit_prior
from gan_jax.eval.scores import (
    MATRIX,
    METRICS,
    PAIRS,
    SAMPLES,
    Comparison,
    FeatureStatistics,
    Metric,
    MetricSpec,
    metric_specs,
)
from gan_jax.eval.selection import Chosen, calibrate, metropolis_hastings, reject, top
from gan_jax.feature_networks import FeatureNetwork, WeightsFile, clip, dinov2, i3d, inception, lpips

__all__ = [
    "CLASSIFIER_VERSION",
    "MATRIX",
    "METRICS",
    "PAIRS",
    "SAMPLES",
    "Chosen",
    "Comparison",
    "Extractor",
    "FeatureNetwork",
    "FeatureStatistics",
    "Metric",
    "MetricSpec",
    "Outputs",
    "WeightsFile",
    "attributes",
    "by_channel",
    "calibrate",
    "classifier",
    "clip",
    "dinov2",
    "extract",
    "fit_prior",
    "folded",
    "i3d",
    "inception",
    "keep",
    "load_classifier",
    "lower",
    "lpips",
    "metric_specs",
    "metropolis_hastings",
    "over_time",
    "placed",
    "reject",
    "save_classifier",
    "top",
    "train_classifier",
    "untrained_classifier",
]


__getattr__ = deprecated.attributes(
    __name__,
    {
        "Side": ("FeatureStatistics", lambda: FeatureStatistics),
        "Request": ("MetricSpec", lambda: MetricSpec),
        "requests": ("metric_specs", lambda: metric_specs),
    },
)
