"""Metrics by name: the network, the number of samples and the protocol that each name stands for."""

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from gan_jax import metrics
from gan_jax.eval import clips
from gan_jax.eval.extract import Extractor, Outputs
from gan_jax.host import from_uint8
from gan_jax.types import InvalidInputError

_LEAST: Mapping[str, str] = {"": "min"}
STANDARD = 50_000  # default number of samples of most metrics
_LONGEST = 4  # digits of a number of samples in thousands
_DIGITS = 10  # classes of one channel of Stacked-MNIST


class FeatureStatistics:
    """A network's outputs for the reals or the fakes of a comparison; their moments are computed once, on first use."""

    def __init__(self, outputs: Outputs) -> None:
        self.outputs = outputs

    @functools.cached_property
    def moments(self) -> metrics.Moments:
        """Moments of the features."""
        return metrics.moments(self.outputs.features)


class Comparison(NamedTuple):
    """The input of a metric.

    Attributes:
      real: features of the reference, or, for a metric of pairs, of the target of each output; None if the metric uses
        the outputs alone.
      fake: features of the outputs.
      seed: seed for random subsets.
      facts: attributes of the reference that the metric needs, by name.
    """

    real: FeatureStatistics | None
    fake: FeatureStatistics
    seed: int
    facts: Mapping[str, Any]


SAMPLES, PAIRS, MATRIX = "samples", "pairs", "matrix"


class Metric(NamedTuple):
    """The definition of a metric.

    Attributes:
      network: network whose features the metric uses: a name, or an `Extractor` of your own. Empty if the metric uses
        the outputs themselves.
      compute: `(comparison) -> {suffix: value}`; the suffix is empty for the metric's main value.
      suffixes: suffixes of the values, each with `min` or `max`, the direction that is better; empty if neither is.
      samples: default number of samples, for a name without a number. A function that maps given inputs is evaluated on
        all of its inputs instead.
      version: version of the definition; it rises with any change that could alter a value.
      compares: whether the metric uses the reals; if not, `real` may be None.
      takes: `samples`, for a set of outputs that is compared with the reference's set; or `pairs`, for outputs that are
        each compared with their target; or `matrix`, for matrices of 16 contents and 16 motions.
      needs: attributes that the reference must have, such as the centres of a mixture.
    """

    network: str | Extractor
    compute: Callable[[Comparison], dict[str, float]]
    suffixes: Mapping[str, str] = _LEAST
    samples: int = STANDARD
    version: int = 1
    compares: bool = True
    takes: str = SAMPLES
    needs: tuple[str, ...] = ()


class MetricSpec(NamedTuple):
    """A requested metric.

    Attributes:
      name: the name as typed.
      base: name of the metric without the number of samples and the function.
      metric: definition of the metric.
      samples: requested number of samples; None if the name has none.
      function: function of the game that makes the outputs; empty for the default of the metric and the game.
    """

    name: str
    base: str
    metric: Metric
    samples: int | None
    function: str

    @property
    def network(self) -> str:
        """Name of the network whose features the metric uses."""
        return self.metric.network if isinstance(self.metric.network, str) else self.base


def _frechet(found: Comparison) -> dict[str, float]:
    assert found.real is not None
    return {"": metrics.frechet_distance(found.real.moments, found.fake.moments)}


