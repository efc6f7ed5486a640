"""Metrics of what a game makes, against a data source: networks are loaded, and references computed, once."""

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
from gan_jax.runtime.reference import Reference
from gan_jax.types import InvalidInputError

Draw = Callable[[str], Iterable[np.ndarray]]
Resolve = Callable[[str, str], tuple[str, Conditions | None]]


class Evaluator:
    """Computes the same metrics of what several states of a game make.

    Attributes:
      records: of each metric asked for, by name: the protocol that belongs to its values.
      seed: of random subsets.
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
        own: Mapping[str, Metric] = MappingProxyType({}),
        weights: str | None = None,
        batch_size: int = 64,
        seed: int = 0,
        log: Callable[[str], None] = print,
        beat: Callable[[str], None] = lambda doing: None,
        patience: float = 600.0,
    ) -> None:
        """Loads networks, or trains the classifier, and computes the reference's outputs; both are kept in `cache`.

        Every process of a run makes one, with the same arguments.

        Args:
          wanted: names as in `eval.metric_specs`.
          reference: what outputs are compared with; with labels where the classifier is to be trained.
          mesh: over which devices.
          cache: directory of classifiers and of references' outputs, keyed by their whole protocol.
          functions: `(function, takes) -> (function, conditions)`: which function makes what a metric takes, where none
            is named, and what it maps; `Experiment.outputs`. By default metrics are of samples drawn from a prior.
          own: metrics beside those of `eval.METRICS`.
          weights: directory of published networks' weights; None for `$GAN_JAX_WEIGHTS`.
          batch_size: images at a time.
          seed: of random subsets.
          log: is told of long work.
          beat: is told, more often, that it goes on: a watchdog's.
          patience: seconds that a process waits for what another one says.

        Raises:
          InvalidInputError: for unknown metrics, absent weights, or a reference or a game that does not suit the
            metrics.
        """
        self.reference, self.mesh = reference, mesh
        self.batch_size, self.seed, self.beat = batch_size, seed, beat
        self._say = log
        self.images_of = Reference(reference, cache, self.log, patience)
        self._values = list(directions(wanted, own))
        self.groups: dict[
            str, list[tuple[MetricSpec, int]]
        ] = {}  # by function, each metric and how many outputs it is of
        self.inputs: dict[str, Conditions | None] = {}  # by function, what it maps
        for request in evals.metric_specs(wanted, own):
            self._admit(request, functions or _drawn)
        requests = [request for group in self.groups.values() for request, _ in group]
        self.images_of.check(requests)
        self.extractors: dict[str, Extractor] = {}
        for request in requests:
            if request.network and request.network not in self.extractors:
                self.extractors[request.network] = self._extractor(request, weights)
        compared = dict.fromkeys(x.network for x in requests if x.metric.compares and x.metric.takes != PAIRS)
        self.real = {name: FeatureStatistics(self._reference(name)) for name in compared}
        self._targets: dict[tuple[str, str], FeatureStatistics] = {}
        self.records = {x.name: self._record(x, n, name) for name, group in self.groups.items() for x, n in group}

    def _admit(self, request: MetricSpec, functions: Resolve) -> None:
        """Settles which function a metric is of, and of how many of its outputs."""
        function, inputs = functions(request.function, request.metric.takes)
        count = request.samples or (request.metric.samples if inputs is None else len(inputs))
        if inputs is not None and count > len(inputs):
            raise InvalidInputError(
                f"metric {request.name!r} is of {count:,} outputs, but {inputs.source.name} has {len(inputs):,} "
                "inputs: leave the number out for all"
            )
        if request.metric.takes == PAIRS and (inputs is None or not inputs.has_target):
            raise InvalidInputError(
                f"metric {request.name!r} is of pairs, and {function!r} maps no inputs with targets: it takes a game "
                "with a function `reconstruct`, or one without a prior and `conditions` with 'inputs' and 'target'"
            )
        self.inputs[function] = inputs
        self.groups.setdefault(function, []).append((request, count))

    def log(self, message: str) -> None:
        """Tells the person, and the watchdog."""
        self.beat("evaluating")
        self._say(message)

    @property
    def values(self) -> list[str]:
        """Names of the values that it gives."""
        return self._values

    def __call__(self, draw: Draw | Iterable[np.ndarray]) -> dict[str, float]:
        """Metrics of what a state makes; every process calls it with the same outputs.

        Args:
          draw: `function -> parts` of its outputs, in the range that the game makes: samples, together as many as the
            metrics are of, or what the function makes of its inputs, in their order. Or the parts themselves, where
            metrics are of one function.

        Returns:
          Values by name: that of the metric, with a suffix where it has several.
        """
        values: dict[str, float] = {}
        for function, group in self.groups.items():
            parts = draw(function) if callable(draw) else draw
            sides = self._outputs(function, [request for request, _ in group], max(n for _, n in group), parts)
            for request, count in group:
                self.beat(f"computing {request.name}")
                outputs, total = sides[request.network]
                fake = FeatureStatistics(outputs.first(count * len(outputs.features) // total))
                real = self._compared(request, function, count)
                facts = {name: getattr(self.reference, name) for name in request.metric.needs}
                found = request.metric.compute(Comparison(real, fake, self.seed, facts))
                values |= {f"{request.name}{suffix}": value for suffix, value in found.items()}
        return {name: values[name] for name in self.values}

    def _outputs(
        self, function: str, requests: Sequence[MetricSpec], count: int, parts: Iterable[np.ndarray]
    ) -> dict[str, tuple[Outputs, int]]:
        """What each network makes of a function's outputs, and of how many of them; '' are the outputs themselves."""
        found: dict[str, Outputs] = {}
        if any(not request.network for request in requests):
            samples = first_samples(parts, count)
            parts, found[""] = [samples], Outputs(samples)
        extractors = {request.network: self.extractors[request.network] for request in requests if request.network}
        if extractors:
            paired = any(extractor.takes == PAIRS for extractor in extractors.values())
            images: Iterable[np.ndarray] = (to_uint8(part) for part in parts)
            what = "samples" if function == "sample" else f"{function}'s outputs"
            images = self._with_targets(function, images) if paired else images
            found |= self._extract(what, extractors, images, count, paired)
        return {name: (outputs, count) for name, outputs in found.items()}

    def _with_targets(self, function: str, images: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Each output beside its target."""
        low = 0
        for part in images:
            targets = self._target_images(function, low, low + len(part))
            if targets.shape != part.shape:
                raise InvalidInputError(
                    f"{function} makes images {part.shape[1:]}, and targets are {targets.shape[1:]}"
                )
            yield np.stack([part, targets], axis=1)
            low += len(part)

    def _target_images(self, function: str, low: int, high: int) -> np.ndarray:
        inputs = self.inputs[function]
        assert inputs is not None
        return to_uint8(inputs.read(low, high)[TARGET])

    def _compared(self, request: MetricSpec, function: str, count: int) -> FeatureStatistics | None:
        """What a metric compares its outputs with."""
        if not request.metric.compares or request.metric.takes != PAIRS:
            return self.real.get(request.network)
        inputs, key = self.inputs[function], (function, request.network)
        assert inputs is not None
        if key not in self._targets:
            total = len(inputs)
            parts = (self._target_images(function, low, low + 256) for low in range(0, total, 256))
            extractors = {request.network: self.extractors[request.network]}
            self._targets[key] = FeatureStatistics(self._extract("targets", extractors, parts, total)[request.network])
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
        """A feature pass that tells how far it has come, every ten seconds."""
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

    def _extractor(self, request: MetricSpec, weights: str | None) -> Extractor:
        network = request.metric.network
        made = self.images_of.extractor(network, weights) if isinstance(network, str) else network
        return evals.placed(made, self.mesh)

    def _reference(self, name: str) -> Outputs:
        return self.images_of.outputs(name, self.extractors[name], self._extract)

    def features(self, samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Features of samples and of the whole reference, by the first network."""
        name = next(iter(self.extractors))
        found = self._extract("samples", {name: self.extractors[name]}, [to_uint8(samples)], len(samples))
        if name not in self.real:
            self.real[name] = FeatureStatistics(self._reference(name))
        return found[name].features, self.real[name].outputs.features

    def images(self, indices: np.ndarray) -> np.ndarray:
        """Images of the reference, uint8."""
        return self.images_of.images(indices)

    def _record(self, request: MetricSpec, count: int, function: str) -> dict[str, Any]:
        """The protocol that belongs to a metric's values."""
        metric, inputs = request.metric, self.inputs[function]
        mapped, record = dict[str, Any](), dict[str, Any]()
        if inputs is not None:
            mapped = {"function": function, "inputs": inputs.source.name}
            mapped["inputs_fingerprint"] = inputs.source.fingerprint()
        if not request.network:
            record = {"reference": self.reference.name, "reference_fingerprint": self.reference.fingerprint()}
            return record | mapped | {"metric_version": metric.version, "samples": count}
        extractor = self.extractors[request.network]
        record = {"network": extractor.record}
        if request.network in self.real and metric.takes != PAIRS and metric.compares:
            record = self.images_of.compared(request.network, extractor)
        facts = {"metric_version": metric.version, "samples": count, "quantized": "uint8", "subset_seed": self.seed}
        return record | mapped | facts


def directions(wanted: Sequence[str], own: Mapping[str, Metric] = MappingProxyType({})) -> dict[str, str]:
    """The values that metrics give, each with whether the `min` or the `max` is best; empty where neither is."""
    return {
        f"{request.name}{suffix}": best
        for request in evals.metric_specs(wanted, own)
        for suffix, best in request.metric.suffixes.items()
    }


def first_samples(parts: Iterable[np.ndarray], count: int) -> np.ndarray:
    """The first samples of a stream, in one array.

    Raises:
      InvalidInputError: for a stream that ends before.
    """
    taken: list[np.ndarray] = []
    for part in parts:
        taken.append(part)
        if sum(map(len, taken)) >= count:
            return np.concatenate(taken)[:count]
    raise InvalidInputError(f"{sum(map(len, taken)):,} samples: expected {count:,}")


def _drawn(function: str, takes: str) -> tuple[str, None]:
    if function not in ("", "sample") or takes == PAIRS:
        raise InvalidInputError(f"function {function!r}: this evaluator knows samples alone, and no inputs of a game")
    return "sample", None
