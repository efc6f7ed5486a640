"""Evaluation of folders of pictures, made by anything, against folders of references."""

import functools
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from gan_jax import eval as evals
from gan_jax import runtime
from gan_jax.data import Source, folder, image_folder, renamed, zip_sources
from gan_jax.eval import PAIRS
from gan_jax.host import from_uint8
from gan_jax.runtime import Conditions, Evaluator, environment
from gan_jax.runtime.reference import CLASSIFIER
from gan_jax.types import InvalidInputError

_IMAGES = "images"  # stands for the function of a game
_PART = 256  # images that are read at a time


def evaluate_folders(
    images: str | pathlib.Path,
    reference: str | pathlib.Path,
    metrics: Sequence[str],
    *,
    image_size: int | None = None,
    weights: str | None = None,
    cache: str | pathlib.Path | None = None,
    batch_size: int = 64,
    seed: int = 0,
    log: Callable[[str], None] = print,
    beat: Callable[[str], None] = lambda doing: None,
) -> dict[str, Any]:
    """Computes metrics of a folder of images against a folder of references.

    All images below both folders are used, in the order of their names. Metrics of pairs, such as `psnr`, compare
    images of the same name. `fcd` and the other metrics of the classifier need a reference with one sub-folder for each
    class.

    Args:
      images: folder of the images.
      reference: folder of the references.
      metrics: names of metrics; a name without a number, such as `fid`, uses all images, `fid5k` the first 5,000.
      image_size: height and width to which the images of both folders are brought: cut to the largest central square,
        and resized with antialiasing, which changes the values. None if all of them have one size.
      weights: directory of the published networks' weights; None for the usual one.
      cache: directory of classifiers and of features of references; None for the usual one.
      batch_size: images in a batch of the feature networks.
      seed: seed of random subsets.
      log: receives messages about long computations.
      beat: is called more often, to report that work goes on.

    Returns:
      `'metrics'`, the values by name; and `'protocol'`, all that they depend on.

    Raises:
      InvalidInputError: for unknown metrics, missing weights, folders without images, images that cannot be read, or of
        several sizes; for metrics of pairs, if the names differ.
    """
    requests = evals.metric_specs(metrics)
    if wrong := [x.name for x in requests if x.function]:
        raise InvalidInputError(f"metrics {', '.join(wrong)}: folders have no functions: leave the prefix out")
    labels = any(x.network == CLASSIFIER for x in requests)
    made, real = _opened("images", images, image_size, False), _opened("reference", reference, image_size, labels)
    shapes = made.spec["real"].shape, real.spec["real"].shape
    if shapes[0] != shapes[1]:
        sizes = " and ".join(f"{w} x {h}" for h, w, _ in shapes)
        raise InvalidInputError(
            f"images={images} and reference={reference} have images of {sizes} pixels: resize one of them as its "
            "method should, or bring both to one size with image_size"
        )
    parts = {"inputs": renamed(made, inputs="real")}
    if any(x.metric.takes == PAIRS for x in requests):
        _check_names(images, reference)
        parts["target"] = renamed(real, target="real")
    conditions = Conditions(zip_sources(**parts) if len(parts) > 1 else parts["inputs"])
    evaluator = Evaluator(
        metrics, real, runtime.make_mesh(), pathlib.Path(cache or environment.cache_directory()) / "evaluation",
        functions=lambda function, takes: (_IMAGES, conditions),
        weights=weights, batch_size=batch_size, seed=seed, log=log, beat=beat,
    )  # fmt: skip
    values = evaluator(functools.partial(_stream, made))
    return {"metrics": values, "protocol": {"metrics": evaluator.records, "seed": seed, "image_size": image_size}}


def _opened(name: str, path: str | pathlib.Path, image_size: int | None, labels: bool) -> Source:
    try:
        return image_folder(str(path), image_size=image_size, labels=labels)
    except InvalidInputError as error:
        raise InvalidInputError(f"{name}={path}: {error}") from error


def _check_names(*folders: str | pathlib.Path) -> None:
    """Checks that two folders have files of the same names, whatever their endings."""
    names = []
    for root in map(pathlib.Path, folders):
        files, _ = folder.files_below(root.expanduser())
        names.append([str(path.relative_to(root.expanduser()).with_suffix("")) for path in files])
    if names[0] != names[1]:
        alone = sorted(set(names[0]) ^ set(names[1])) or ["a name that comes twice"]
        raise InvalidInputError(
            f"images={folders[0]} and reference={folders[1]} have {len(names[0]):,} and {len(names[1]):,} images with "
            f"other names, such as {alone[0]}: metrics of pairs compare images of the same name"
        )


def _stream(source: Source, function: str) -> Iterator[np.ndarray]:
    del function
    for low in range(0, len(source), _PART):
        yield from_uint8(source.read(np.arange(low, min(low + _PART, len(source))))["real"])
