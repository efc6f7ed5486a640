"""Prepared TensorFlow Datasets, read without TensorFlow."""

import dataclasses
import pathlib
from typing import Any

import numpy as np

from gan_jax.data import images
from gan_jax.data.sources import Arrays, Records
from gan_jax.types import InvalidInputError

_PREPARE = (
    "prepare it once, on a machine with TensorFlow (pip install -e '.[prepare]' in a clone of gan_jax): "
    'python -c "import tensorflow_datasets as tfds; '
    "tfds.builder('{name}', data_dir='{data_dir}', file_format='array_record').download_and_prepare()\""
)


def tfds_images(
    name: str,
    *,
    data_dir: str,
    labels: bool,
    split: str = "train",
    image_size: int | None = None,
    channels: int | None = None,
    image_key: str = "image",
    label_key: str = "label",
    resident_bytes: int = images.RESIDENT_BYTES,
) -> Arrays | Records:
    """Reads a TFDS image data set that was prepared as array_record: images as `'real'`, labels as `'label'`.

    Args:
      name: name of the data set, such as `mnist`, `mnist:3.0.1` or `name/config`; without a version, the newest
        prepared one is read.
      data_dir: directory in which TFDS prepared the data set.
      labels: whether to deliver the labels.
      split: split in TFDS syntax, such as `train` or `train[:90%]`.
      image_size: height and width to which images are cropped and resized; None keeps the size.
      channels: 1 to convert to grey, 3 to convert to colour; None keeps the channels.
      image_key: name of the feature that holds the image.
      label_key: name of the feature that holds the label.
      resident_bytes: a data set of at most this many decoded bytes is held on the device; a larger one is streamed.

    Returns:
      The source.

    Raises:
      InvalidInputError: if the directory is missing, the data set is unknown or not prepared as array_record, or the
        split or a feature does not exist.
    """
    images.check_format(image_size, channels)
    source, features = _open(name, data_dir, split)
    wanted = [image_key, *([label_key] if labels else [])]
    missing = [key for key in wanted if key not in features]
    if missing:
        raise InvalidInputError(
            f"TFDS data set {name!r} has no feature {missing}: it has {sorted(features)}"
            + (" (labels=False reads it without labels)" if label_key in missing else "")
        )
    reader = _Images(source, name, image_key, label_key if labels else None, image_size, channels)
    num_classes = getattr(features[label_key], "num_classes", None) if labels else None
    if labels and num_classes is None:
        raise InvalidInputError(
            f"feature {label_key!r} of {name!r} is not a class label: {features[label_key]}; set labels=False"
        )
    named = labels and getattr(features[label_key], "names", None) is not None
    names = features[label_key].names if named else ()
    return images.hold_or_stream(f"{name} ({split})", reader, num_classes, resident_bytes, class_names=names)


def _open(name: str, data_dir: str, split: str) -> tuple[Any, Any]:
    """Opens a prepared data set; returns the records of the split and the features."""
    root = images.directory(data_dir, "the directory that TFDS prepared data in")
    path, _, version = name.partition(":")
    versions = sorted((p.parent for p in (root / path).glob("*/dataset_info.json")), key=_version)
    if version:
        versions = [p for p in versions if p.name == version]
    if not versions:
        found = sorted({str(p.parent.parent.relative_to(root)) for p in root.glob("*/**/dataset_info.json")})
        raise InvalidInputError(
            f"no TFDS data set {name!r} in data_dir={data_dir!r}, which has {found}: correct the name, or "
            + _PREPARE.format(name=path, data_dir=data_dir)
        )
    import tensorflow_datasets as tfds  # noqa: PLC0415 - slow to import, and other sources do not need it

    builder = tfds.builder_from_directory(versions[-1])
    if builder.info.file_format.value != "array_record":
        raise InvalidInputError(
            f"{versions[-1]} is stored as {builder.info.file_format.value}, which needs TensorFlow to read: "
            + _PREPARE.format(name=path, data_dir=data_dir)
        )
    base = split.partition("[")[0]
    if base not in builder.info.splits:
        raise InvalidInputError(f"split={split!r}: {name!r} has {sorted(builder.info.splits)}")
    try:
        return builder.as_data_source(split=split), builder.info.features
    except ValueError as error:
        raise InvalidInputError(f"split={split!r} of {name!r}: {error}") from error


def _version(path: pathlib.Path) -> tuple[int, ...]:
    parts = path.name.split(".")
    return tuple(int(part) for part in parts) if all(part.isdigit() for part in parts) else (-1,)


@dataclasses.dataclass(frozen=True)
class _Images:
    source: Any
    name: str
    image_key: str
    label_key: str | None
    image_size: int | None
    channels: int | None

    def __len__(self) -> int:
        return len(self.source)

    def read(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        try:
            records = self.source.__getitems__([int(index) for index in indices])
        except Exception as error:
            raise InvalidInputError(
                f"{self.name}: examples {indices.min()} to {indices.max()} cannot be read ({error}); prepare it again"
            ) from error
        return images.stack([self._example(record) for record in records], self.name)

    def _example(self, record: dict[str, Any]) -> dict[str, np.ndarray]:
        example = {"real": images.resize(np.asarray(record[self.image_key]), self.image_size, self.channels)}
        if self.label_key is not None:
            example["label"] = np.asarray(record[self.label_key], np.int32)
        return example
