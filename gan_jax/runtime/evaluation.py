"""Metrics of a game's samples against a data source: networks are loaded, and references computed, once."""

import hashlib
import json
import pathlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from gan_jax import eval as networks
from gan_jax import metrics
from gan_jax.data import Mixture, Source, Stacked
from gan_jax.eval import Extractor, Outputs, Request, Side
from gan_jax.runtime import hosts
from gan_jax.runtime.logging import duration
from gan_jax.types import InvalidInputError

MIXTURE, MIXTURE_COUNT = "mixture", 2500
_MIXTURE_DIRECTIONS = {
    f"{MIXTURE}_modes": "max", f"{MIXTURE}_kl": "min", f"{MIXTURE}_high_quality": "max", f"{MIXTURE}_js": "min",
}  # fmt: skip
_HELD_OUT = 10  # every tenth example of the reference tests the classifier
_PUBLISHED = {"inception": networks.inception, "dinov2": networks.dinov2, "clip": networks.clip}


class Evaluator:
    """Computes the same metrics of different samples.

    Attributes:
      records: of each metric asked for, by name: the protocol that belongs to its values.
    """

    def __init__(
        self,
        wanted: Sequence[str],
        reference: Source,
        mesh: Mesh,
        cache: pathlib.Path,
        *,
        weights: str | None = None,
        batch_size: int = 64,
        seed: int = 0,
        say: Callable[[str], None] = print,
        beat: Callable[[str], None] = lambda doing: None,
        patience: float = 600.0,
    ) -> None:
        """Loads networks, or trains the classifier, and computes the reference's outputs; both are kept in `cache`.

        Every process of a run makes one, with the same arguments.

        Args:
          wanted: names as in `eval.requests`, or `mixture` for a mixture of Gaussians.
          reference: what samples are compared with; with labels where the classifier is to be trained.
          mesh: over which devices.
          cache: directory of classifiers and of references' outputs, keyed by their whole protocol.
          weights: directory of published networks' weights; None for `$GAN_JAX_WEIGHTS`.
          batch_size: images at a time.
          seed: of random subsets.
          say: is told of long work.
          beat: is told, more often, that it goes on: a watchdog's.
          patience: seconds that a process waits for what another one says.

        Raises:
          InvalidInputError: for unknown metrics, absent weights, or a reference that does not suit the metrics.
        """
        self.wanted, self.reference, self.mesh, self.cache, self.weights = list(wanted), reference, mesh, cache, weights
        self.batch_size, self.seed, self.beat, self.patience = batch_size, seed, beat, patience
        self._say = say
        self.mixture = MIXTURE in wanted
        if self.mixture and not isinstance(reference, Mixture):
            raise InvalidInputError(
                f"metric {MIXTURE!r} is of mixtures of Gaussians, but the data are {reference.name}"
            )
        self.requests: list[Request] = networks.requests([name for name in wanted if name != MIXTURE])
        if self.requests and isinstance(reference, Mixture):
            raise InvalidInputError(
                f"metrics {', '.join(wanted)}: data are points of {reference.name}, whose only metric is {MIXTURE!r}"
            )
        self._check_images()
        names = dict.fromkeys(request.metric.network for request in self.requests)
        self.extractors = {name: self._extractor(name) for name in names}
        compared = dict.fromkeys(x.metric.network for x in self.requests if x.metric.compares)
        self.seen: dict[str, str] = {}  # by network, a hash of every image that the reference's outputs are of
        self.real = {name: Side(self._reference(name)) for name in compared}
        self.records = {request.name: self._record(request) for request in self.requests}
        if self.mixture:
            facts = {"reference": reference.name, "reference_fingerprint": reference.fingerprint()}
            self.records[MIXTURE] = facts | {"metric_version": 1, "samples": MIXTURE_COUNT}

    def say(self, message: str) -> None:
        """Tells the person, and the watchdog."""
        self.beat("evaluating")
        self._say(message)

    def _check_images(self) -> None:
        if self.requests and "real" not in self.reference.spec:
            raise InvalidInputError(
                f"metrics {', '.join(self.wanted)}: {self.reference.name} has {', '.join(self.reference.spec)} and no "
                "'real' images to compare samples with: give the experiment a `reference` that has"
            )
        if any(request.metric is networks.METRICS["stacked"] for request in self.requests) and not isinstance(
            self.reference, Stacked
        ):
            raise InvalidInputError(f"metric 'stacked' is of Stacked-MNIST, but the data are {self.reference.name}")

    @property
    def values(self) -> list[str]:
        """Names of the values that it gives."""
        return list(directions(self.wanted))

    @property
    def count(self) -> int:
        """How many samples it looks at."""
        return max([request.samples for request in self.requests] + [MIXTURE_COUNT] * self.mixture)

    def __call__(self, samples: Iterable[np.ndarray]) -> dict[str, float]:
        """Metrics of samples; every process calls it with the same ones.

        Args:
          samples: parts in the range that the game makes, together `count` or more.

        Returns:
          Values by name: that of the metric, with a suffix where it has several.
        """
        values: dict[str, float] = {}
        if self.mixture:
            assert isinstance(self.reference, Mixture)
            points = first_samples(samples, MIXTURE_COUNT)
            coverage = metrics.mixture_coverage(points, self.reference.centers, self.reference.std)
            values |= {f"{MIXTURE}_{name}": float(value) for name, value in coverage._asdict().items()}
        if self.requests:
            quantized = (to_uint8(part) for part in samples)
            outputs = self._extract("samples", self.extractors, quantized, self.count)
            for name, metric, count in self.requests:
                fake = Side(outputs[metric.network].first(count))
                self.beat(f"computing {name}")
                found = metric.compute(self.real.get(metric.network), fake, self.seed)
                values |= {f"{name}{suffix}": value for suffix, value in found.items()}
        return values

    def _extract(
        self, what: str, extractors: dict[str, Extractor], images: Iterable[np.ndarray], count: int
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
                self.say(
                    f"features of {what}: {done:,} of {total:,}, {done / (now - began):,.0f}/s, ETA {duration(eta)}"
                )

        return networks.extract(
            extractors, images, count, mesh=self.mesh, batch_size=self.batch_size, progress=progress
        )

    def _extractor(self, name: str) -> Extractor:
        if name != "classifier":
            network = _PUBLISHED[name]()
            params, record = network.load(self.weights)
            made = Extractor(network.apply, params, record)
        else:
            made = self._classifier()
            made = networks.by_channel(made) if isinstance(self.reference, Stacked) else made
        hosts.agree(f"weights of {name}", {"sha256": made.record["weights_sha256"]}, self.patience)
        return networks.placed(made, self.mesh)

    def _classifier(self) -> Extractor:
        """Trained by each process on a device of its own, so that none waits; the first's weights count."""
        key = {"classifier": networks.CLASSIFIER_VERSION, "data": self.reference.fingerprint()}
        path = self.cache / f"classifier-{_key(key)}.npz"
        if _everywhere(path.exists()):
            return networks.load_classifier(path)
        images, labels, classes = self._labelled()
        tested = np.arange(len(images)) % _HELD_OUT == 0
        made = networks.train_classifier(
            images[~tested],
            labels[~tested],
            (images[tested], labels[tested]),
            num_classes=classes,
            say=self.say,
        )
        if hosts.client() is not None:  # a process on other hardware may have trained to other bits
            weights, accuracy = multihost_utils.broadcast_one_to_all((made.params, np.float64(made.record["accuracy"])))
            made = networks.classifier(weights, made.record | {"accuracy": float(accuracy)})
        made = made._replace(record=made.record | {"data": self.reference.name, "data_sha256": key["data"]})
        networks.save_classifier(path, made)
        return made

    def _labelled(self) -> tuple[np.ndarray, np.ndarray, int]:
        """Images, labels and the number of classes that the classifier learns."""
        if isinstance(self.reference, Stacked):
            return self.reference.images, self.reference.classes, 10
        if self.reference.num_classes is None:
            raise InvalidInputError(
                f"{self.reference.name} comes without labels, which the classifier of fcd, kcd and prdc_classifier "
                "learns: give the experiment a `reference` with labels"
            )
        everything = np.arange(len(self.reference))
        return self.images(everything), self.reference.read(everything)["label"], self.reference.num_classes

    def _reference(self, name: str) -> Outputs:
        count = len(self.reference)
        path = self.cache / f"reference-{_key(self._reference_record(name))}.npz"
        if _everywhere(path.exists()):
            with np.load(path, allow_pickle=False) as kept:
                self.seen[name] = str(kept["images_sha256"])
                return Outputs(kept["features"], kept.get("logits"))
        digest = hashlib.sha256()
        self.say(f"features of {self.reference.name}, {count:,} examples, by {name}")

        def images() -> Iterator[np.ndarray]:
            for low in range(0, count, 1024):
                part = self.images(np.arange(low, min(low + 1024, count)))
                digest.update(np.ascontiguousarray(part).data)
                yield part

        found = self._extract(self.reference.name, {name: self.extractors[name]}, images(), count)[name]
        arrays = {key: value for key, value in found._asdict().items() if value is not None}
        self.seen[name] = digest.hexdigest()
        networks.keep(path, arrays | {"images_sha256": np.array(self.seen[name])})
        return found

    def features(self, samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Features of samples and of the whole reference, by the first network."""
        name = next(iter(self.extractors))
        found = self._extract("samples", {name: self.extractors[name]}, [to_uint8(samples)], len(samples))
        if name not in self.real:
            self.real[name] = Side(self._reference(name))
        return found[name].features, self.real[name].outputs.features

    def images(self, indices: np.ndarray) -> np.ndarray:
        """Images of the reference, uint8."""
        images = self.reference.read(indices)["real"]
        return images if images.dtype == np.uint8 else to_uint8(images)

    def _reference_record(self, name: str) -> dict[str, Any]:
        return {
            "network": self.extractors[name].record,
            "reference": self.reference.name,
            "reference_fingerprint": self.reference.fingerprint(),
            "reference_count": len(self.reference),
        }

    def _record(self, request: Request) -> dict[str, Any]:
        network, metric = request.metric.network, request.metric
        record: dict[str, Any] = {"network": self.extractors[network].record}
        if metric.compares:
            record = self._reference_record(network)
            record |= {"reference_key": _key(record), "reference_images_sha256": self.seen[network]}
        return record | {
            "metric_version": metric.version,
            "samples": request.samples,
            "quantized": "uint8",
            "subset_seed": self.seed,
        }


def directions(wanted: Sequence[str]) -> dict[str, str]:
    """The values that metrics give, each with whether the `min` or the `max` is best; empty where neither is."""
    found = dict(_MIXTURE_DIRECTIONS) if MIXTURE in wanted else {}
    for request in networks.requests([name for name in wanted if name != MIXTURE]):
        found |= {f"{request.name}{suffix}": best for suffix, best in request.metric.suffixes.items()}
    return found


def to_uint8(images: np.ndarray) -> np.ndarray:
    """Images in [-1, 1] as uint8, to the nearest, as they would be in files.

    Raises:
      InvalidInputError: for images that are not finite, which would be black.
    """
    if not np.isfinite(images).all():
        raise InvalidInputError("samples are not finite: the generator has diverged; evaluate an earlier checkpoint")
    return np.clip(np.round((images + 1.0) * 127.5), 0, 255).astype(np.uint8)


def first_samples(parts: Iterable[np.ndarray], count: int) -> np.ndarray:
    """So many samples of a stream, in one array.

    Raises:
      InvalidInputError: for a stream that ends before.
    """
    taken: list[np.ndarray] = []
    for part in parts:
        taken.append(part)
        if sum(map(len, taken)) >= count:
            return np.concatenate(taken)[:count]
    raise InvalidInputError(f"{sum(map(len, taken)):,} samples: expected {count:,}")


def _key(record: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()[:16]


def _everywhere(here: bool) -> bool:
    """Whether it is so in all processes."""
    if hosts.client() is None:
        return here
    return bool(np.all(multihost_utils.process_allgather(np.array(here))))