def _infinity(found: Comparison) -> dict[str, float]:
    assert found.real is not None
    features = found.fake.outputs.features
    smallest = min(5000, len(features) // 3)
    return {"": metrics.frechet_infinity(found.real.moments, features, smallest=smallest, seed=found.seed)}


def _kernel(found: Comparison) -> dict[str, float]:
    real, fake = _features(found)
    size = min(1000, len(real), len(fake))
    distance = metrics.kernel_distance(real, fake, subset_size=size, seed=found.seed)
    return {"": distance.mean, "_std": distance.std}


def _score(found: Comparison) -> dict[str, float]:
    if found.fake.outputs.logits is None:
        raise InvalidInputError("the inception score needs logits, which this network does not give")
    score = metrics.inception_score(found.fake.outputs.logits)
    return {"": score.mean, "_std": score.std}


def _neighbours(found: Comparison) -> dict[str, float]:
    """Computes precision, recall, density and coverage with as many reals as fakes.

    The values depend on both counts. The larger set is thinned out evenly.
    """
    both = _features(found)
    count = min(map(len, both))
    reals, fakes = (x[(len(x) * np.arange(count)) // count] for x in both)
    manifolds = metrics.precision_recall(reals, fakes)
    balls = metrics.density_coverage(reals, fakes)
    return {f"_{name}": value for name, value in (manifolds._asdict() | balls._asdict()).items()}


def _cmmd(found: Comparison) -> dict[str, float]:
    return {"": metrics.cmmd(*_features(found))}


def _features(found: Comparison) -> tuple[np.ndarray, np.ndarray]:
    assert found.real is not None
    return found.real.outputs.features, found.fake.outputs.features


def _distance(found: Comparison) -> dict[str, float]:
    """Computes the mean over pairs of the distance between their features."""
    real, fake = _features(found)
    distances = np.asarray(metrics.feature_distance(jnp.asarray(fake), jnp.asarray(real)))
    return {"": float(np.mean(distances, dtype=np.float64))}


def _of_pairs(measure: Callable[[Array, Array], Array], best: str) -> Metric:
    """Returns the metric that averages a measure of an output and its target, both in [-1, 1], over all pairs."""

    def apply(params: None, pairs: Array) -> dict[str, Array]:
        del params
        output, target = (from_uint8(pairs[:, i]) for i in range(2))
        return {"features": measure(output, target)[:, None]}

    network = Extractor(apply, None, {"measure": measure.__name__}, PAIRS)
    return Metric(network, _mean_of_pairs, {"": best}, compares=False, takes=PAIRS)


def _mean_of_pairs(found: Comparison) -> dict[str, float]:
    """Computes the mean over pairs of a value that was computed of each."""
    return {"": float(np.mean(found.fake.outputs.features, dtype=np.float64))}


def _mixture(found: Comparison) -> dict[str, float]:
    """Computes the modes that points reach, and how the points spread over them."""
    coverage = metrics.mixture_coverage(found.fake.outputs.features, found.facts["centers"], found.facts["std"])
    return {f"_{name}": float(value) for name, value in coverage._asdict().items()}


def _average(found: Comparison) -> dict[str, float]:
    """Computes the mean of the outputs themselves, such as bits per dimension."""
    return {"": float(np.mean(found.fake.outputs.features, dtype=np.float64))}


def _active(found: Comparison) -> dict[str, float]:
    return {"": float(metrics.active_units(jnp.asarray(found.fake.outputs.features)))}


def _stacked(found: Comparison) -> dict[str, float]:
    """Computes the modes that Stacked-MNIST images reach, and the KL of their histogram from the reference.

    The reference is the product over the channels of the reals' digit frequencies.
    """
    assert found.real is not None
    digits = []
    for side in (found.real, found.fake):
        logits = side.outputs.logits
        if logits is None or logits.shape[1] == _DIGITS or logits.shape[1] % _DIGITS:
            raise InvalidInputError("metric 'stacked' is only for Stacked-MNIST, whose image channels are digits")
        digits.append(logits.reshape(len(logits), -1, _DIGITS).argmax(axis=-1))
    frequencies = np.ones(1)
    for channel in digits[0].T:
        frequencies = np.outer(frequencies, np.bincount(channel, minlength=_DIGITS) / len(channel)).ravel()
    # The digits of the channels, read as a decimal number, are the mode: the same order as in `frequencies`.
    predictions = digits[1] @ _DIGITS ** np.arange(digits[1].shape[1])[::-1]
    coverage = metrics.mode_coverage(predictions, len(frequencies), frequencies)
    return {"_modes": float(coverage.modes), "_kl": coverage.kl}


_COVERAGE = {"_modes": "max", "_kl": "min", "_high_quality": "max", "_js": "min"}
_SPREAD = {"": "min", "_std": ""}
_FOUR = dict.fromkeys(("_precision", "_recall", "_density", "_coverage"), "max")
METRICS = {
    "fid": Metric("inception", _frechet),
    "fid_infinity": Metric("inception", _infinity),
    "kid": Metric("inception", _kernel, _SPREAD),
    "inception_score": Metric("inception", _score, {"": "max", "_std": ""}, compares=False),
    "prdc": Metric("inception", _neighbours, _FOUR),
    "fd_dinov2": Metric("dinov2", _frechet),
    "fd_dinov2_infinity": Metric("dinov2", _infinity),
    "kd_dinov2": Metric("dinov2", _kernel, _SPREAD),
    "prdc_dinov2": Metric("dinov2", _neighbours, _FOUR),
    "cmmd": Metric("clip", _cmmd),
    "fcd": Metric("classifier", _frechet),
    "fcd_infinity": Metric("classifier", _infinity),
    "kcd": Metric("classifier", _kernel, _SPREAD),
    "prdc_classifier": Metric("classifier", _neighbours, _FOUR),
    "stacked": Metric("classifier", _stacked, {"_modes": "max", "_kl": "min"}, 26_000, needs=("modes",)),
    "mixture": Metric("", _mixture, _COVERAGE, 2_500, compares=False, needs=("centers", "std")),
    "mean": Metric("", _average, {"": ""}, compares=False),
    "active_units": Metric("", _active, {"": ""}, compares=False),
    "fvd": Metric("i3d", _frechet, samples=2_048),
    "fd_attributes": Metric("attributes", clips.fd_attributes),
    "fcd_video": Metric("video_classifier", _frechet),
    "shapes": Metric("attributes", clips.shapes, clips.SHAPES, 2_000),
    "moving_digits": Metric("attributes", clips.moving_digits, clips.MOVING_DIGITS, 2_000),
    "disentanglement": Metric(
        "attributes", clips.disentanglement, clips.DISENTANGLEMENT, 4 * clips.MATRIX**2, compares=False, takes=MATRIX
    ),
    "l1": _of_pairs(metrics.l1, "min"),
    "psnr": _of_pairs(metrics.psnr, "max"),
    "ssim": _of_pairs(metrics.ssim, "max"),
    "lpips": Metric("lpips", _mean_of_pairs, compares=False, takes=PAIRS),
    "inception_distance": Metric("inception", _distance, takes=PAIRS),
    "dinov2_distance": Metric("dinov2", _distance, takes=PAIRS),
    "clip_distance": Metric("clip", _distance, takes=PAIRS),
    "classifier_distance": Metric("classifier", _distance, takes=PAIRS),
}
"""The metrics by name.

`fcd` and `kcd` are the Frechet and the kernel classifier distance. They use the features of a classifier trained on the
data set in hand. Compare their values only within one data set and one classifier, and never call them FID. `prdc` is
precision, recall, density and coverage, with as many reals as fakes: the smaller of the two counts. Kernel distances
use 100 subsets of 1,000 samples, or of all samples if there are fewer. `stacked` uses 26,000 samples by default. It
gives the modes of Stacked-MNIST that they reach, and KL(samples || data), called "reverse KL" in papers. `mixture` uses
2,500 points. `mean` and `active_units` are of what a function of the game returns, which need not be images, as in
`bits_per_dimension:mean` and `encode:active_units`. `l1`, `psnr`, `ssim` and the feature distances are metrics of
pairs: the mean over all pairs of an output and its target.

Of clips: `fvd` is the Frechet video distance, of 2,048 clips by default. `fd_attributes` is the Frechet distance of
attributes that are read in closed form, `fcd_video` that of the features of a classifier of clips, which is trained on
the data set in hand; neither is FVD. `fcd` is that of frames. `shapes` and `moving_digits` measure clips of these data,
and `disentanglement` what a content and what a motion decides.
"""


def metric_specs(names: Sequence[str], own: Mapping[str, Metric] = MappingProxyType({})) -> list[MetricSpec]:
    """Parses metric names such as `fid` (of 50,000 samples), `fid5k`, `fcd2k`, `psnr` or `reconstruct:fid`.

    Args:
      names: names from `METRICS` or `own`. A name may be followed by a number of samples in thousands that replaces the
        default, and preceded by a function of the game and a colon, which chooses the function that makes the outputs.
      own: additional metrics by name.

    Returns:
      The requested metrics, one per name.

    Raises:
      InvalidInputError: if a name is unknown.
    """
    return [_request(name, {**METRICS, **own}) for name in names]


def _request(name: str, known: Mapping[str, Metric]) -> MetricSpec:
    function, _, rest = name.rpartition(":")
    for base, metric in known.items():
        match = re.fullmatch(re.escape(base) + r"(?:([1-9][0-9]*)k)?", rest)
        if match and len(match[1] or "") > _LONGEST:
            raise InvalidInputError(
                f"metric {name!r}: expected at most {10**_LONGEST - 1}k samples, whose features are held in "
                "memory together"
            )
        if match:
            return MetricSpec(name, base, metric, int(match[1]) * 1000 if match[1] else None, function)
    raise InvalidInputError(
        f"metric {name!r}: expected one of {', '.join(known)}; optionally followed by the number of samples in "
        f"thousands (default: mostly {STANDARD:,} samples), such as fid5k; optionally preceded by a function of the "
        "game, such as reconstruct:fid"
    )
