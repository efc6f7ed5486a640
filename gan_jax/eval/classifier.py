"""A classifier trained on the data set in hand: its features replace those of published networks in distances."""

import hashlib
import json
import math
import pathlib
import time
import zipfile
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Int, PyTree, UInt8

from gan_jax import nets
from gan_jax.deprecated import arguments
from gan_jax.eval.extract import Extractor, keep
from gan_jax.host import from_uint8
from gan_jax.types import InvalidInputError, Network

VERSION = 1  # version of network and training; it rises with any change that could alter a metric value
_BATCH, _RATE, _LEAST_STEPS, _LEAST_EPOCHS = 128, 2e-3, 1200, 3


@arguments(say="log")
def train_classifier(
    images: UInt8[np.ndarray, "n h w c"],
    labels: Int[np.ndarray, " n"],
    held_out: tuple[UInt8[np.ndarray, "m h w c"], Int[np.ndarray, " m"]],
    *,
    num_classes: int,
    width: int = 32,
    features: int = 128,
    seed: int = 0,
    log: Callable[[str], None] = lambda message: None,
) -> Extractor:
    """Trains `nets.Classifier` with Adam and a cosine decay of the learning rate to 0.

    It makes 1,200 updates of 128 images, or three epochs if that is more, and runs whole epochs. It runs on one device,
    whatever mesh is in force.

    Args:
      images: training images, uint8, 8x8 or larger.
      labels: labels of the images, from 0 to num_classes - 1.
      held_out: images and labels to test on.
      num_classes: number of classes.
      width: width of the network.
      features: number of features of the network.
      seed: seed for the weights and the order of the images; the same seed gives the same weights on one kind of
        machine.
      log: function that receives progress messages.

    Returns:
      An `Extractor` of the classifier's features and logits. Its record has the accuracy on the held-out images and a
      hash of the weights.

    Raises:
      InvalidInputError: if labels are out of range, or there are fewer images than one batch.
    """
    _check(images, labels, num_classes)
    with jax.set_mesh(Mesh(np.array(jax.local_devices()[:1]), ("one",))):
        made = _train(images, labels, num_classes, width, features, seed, log)
        accuracy = _accuracy(made, *held_out)
    log(f"classifier: {accuracy:.2%} of {len(held_out[1]):,} images held out are right")
    return made._replace(record=made.record | {"held_out": len(held_out[1]), "accuracy": accuracy})


def classifier(weights: PyTree, facts: dict[str, Any]) -> Extractor:
    """Returns the extractor of a classifier with trained weights.

    Args:
      weights: parameters and batch statistics.
      facts: entries of the record, at least `num_classes`, `width` and `dim`.

    Returns:
      An `Extractor` of features and logits, whose record has the facts and a hash of the weights.
    """
    apply = _apply(facts["num_classes"], facts["width"], facts["dim"])
    fixed = {"name": "classifier", "version": VERSION, "weights_sha256": _digest(weights), "dtype": "float32"}
    return Extractor(apply, weights, facts | fixed)


def untrained_classifier(
    image: tuple[int, ...], num_classes: int, *, width: int = 32, features: int = 128
) -> Extractor:
    """Returns the extractor of a classifier with the shapes of its weights instead of weights.

    Args:
      image: shape of an image, `(h, w, c)`.
      num_classes: number of classes.
      width: width of the network.
      features: number of features of the network.
    """
    network = nets.from_linen(nets.Classifier(num_classes, width, features))
    weights = jax.eval_shape(network.init, jax.random.key(0), jax.ShapeDtypeStruct((2, *image), jnp.float32))
    return Extractor(_apply(num_classes, width, features), weights, {})


def save_classifier(path: pathlib.Path, made: Extractor) -> None:
    """Writes a classifier to a file, atomically."""
    names = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(made.params)]
    arrays = dict(zip(names, jax.tree.leaves(made.params), strict=True))
    keep(path, {"record": np.array(json.dumps(made.record)), **arrays})


