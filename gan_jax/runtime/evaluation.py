"""Metrics of a game's outputs against a reference; networks are loaded, and the reference's features computed, once."""

import pathlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from jax.sharding import Mesh

from gan_jax import eval as evals
from gan_jax.data import Source
from gan_jax.deprecated import arguments
from gan_jax.eval import PAIRS, Comparison, Extractor, FeatureStatistics, Metric, MetricSpec, Outputs
from gan_jax.host import to_uint8
from gan_jax.runtime.conditions import TARGET, Conditions
from gan_jax.runtime.progress import duration
from gan_jax.runtime.reference import CLASSIFIER, Reference
from gan_jax.types import InvalidInputError

Draw = Callable[[str], Iterable[np.ndarray]]  # function of the game -> its outputs, in parts
Resolve = Callable[[str, str], tuple[str, Conditions | None]]  # see `Experiment.outputs`


class Evaluator:
    """Computes the same metrics for several states of a game.

    Attributes:
      records: protocol that belongs to the values of each requested metric, by the metric's name.
      seed: seed of random subsets.
    """

    @arguments(say="log")
    def __init__(
        self,
        wanted: Sequence[str],
        reference: Source,
        mesh: Mesh,
        cache: pathlib.Path,
        *,
        functions: Resolve | None = None,
        references: Mapping[str, Callable[[], Source]] = MappingProxyType({}),
        own: Mapping[str, Metric] = MappingProxyType({}),
        weights: str | None = None,
        batch_size: int = 64,
        seed: int = 0,
        log: Callable[[str], None] = print,
        beat: Callable[[str], None] = lambda doing: None,
        patience: float = 600.0,
    ) -> None:
        """Loads networks, or trains the classifier, and computes the reference's features; `cache` keeps the results.

        Every process of a run creates an evaluator, with the same arguments.

        Args:
          wanted: names of the metrics, as in `eval.metric_specs`.
          reference: data source that outputs are compared with; it needs labels where the classifier is to be trained.
          mesh: devices that compute the features.
          cache: directory of classifiers and of references' features, keyed by their whole protocol.
          functions: `(function, takes) -> (function, conditions)`, usually `Experiment.outputs`: returns the function
            of the game that makes a metric's outputs, also where the metric names none, and the examples that the
            function maps. By default metrics are of samples drawn from a prior.
          references: functions that open the sources that the outputs of certain functions of the game are compared
            with, in place of `reference`, by the names of these functions; usually `Experiment.references`.
          own: user-defined metrics, in addition to those of `eval.METRICS`.
          weights: directory of published networks' weights; None for the usual one.
          batch_size: images per batch of the feature pass.
          seed: seed of random subsets.
          log: receives messages about long computations.
          beat: is called more often, to report that work goes on; usually `Watchdog.beat`.
          patience: seconds that a process waits for a message of another one.

        Raises:
          InvalidInputError: for unknown metrics, missing weights, or a reference or a game that does not suit the
            metrics.
        """
        self.reference, self.mesh = reference, mesh
        self.batch_size, self.seed, self.beat = batch_size, seed, beat
        self._say = log
        self.images_of = Reference(reference, cache, self.log, patience)
        self._own_references: dict[str, Reference] = {}  # by function
        self._values = list(directions(wanted, own))
        self.groups: dict[
            str, list[tuple[MetricSpec, int]]
        ] = {}  # function -> its metrics, each with the number of outputs it needs
        self.inputs: dict[str, Conditions | None] = {}  # function -> examples it maps; None if it draws from a prior
        for request in evals.metric_specs(wanted, own):
            self._admit(request, functions or _drawn)
        for function in filter(references.__contains__, self.groups):
            self._own_references[function] = Reference(references[function](), cache, self.log, patience)
        self.extractors: dict[str, Extractor] = {}  # by the name that `_side` gives a network
        self.real: dict[str, FeatureStatistics] = {}
        self._prepare(weights)
        self._targets: dict[tuple[str, str], FeatureStatistics] = {}
        self.records = {x.name: self._record(x, n, name) for name, group in self.groups.items() for x, n in group}

    def _admit(self, request: MetricSpec, functions: Resolve) -> None:
        """Resolves which function a metric evaluates, and on how many of its outputs."""
        function, inputs = functions(request.function, request.metric.takes)
        count = request.samples or (request.metric.samples if inputs is None else len(inputs))
        if inputs is not None and count > len(inputs):
            raise InvalidInputError(
                f"metric {request.name!r} is of {count:,} outputs, but {inputs.source.name} has {len(inputs):,} "
                "inputs: leave the number out to use all of them"
            )
        if request.metric.takes == PAIRS and (inputs is None or not inputs.has_target):
            raise InvalidInputError(
                f"metric {request.name!r} compares outputs with targets, but {function!r} maps no inputs with targets: "
                "it needs a game with a function `reconstruct`, or a game without a prior and `conditions` with "
                "'inputs' and 'target'"
            )
        self.inputs[function] = inputs
        self.groups.setdefault(function, []).append((request, count))

    def _against(self, function: str) -> Reference:
        """Returns the reference that a function's outputs are compared with."""
        return self._own_references.get(function, self.images_of)

    def _side(self, request: MetricSpec, function: str) -> str:
        """Returns the name of a network; a function with a reference of its own has its own classifier and features."""
        own = request.network and function in self._own_references
        return f"{request.network} of {function}" if own else request.network

    def _prepare(self, weights: str | None) -> None:
        """Loads the networks of all metrics, and computes the features of what they are compared with."""
        for function, group in self.groups.items():
            self._against(function).check(request for request, _ in group)
        wanted = [(request, function) for function, group in self.groups.items() for request, _ in group]
        for request, function in wanted:
            name = self._side(request, function)
            if name and name not in self.extractors:
                self.extractors[name] = self._extractor(request, self._against(function), weights)
        for request, function in wanted:
            name = self._side(request, function)
            if request.metric.compares and request.metric.takes != PAIRS and name not in self.real:
                found = self._against(function).outputs(request.network, self.extractors[name], self._extract)
                self.real[name] = FeatureStatistics(found)

    def log(self, message: str) -> None:
        """Logs a message, and tells the watchdog that evaluation goes on."""
        self.beat("evaluating")
        self._say(message)

    @property
    def values(self) -> list[str]:
        """The names of the values that a call returns, in order."""
        return self._values

    def __call__(self, draw: Draw | Iterable[np.ndarray]) -> dict[str, float]:
        """Computes the metrics of one state's outputs. Every process calls it with the same outputs.

        Args:
          draw: `function -> parts`: the outputs of a function of the game as a stream of arrays, in the game's own
            range. Samples must be as many as the metrics need, or more; a function of examples gives its outputs for
            all of them, in order. Where all metrics are of one function, `draw` may be the stream itself.

        Returns:
          The values by name: the metric's name, with a suffix if the metric has several values.
        """
        values: dict[str, float] = {}
        for function, group in self.groups.items():
            parts = draw(function) if callable(draw) else draw
            sides = self._outputs(function, [request for request, _ in group], max(n for _, n in group), parts)
            for request, count in group:
                self.beat(f"computing {request.name}")
                outputs, total = sides[self._side(request, function)]
                # Networks of images give one row of features per frame of a clip, so rows can outnumber outputs.
                fake = FeatureStatistics(outputs.first(count * len(outputs.features) // total))
                real = self._compared(request, function, count)
                facts = {name: getattr(self._against(function).source, name) for name in request.metric.needs}
                found = request.metric.compute(Comparison(real, fake, self.seed, facts))
                values |= {f"{request.name}{suffix}": value for suffix, value in found.items()}
        return {name: values[name] for name in self.values}

    def _outputs(
        self, function: str, requests: Sequence[MetricSpec], count: int, parts: Iterable[np.ndarray]
    ) -> dict[str, tuple[Outputs, int]]:
        """Runs a function's outputs through each network; the network '' stands for the outputs themselves.

        Each entry also has the number of outputs that it was computed from.
        """
        found: dict[str, Outputs] = {}
        if any(not request.network for request in requests):
            samples = first_samples(parts, count)  # a stream can be read only once
            parts, found[""] = [samples], Outputs(samples)
        names = {self._side(request, function) for request in requests if request.network}
        extractors = {name: made for name, made in self.extractors.items() if name in names}
        if extractors:
            paired = any(extractor.takes == PAIRS for extractor in extractors.values())
            images: Iterable[np.ndarray] = (to_uint8(part) for part in parts)
            what = "samples" if function == "sample" else f"{function}'s outputs"
            images = self._with_targets(function, images) if paired else images
            found |= self._extract(what, extractors, images, count, paired)
        return {name: (outputs, count) for name, outputs in found.items()}

    def _with_targets(self, function: str, images: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Stacks each output with its target: `[n, 2, ...]`."""
        low = 0
        for part in images:
            targets = self._target_images(function, low, low + len(part))
            if targets.shape != part.shape:
                raise InvalidInputError(
                    f"{function} makes images of shape {part.shape[1:]}, but the targets have shape {targets.shape[1:]}"
                )
            yield np.stack([part, targets], axis=1)
            low += len(part)

    def _target_images(self, function: str, low: int, high: int) -> np.ndarray:
        inputs = self.inputs[function]
        assert inputs is not None
        return to_uint8(inputs.read(low, high)[TARGET])

    def _compared(self, request: MetricSpec, function: str, count: int) -> FeatureStatistics | None:
        """Returns what a metric compares outputs with: the reference or, for metrics of pairs, the targets."""
        if not request.metric.compares or request.metric.takes != PAIRS:
            return self.real.get(self._side(request, function))
        name = self._side(request, function)
        inputs, key = self.inputs[function], (function, name)
        assert inputs is not None
        if key not in self._targets:
            total = len(inputs)
            parts = (self._target_images(function, low, low + 256) for low in range(0, total, 256))
            extractors = {name: self.extractors[name]}
            self._targets[key] = FeatureStatistics(self._extract("targets", extractors, parts, total)[name])
        outputs = self._targets[key].outputs
        return FeatureStatistics(outputs.first(count * len(outputs.features) // len(inputs)))

    def _extract(
        self,
        what: str,
        extractors: dict[str, Extractor],
        images: Iterable[np.ndarray],
        count: int,
        paired: bool = False,
    ) -> dict[str, Outputs]:
        """Runs a feature pass, and logs its progress every ten seconds."""
        began = shown = time.monotonic()

        def progress(done: int, total: int) -> None:
            nonlocal shown
            self.beat(f"computing features of {what}, {done:,} of {total:,}")
            now = time.monotonic()
            if now - shown > 10.0:
                shown = now
                eta = (now - began) / done * (total - done)
                self.log(
                    f"features of {what}: {done:,} of {total:,}, {done / (now - began):,.0f}/s, ETA {duration(eta)}"
                )

        return evals.extract(
            extractors, images, count, mesh=self.mesh, batch_size=self.batch_size, paired=paired, progress=progress
        )

    def _extractor(self, request: MetricSpec, reference: Reference, weights: str | None) -> Extractor:
        network, loaded = request.metric.network, self.extractors.get(request.network)
        if loaded is not None and request.network != CLASSIFIER:  # published weights do not depend on the reference
            return loaded
        made = reference.extractor(network, weights) if isinstance(network, str) else network
        return evals.placed(made, self.mesh)

    def features(self, samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Computes the features of samples and of the whole reference, with the first network for samples."""
        own = {self._side(x, function) for function in self._own_references for x, _ in self.groups[function]}
        name = next((name for name in self.extractors if name not in own), "")
        if not name:
            raise InvalidInputError(f"metrics of {', '.join(self._own_references)} alone: add one of samples, as fcd2k")
        found = self._extract("samples", {name: self.extractors[name]}, [to_uint8(samples)], len(samples))
        if name not in self.real:
            outputs = self.images_of.outputs(name, self.extractors[name], self._extract)
            self.real[name] = FeatureStatistics(outputs)
        return found[name].features, self.real[name].outputs.features

    def images(self, indices: np.ndarray) -> np.ndarray:
        """Reads images of the reference, as uint8."""
        return self.images_of.images(indices)

    def _record(self, request: MetricSpec, count: int, function: str) -> dict[str, Any]:
        """Returns the protocol that belongs to a metric's values."""
        metric, inputs = request.metric, self.inputs[function]
        mapped, record = dict[str, Any](), dict[str, Any]()
        if inputs is not None:
            mapped = {"function": function, "inputs": inputs.source.name}
            mapped["inputs_fingerprint"] = inputs.source.fingerprint()
        if not request.network:
            source = self._against(function).source
            record = {"reference": source.name, "reference_fingerprint": source.fingerprint()}
            return record | mapped | {"metric_version": metric.version, "samples": count}
        name = self._side(request, function)
        extractor = self.extractors[name]
        record = {"network": extractor.record}
        if name in self.real and metric.takes != PAIRS and metric.compares:
            record = self._against(function).compared(request.network, extractor)
        facts = {"metric_version": metric.version, "samples": count, "quantized": "uint8", "subset_seed": self.seed}
        return record | mapped | facts


def directions(wanted: Sequence[str], own: Mapping[str, Metric] = MappingProxyType({})) -> dict[str, str]:
    """Returns the better direction of each value that the metrics give, by name: `min`, `max`, or empty for neither."""
    return {
        f"{request.name}{suffix}": best
        for request in evals.metric_specs(wanted, own)
        for suffix, best in request.metric.suffixes.items()
    }


# Names of data in a protocol, which may be those of a directory, each with the entry that says what the data are.
_CONTENT = {
    "reference": "reference_images_sha256",
    "reference_key": "reference_images_sha256",
    "inputs": "inputs_fingerprint",
    "data": "data_sha256",
}


def same_protocol(one: Any, other: Any) -> bool:
    """Whether two protocols are equal, except for the names of data whose hash they have too.

    So data may be moved. The names of distributions that are sampled must be equal: these have no content to hash.

    Args:
      one: the first protocol, or a part of it, as JSON.
      other: the second.
    """
    return _without_names(one) == _without_names(other)


def _without_names(part: Any) -> Any:
    if not isinstance(part, Mapping):
        return part
    return {key: _without_names(value) for key, value in part.items() if _CONTENT.get(key) not in part}


def first_samples(parts: Iterable[np.ndarray], count: int) -> np.ndarray:
    """Returns the first `count` samples of a stream, in one array.

    Raises:
      InvalidInputError: if the stream has fewer samples.
    """
    taken: list[np.ndarray] = []
    for part in parts:
        taken.append(part)
        if sum(map(len, taken)) >= count:
            return np.concatenate(taken)[:count]
    raise InvalidInputError(f"{sum(map(len, taken)):,} samples: expected {count:,}")


def _drawn(function: str, takes: str) -> tuple[str, None]:
    if function not in ("", "sample") or takes == PAIRS:
        raise InvalidInputError(
            f"function {function!r}: by default an evaluator computes metrics of samples drawn from a prior alone; "
            "give it `functions` (such as `experiment.outputs`)"
        )
    return "sample", None
