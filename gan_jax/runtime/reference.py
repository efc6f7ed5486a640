"""The reference that a game's outputs are compared with: images of a data source, and their features."""

import hashlib
import json
import os
import pathlib
import zipfile
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
from jax.experimental import multihost_utils

from gan_jax import eval as evals
from gan_jax.data import Source
from gan_jax.distributed import hosts
from gan_jax.eval import Extractor, Outputs
from gan_jax.host import to_uint8
from gan_jax.types import InvalidInputError

CLASSIFIER = "classifier"  # the network that is trained on the reference itself
OF_CLIPS = "video_classifier"  # the one that is trained on its clips
_HELD_OUT = 10  # every tenth example of the reference is held out to test the classifier
_PUBLISHED = {
    "inception": evals.inception, "dinov2": evals.dinov2, "clip": evals.clip, "lpips": evals.lpips, "i3d": evals.i3d,
}  # fmt: skip

# A feature pass: (what, networks, images, count) -> outputs by network.
Pass = Callable[[str, dict[str, Extractor], Iterable[np.ndarray], int], dict[str, Outputs]]


class Reference:
    """A data source as metrics see it, with a disk cache of what was computed from it.

    A source of images has `'real'`. If it has labels, a classifier can be trained on it. A source may have separate
    images for the classifier (Stacked-MNIST has single digits, of which it stacks three): then it has a method
    `labelled() -> (images, labels, number of classes)`, and the classifier is applied to each channel.

    Attributes:
      seen: hash of all images that a network's outputs were computed from, by the name of the network.
    """

    def __init__(self, source: Source, cache: pathlib.Path, log: Callable[[str], None], patience: float) -> None:
        """Sets up the reference; nothing is computed yet.

        Args:
          source: data source of the reference.
          cache: directory of classifiers and of networks' outputs, keyed by their whole protocol.
          log: receives messages about long computations.
          patience: seconds that a process waits for a message of another one.
        """
        self.source, self.cache, self.log, self.patience = source, cache, log, patience
        self.seen: dict[str, str] = {}

    def images(self, indices: np.ndarray) -> np.ndarray:
        """Reads the images at the indices, in their stored shape and as uint8."""
        images = self.source.read(indices)["real"]
        return images if images.dtype == np.uint8 else to_uint8(images)

    def check(self, requests: Iterable[evals.MetricSpec]) -> None:
        """Checks that the source has what the metrics need.

        Args:
          requests: metrics to check.

        Raises:
          InvalidInputError: for a metric whose needs the source does not meet.
        """
        for request in requests:
            missing = [name for name in request.metric.needs if not hasattr(self.source, name)]
            if missing:
                raise InvalidInputError(
                    f"metric {request.name!r} needs the {' and '.join(missing)} of its reference, and "
                    f"{self.source.name} has no such thing: mixture is for mixtures of Gaussians, stacked for "
                    "Stacked-MNIST"
                )
            if not request.network or request.metric.takes == evals.PAIRS or not request.metric.compares:
                continue
            shape = self.source.spec["real"].shape if "real" in self.source.spec else None
            if shape is None or len(shape) < 3:
                has = ", ".join(f"{name} {x.shape}" for name, x in self.source.spec.items())
                raise InvalidInputError(
                    f"metric {request.name!r} compares images, and {self.source.name} has {has}: give the experiment a "
                    "`reference` whose 'real' are images, or choose another metric (mixture for points of a mixture)"
                )
            stored = self.images(np.zeros(1, int)).shape[1:]
            if stored != shape:
                raise InvalidInputError(
                    f"metric {request.name!r}: {self.source.name} stores images {stored}, and changes them to {shape} "
                    "on their way into the game: give the experiment a `reference` of images as the game makes them"
                )

    def extractor(self, name: str, weights: str | None) -> Extractor:
        """Returns a network by name, after a check that its weights are the same in all processes.

        Args:
          name: name of a published network, or `classifier`, `video_classifier`, `attributes`.
          weights: directory of published networks' weights; None for the usual one.
        """
        if name in _PUBLISHED:
            network = _PUBLISHED[name]()
            params, record = network.load(weights)
            return self._agreed(name, Extractor(network.apply, params, record, network.takes))
        if name == "attributes":
            return evals.attributes()
        made = self._classifier(name == OF_CLIPS)
        made = evals.over_time(made) if name == OF_CLIPS else made
        return self._agreed(name, evals.by_channel(made) if hasattr(self.source, "labelled") else made)

    def shapes(self, name: str) -> Extractor:
        """Returns a network by name with the shapes of its weights instead of the weights; no file is needed."""
        if name in _PUBLISHED:
            network = _PUBLISHED[name]()
            return Extractor(network.apply, network.shapes(), {}, network.takes)
        if name == "attributes":
            return evals.attributes()
        images, _, classes = self._labelled(name == OF_CLIPS)
        made = evals.untrained_classifier(images.shape[1:], classes)
        made = evals.over_time(made) if name == OF_CLIPS else made
        return evals.by_channel(made) if hasattr(self.source, "labelled") else made

    def _agreed(self, name: str, made: Extractor) -> Extractor:
        hosts.agree(f"weights of {name}", {"sha256": made.record["weights_sha256"]}, self.patience)
        return made

    def _classifier(self, of_clips: bool = False) -> Extractor:
        """Loads or trains the classifier.

        Every process trains it on its own first device, so that none waits for another; the weights of process 0 count.
        """
        key = {"classifier": evals.CLASSIFIER_VERSION, "data": self.source.fingerprint()}
        key |= {"clips": True} if of_clips else {}
        path = self.cache / f"classifier-{_key(key)}.npz"
        if _everywhere(os.path.exists(path)):  # also where the directory cannot be read
            return evals.load_classifier(path)
        images, labels, classes = self._labelled(of_clips)
        # Frames of a clip stay together.
        tested = np.arange(len(images)) // max(1, len(images) // len(self.source)) % _HELD_OUT == 0
        made = evals.train_classifier(
            images[~tested],
            labels[~tested],
            (images[tested], labels[tested]),
            num_classes=classes,
            log=self.log,
        )
        if hosts.client() is not None:  # training on other hardware may have given slightly different weights
            weights, accuracy = multihost_utils.broadcast_one_to_all((made.params, np.float64(made.record["accuracy"])))
            made = evals.classifier(weights, made.record | {"accuracy": float(accuracy)})
        made = made._replace(record=made.record | {"data": self.source.name, "data_sha256": key["data"]})
        self._keep(path, lambda: evals.save_classifier(path, made))
        return made

    def _labelled(self, of_clips: bool = False) -> tuple[np.ndarray, np.ndarray, int]:
        """Returns the images, labels and number of classes that the classifier is trained on.

        Of clips these are their frames, each with the label of its clip; or, for a classifier of clips, one image with
        the channels of all frames.
        """
        labelled = getattr(self.source, "labelled", None)
        if labelled is not None:
            return labelled()
        if self.source.num_classes is None:
            raise InvalidInputError(
                f"{self.source.name} comes without labels, which the classifier of fcd, kcd, prdc_classifier and "
                "fcd_video learns: give the experiment a `reference` with labels"
            )
        everything = np.arange(len(self.source))
        images, labels = self.images(everything), self.source.read(everything)["label"]
        if of_clips and images.ndim != 5:
            raise InvalidInputError(f"fcd_video compares clips, and {self.source.name} has images; use fcd")
        if images.ndim == 5 and not of_clips:
            return images.reshape(-1, *images.shape[2:]), labels.repeat(images.shape[1]), self.source.num_classes
        return evals.folded(images) if of_clips else images, labels, self.source.num_classes

    def outputs(self, name: str, extractor: Extractor, run: Pass) -> Outputs:
        """Returns a network's outputs for all images, from the cache or newly computed.

        Args:
          name: name of the network.
          extractor: network with its weights.
          run: feature pass, `(what, networks, images, count) -> outputs`.
        """
        count = len(self.source)
        path = self.cache / f"reference-{_key(self.record(extractor))}.npz"
        if _everywhere(os.path.exists(path)):  # also where the directory cannot be read
            self.seen[name], outputs = _kept(path, count)
            return outputs
        digest = hashlib.sha256()
        self.log(f"features of {self.source.name}, {count:,} examples, by {name}")

        def images() -> Iterator[np.ndarray]:
            for low in range(0, count, 1024):
                part = self.images(np.arange(low, min(low + 1024, count)))
                digest.update(np.ascontiguousarray(part).data)
                yield part

        found = run(self.source.name, {name: extractor}, images(), count)[name]
        arrays = {key: value for key, value in found._asdict().items() if value is not None}
        self.seen[name] = digest.hexdigest()
        self._keep(path, lambda: evals.keep(path, arrays | {"images_sha256": np.array(self.seen[name])}))
        return found

    def _keep(self, path: pathlib.Path, write: Callable[[], None]) -> None:
        """Writes a file of the cache. A cache that cannot be written costs time only, so that is said and no error."""
        try:
            write()
        except OSError as error:
            self.log(f"{path} cannot be written ({error}): it is computed again the next time")

    def record(self, extractor: Extractor) -> dict[str, Any]:
        """Returns the protocol of a network's outputs for the reference."""
        return {
            "network": extractor.record,
            "reference": self.source.name,
            "reference_fingerprint": self.source.fingerprint(),
            "reference_count": len(self.source),
        }

    def compared(self, name: str, extractor: Extractor) -> dict[str, Any]:
        """Returns the protocol of a comparison with a network's outputs. Call it after `outputs`."""
        record = self.record(extractor)
        return record | {"reference_key": _key(record), "reference_images_sha256": self.seen[name]}


def _kept(path: pathlib.Path, count: int) -> tuple[str, Outputs]:
    """Reads the outputs of a network for all images of a reference, and the hash of the images, from the cache."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as kept:
            outputs = Outputs(kept["features"], kept.get("logits"))
            if len(outputs.features) < count:
                raise ValueError(f"{len(outputs.features):,} rows for {count:,} images")
            return str(kept["images_sha256"]), outputs
    except (OSError, ValueError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile) as error:
        raise InvalidInputError(f"{path} is damaged ({error}): delete it, and it is computed again") from error


def _key(record: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()[:16]


def _everywhere(here: bool) -> bool:
    """Whether `here` is true in all processes: they must all read the cache, or all join in computing."""
    if hosts.client() is None:
        return here
    return bool(np.all(multihost_utils.process_allgather(np.array(here))))