def load_classifier(path: pathlib.Path) -> Extractor:
    """Reads a classifier from a file.

    Raises:
      InvalidInputError: if the file is damaged, or of another version.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as kept:
            arrays = {name: kept[name] for name in kept.files}
        record = json.loads(str(arrays.pop("record")))
        network = nets.from_linen(nets.Classifier(record["num_classes"], record["width"], record["dim"]))
        shapes = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, *record["image"])))
        leaves = [arrays.pop(jax.tree_util.keystr(where)) for where, _ in jax.tree_util.tree_leaves_with_path(shapes)]
        made = classifier(jax.tree.unflatten(jax.tree.structure(shapes), leaves), record)
    except (OSError, ValueError, KeyError, TypeError, EOFError, RuntimeError, zipfile.BadZipFile) as error:
        raise InvalidInputError(f"{path} is no classifier file ({error}): delete it and train again") from error
    # `classifier` has recorded the current version and the hash of these weights, so a difference is found here.
    if made.record != record or arrays:
        raise InvalidInputError(
            f"{path} is damaged or of another version: its weights do not match its record; delete it and train again"
        )
    return made


def by_channel(made: Extractor) -> Extractor:
    """Applies a classifier of grey images to every channel of an image.

    The features, and the logits, of the channels are concatenated.
    """

    def apply(weights: PyTree, images: Array) -> dict[str, Array]:
        grey = jnp.moveaxis(images, -1, 1).reshape(-1, *images.shape[1:3], 1)
        return {name: x.reshape(images.shape[0], -1) for name, x in made.apply(weights, grey).items()}

    return made._replace(apply=apply, record=made.record | {"by_channel": True})


def _train(
    images: np.ndarray,
    labels: np.ndarray,
    num_classes: int,
    width: int,
    features: int,
    seed: int,
    log: Callable[[str], None],
) -> Extractor:
    network = nets.from_linen(nets.Classifier(num_classes, width, features))
    steps_per_epoch = len(images) // _BATCH
    epochs = max(_LEAST_EPOCHS, math.ceil(_LEAST_STEPS / steps_per_epoch))
    optimizer = optax.adam(optax.cosine_decay_schedule(_RATE, epochs * steps_per_epoch))
    params, model_state = jax.jit(network.init)(jax.random.key(seed), from_uint8(jnp.asarray(images[:2])))
    carried = params, model_state, jax.jit(optimizer.init)(params)
    data = jnp.asarray(images), jnp.asarray(labels, jnp.int32)
    epoch = jax.jit(_epoch(network, optimizer), donate_argnums=0)
    random, began = np.random.default_rng(seed), time.monotonic()
    for index in range(epochs):
        order = random.permutation(len(images))[: steps_per_epoch * _BATCH].reshape(-1, _BATCH)
        carried, loss = epoch(carried, data, jnp.asarray(order))
        if index % max(1, epochs // 5) == 0 or index == epochs - 1:
            eta = (time.monotonic() - began) / (index + 1) * (epochs - index - 1)
            log(f"classifier: pass {index + 1} of {epochs}, loss {float(loss):.4f}, ETA {eta:.0f} s")
    facts = {"num_classes": num_classes, "width": width, "dim": features, "image": list(images.shape[1:])}
    trained = {"seed": seed, "updates": epochs * steps_per_epoch}
    return classifier(jax.device_get(carried[:2]), facts | trained)


def _apply(num_classes: int, width: int, features: int) -> Callable[[PyTree, Array], dict[str, Array]]:
    """Returns the function `(weights, images) -> {'features', 'logits'}` of a trained classifier."""
    network = nets.from_linen(nets.Classifier(num_classes, width, features))

    def apply(weights: PyTree, images: Array) -> dict[str, Array]:
        # the default precision differs between kinds of devices, and with it the features
        with jax.default_matmul_precision("highest"):
            (found, logits), _ = network.apply(*weights, from_uint8(images), train=False)
        return {"features": found, "logits": logits}

    return apply


def _check(images: np.ndarray, labels: np.ndarray, num_classes: int) -> None:
    if images.dtype != np.uint8 or len(images) != len(labels) or len(images) < _BATCH:
        raise InvalidInputError(
            f"{images.dtype} images {images.shape}, {len(labels)} labels: expected uint8 images, one label for each, "
            f"and {_BATCH} or more"
        )
    if labels.min() < 0 or labels.max() >= num_classes:
        raise InvalidInputError(f"labels from {labels.min()} to {labels.max()}: expected 0 to {num_classes - 1}")


def _epoch(network: Network, optimizer: optax.GradientTransformation) -> Callable[..., Any]:
    def update(carried: Any, index: Array, data: tuple[Array, Array]) -> tuple[Any, Array]:
        params, model_state, moments = carried

        def loss(params: PyTree) -> tuple[Array, PyTree]:
            (_, logits), changed = network.apply(params, model_state, from_uint8(data[0][index]), train=True)
            return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, data[1][index])), changed

        (value, changed), gradient = jax.value_and_grad(loss, has_aux=True)(params)
        updates, moments = optimizer.update(gradient, moments)
        return (optax.apply_updates(params, updates), changed, moments), value

    def epoch(carried: Any, data: tuple[Array, Array], order: Array) -> tuple[Any, Array]:
        carried, losses = jax.lax.scan(lambda state, index: update(state, index, data), carried, order)
        return carried, jnp.mean(losses)

    return epoch


def _accuracy(made: Extractor, images: np.ndarray, labels: np.ndarray) -> float:
    run, size = jax.jit(lambda weights, x: jnp.argmax(made.apply(weights, x)["logits"], -1)), 500
    found = [np.asarray(run(made.params, images[low : low + size])) for low in range(0, len(images), size)]
    return float(np.mean(np.concatenate(found) == labels))


def _digest(weights: PyTree) -> str:
    """Returns a hash of the weights: their names, dtypes, shapes and values."""
    digest = hashlib.sha256()
    for path, value in jax.tree_util.tree_leaves_with_path(weights):
        digest.update(f"{jax.tree_util.keystr(path)} {value.dtype} {value.shape}".encode())
        digest.update(np.ascontiguousarray(value).data)
    return digest.hexdigest()
