"""The metrics that can be asked for by name, and which network, samples and protocol each name stands for."""

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from gan_jax import metrics
from gan_jax.eval.extract import Extractor, Outputs
from gan_jax.host import from_uint8
from gan_jax.types import InvalidInputError

_LEAST: Mapping[str, str] = {"": "min"}
STANDARD = 50_000  # samples of most metrics
_DIGITS = 10


class FeatureStatistics:
    """The reals or the fakes of a comparison: outputs of a network, with moments computed once if at all."""

    def __init__(self, outputs: Outputs) -> None:
        self.outputs = outputs

    @functools.cached_property
    def moments(self) -> metrics.Moments:
        """Of the features."""
        return metrics.moments(self.outputs.features)


class Comparison(NamedTuple):
    """What a metric is computed of.

    Attributes:
      real: features of the reference, or, for a metric of pairs, of the target of each output; None where the metric
        looks at outputs alone.
      fake: features of the outputs.
      seed: of random subsets.
      facts: attributes of the reference that the metric needs.
    """

    real: FeatureStatistics | None
    fake: FeatureStatistics
    seed: int
    facts: Mapping[str, Any]


SAMPLES, PAIRS = "samples", "pairs"


class Metric(NamedTuple):
    """A metric's definition.

    Attributes:
      network: whose features it is computed of: a name, or a network of one's own; empty for the outputs themselves.
      compute: `(comparison) -> {suffix: value}`; the suffix is empty for the value itself.
      suffixes: those that it gives, each with whether the `min` or the `max` is best; empty where neither is.
      samples: how many, where its name has no count. What functions of examples give is counted by these: all.
      version: of the definition; it rises when anything changes that could move a number.
      compares: whether it looks at the reals; without, `real` may be None.
      takes: `samples`, a set of outputs beside the reference's; or `pairs`, each output beside its target.
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
    """A metric as asked for.

    Attributes:
      name: as typed.
      base: the metric's own name.
      metric: its definition.
      samples: how many; None where nothing was said.
      function: of the game that makes the outputs; empty for what is usual for the metric and the game.
    """

    name: str
    base: str
    metric: Metric
    samples: int | None
    function: str

    @property
    def network(self) -> str:
        """The name of the network whose features it is computed of."""
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
    """With as many reals as fakes, the larger set thinned out evenly, since the values depend on both counts."""
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
    """The mean over pairs of the distance of their features."""
    real, fake = _features(found)
    distances = np.asarray(metrics.feature_distance(jnp.asarray(fake), jnp.asarray(real)))
    return {"": float(np.mean(distances, dtype=np.float64))}


def _of_pairs(measure: Callable[[Array, Array], Array], best: str) -> Metric:
    """The mean over pairs of a measure of an output and its target, in [-1, 1]."""

    def apply(params: None, pairs: Array) -> dict[str, Array]:
        del params
        output, target = (from_uint8(pairs[:, i]) for i in range(2))
        return {"features": measure(output, target)[:, None]}

    def compute(found: Comparison) -> dict[str, float]:
        return {"": float(np.mean(found.fake.outputs.features, dtype=np.float64))}

    network = Extractor(apply, None, {"measure": measure.__name__}, PAIRS)
    return Metric(network, compute, {"": best}, compares=False, takes=PAIRS)


def _mixture(found: Comparison) -> dict[str, float]:
    """Of points: the modes that they reach, and how they spread over them."""
    coverage = metrics.mixture_coverage(found.fake.outputs.features, found.facts["centers"], found.facts["std"])
    return {f"_{name}": float(value) for name, value in coverage._asdict().items()}


def _stacked(found: Comparison) -> dict[str, float]:
    """Of images whose channels are digits: modes, and KL to the product of the reals' frequencies of digits."""
    assert found.real is not None
    digits = []
    for side in (found.real, found.fake):
        logits = side.outputs.logits
        if logits is None or logits.shape[1] == _DIGITS or logits.shape[1] % _DIGITS:
            raise InvalidInputError("metric 'stacked' is of Stacked-MNIST, whose channels are digits")
        digits.append(logits.reshape(len(logits), -1, _DIGITS).argmax(axis=-1))
    frequencies = np.ones(1)
    for channel in digits[0].T:
        frequencies = np.outer(frequencies, np.bincount(channel, minlength=_DIGITS) / len(channel)).ravel()
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
    "l1": _of_pairs(metrics.l1, "min"),
    "psnr": _of_pairs(metrics.psnr, "max"),
    "ssim": _of_pairs(metrics.ssim, "max"),
    "inception_distance": Metric("inception", _distance, takes=PAIRS),
    "dinov2_distance": Metric("dinov2", _distance, takes=PAIRS),
    "clip_distance": Metric("clip", _distance, takes=PAIRS),
    "classifier_distance": Metric("classifier", _distance, takes=PAIRS),
}
"""By name. `fcd` and `kcd` are the Fréchet and the kernel classifier distance: of the features of a classifier trained
on the data set in hand, to be compared within one data set and one classifier only, and never to be called FID. `prdc`
is precision, recall, density and coverage, of as many reals as fakes: the fewer of both. Kernel distances are over 100
subsets of 1,000, or of all where there are fewer. `stacked` is of 26,000 samples by default: the modes of Stacked-MNIST
that they reach, and KL(samples || data), its "reverse KL". `mixture` is of 2,500 points. `l1`, `psnr`, `ssim` and the
distances of features are of pairs: each output beside its target, the mean over all of them."""


def metric_specs(names: Sequence[str], own: Mapping[str, Metric] = MappingProxyType({})) -> list[MetricSpec]:
    """Metrics by name, such as `fid` (of 50,000 samples), `fid5k`, `fcd2k`, `psnr`, `reconstruct:fid`.

    Args:
      names: of `METRICS` or `own`, each with the number of samples in thousands behind it where that is not its usual
        one, and with the function of the game that makes the outputs before it, and a colon, where that is not the
        usual one.
      own: more metrics, by name.

    Returns:
      What was asked for.

    Raises:
      InvalidInputError: for a name that there is not.
    """
    return [_request(name, {**METRICS, **own}) for name in names]


def _request(name: str, known: Mapping[str, Metric]) -> MetricSpec:
    function, _, rest = name.rpartition(":")
    for base, metric in known.items():
        match = re.fullmatch(re.escape(base) + r"(?:([1-9]\d*)k)?", rest)
        if match:
            return MetricSpec(name, base, metric, int(match[1]) * 1000 if match[1] else None, function)
    raise InvalidInputError(
        f"metric {name!r}: expected one of {', '.join(known)}; with the number of samples in thousands behind it where "
        f"that is not the usual one (mostly {STANDARD:,}), such as fid5k; or with the game's function before it, such "
        "as reconstruct:fid"
    )
