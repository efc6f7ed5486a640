"""The metrics that can be asked for by name, and which network, samples and protocol each name stands for."""

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from gan_jax import metrics
from gan_jax.eval.extract import Outputs
from gan_jax.types import InvalidInputError

_LEAST: Mapping[str, str] = {"": "min"}
STANDARD = 50_000  # samples of most metrics
_DIGITS = 10


class Side:
    """The reals or the fakes of a comparison: outputs of a network, with moments computed once if at all."""

    def __init__(self, outputs: Outputs) -> None:
        self.outputs = outputs

    @functools.cached_property
    def moments(self) -> metrics.Moments:
        """Of the features."""
        return metrics.moments(self.outputs.features)


class Metric(NamedTuple):
    """A metric's definition.

    Attributes:
      network: whose features it is computed of.
      compute: `(real, fake, seed) -> {suffix: value}`; the suffix is empty for the value itself.
      suffixes: those that it gives, each with whether the `min` or the `max` is best; empty where neither is.
      samples: how many, where its name has no count.
      version: of the definition; it rises when anything changes that could move a number.
      compares: whether it looks at the reals; without, `real` may be None.
    """

    network: str
    compute: Callable[[Any, Side, int], dict[str, float]]
    suffixes: Mapping[str, str] = _LEAST
    samples: int = STANDARD
    version: int = 1
    compares: bool = True


class Request(NamedTuple):
    """A metric as asked for.

    Attributes:
      name: as typed.
      metric: its definition.
      samples: how many.
    """

    name: str
    metric: Metric
    samples: int


def _frechet(real: Side, fake: Side, seed: int) -> dict[str, float]:
    del seed
    return {"": metrics.frechet_distance(real.moments, fake.moments)}


def _infinity(real: Side, fake: Side, seed: int) -> dict[str, float]:
    count = len(fake.outputs.features)
    smallest = min(5000, count // 3)
    return {"": metrics.frechet_infinity(real.moments, fake.outputs.features, smallest=smallest, seed=seed)}


def _kernel(real: Side, fake: Side, seed: int) -> dict[str, float]:
    size = min(1000, len(real.outputs.features), len(fake.outputs.features))
    found = metrics.kernel_distance(real.outputs.features, fake.outputs.features, subset_size=size, seed=seed)
    return {"": found.mean, "_std": found.std}


def _score(real: Side | None, fake: Side, seed: int) -> dict[str, float]:
    del real, seed
    if fake.outputs.logits is None:
        raise InvalidInputError("the inception score needs logits, which this network does not give")
    found = metrics.inception_score(fake.outputs.logits)
    return {"": found.mean, "_std": found.std}


def _neighbours(real: Side, fake: Side, seed: int) -> dict[str, float]:
    """With as many reals as fakes, the larger set thinned out evenly, since the values depend on both counts."""
    del seed
    count = min(len(real.outputs.features), len(fake.outputs.features))
    reals, fakes = (x[(len(x) * np.arange(count)) // count] for x in (real.outputs.features, fake.outputs.features))
    manifolds = metrics.precision_recall(reals, fakes)
    balls = metrics.density_coverage(reals, fakes)
    return {f"_{name}": value for name, value in (manifolds._asdict() | balls._asdict()).items()}


def _cmmd(real: Side, fake: Side, seed: int) -> dict[str, float]:
    del seed
    return {"": metrics.cmmd(real.outputs.features, fake.outputs.features)}


def _stacked(real: Side, fake: Side, seed: int) -> dict[str, float]:
    """Of images whose channels are digits: modes, and KL to the product of the reals' frequencies of digits."""
    del seed
    digits = []
    for side in (real, fake):
        logits = side.outputs.logits
        if logits is None or logits.shape[1] == _DIGITS or logits.shape[1] % _DIGITS:
            raise InvalidInputError("metric 'stacked' is of Stacked-MNIST, whose channels are digits")
        digits.append(logits.reshape(len(logits), -1, _DIGITS).argmax(axis=-1))
    frequencies = np.ones(1)
    for channel in digits[0].T:
        frequencies = np.outer(frequencies, np.bincount(channel, minlength=_DIGITS) / len(channel)).ravel()
    predictions = digits[1] @ _DIGITS ** np.arange(digits[1].shape[1])[::-1]
    found = metrics.mode_coverage(predictions, len(frequencies), frequencies)
    return {"_modes": float(found.modes), "_kl": found.kl}


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
    "stacked": Metric("classifier", _stacked, {"_modes": "max", "_kl": "min"}, 26_000),
}
"""By name. `fcd` and `kcd` are the Fréchet and the kernel classifier distance: of the features of a classifier trained
on the data set in hand, to be compared within one data set and one classifier only, and never to be called FID. `prdc`
is precision, recall, density and coverage, of as many reals as fakes: the fewer of both. Kernel distances are over 100
subsets of 1,000, or of all where there are fewer. `stacked` is of 26,000 samples by default: the modes of Stacked-MNIST
that they reach, and KL(samples || data), its "reverse KL"."""


def requests(names: Sequence[str]) -> list[Request]:
    """Metrics by name, such as `fid` (of 50,000 samples), `fid5k`, `fcd2k`, `prdc10k`.

    Args:
      names: of `METRICS`, each with the number of samples in thousands behind it where that is not its usual one.

    Returns:
      What was asked for.

    Raises:
      InvalidInputError: for a name that there is not.
    """
    return [_request(name) for name in names]


def _request(name: str) -> Request:
    for base, metric in METRICS.items():
        match = re.fullmatch(re.escape(base) + r"(?:([1-9]\d*)k)?", name)
        if match:
            return Request(name, metric, int(match[1]) * 1000 if match[1] else metric.samples)
    raise InvalidInputError(
        f"metric {name!r}: expected one of {', '.join(METRICS)}, of {STANDARD:,} samples, or with the number of "
        "samples in thousands behind it, such as fid5k; or, for points of a mixture of Gaussians, mixture"
    )
