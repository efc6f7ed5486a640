"""Prepared TensorFlow Datasets, read without TensorFlow."""

import contextlib
import dataclasses
import io
import json
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image

from gan_jax.data import decode, images
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
    fit: str = "crop",
    background: str = "white",
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
      image_size: height and width to which images are made square and resized; None keeps the size.
      channels: 1 to convert to grey, 3 to convert to colour; None keeps what the feature has, without transparency.
      fit: `crop` cuts images to the largest central square; `stretch` resizes them whole, ignoring the ratio of height
        to width, by bicubic interpolation.
      background: colour that shows through where images are transparent, a name or `#rrggbb`.
      image_key: name of the feature that holds the image.
      label_key: name of the feature that holds the label.
      resident_bytes: a data set of at most this many decoded bytes is held on the device; a larger one is streamed.

    Returns:
      The source.

    Raises:
      InvalidInputError: if the directory is missing, the data set is unknown or not prepared as array_record, the split
        or a feature does not exist, the feature is no image (videos are not read), or the data set has features of
        other classes than TFDS's own, since TFDS would import and run the module that their file names.
    """
    images.check_size(image_size)
    images.check_fit(fit)
    source, features = open_prepared(name, data_dir, split, label_key if labels else None)
    wanted = [image_key, *([label_key] if labels else [])]
    missing = [key for key in wanted if key not in features]
    if missing:
        raise InvalidInputError(
            f"TFDS data set {name!r} has no feature {missing}: it has {sorted(features)}"
            + (" (labels=False reads it without labels)" if label_key in missing else "")
        )
    stored = stored_channels(features[image_key], f"feature {image_key!r} of {name!r}")
    decoder = decode.Decoder(channels or min(stored, 3), background)
    reader = _Images(source, name, image_key, label_key if labels else None, image_size, decoder, fit)
    num_classes = getattr(features[label_key], "num_classes", None) if labels else None
    if labels and num_classes is None:
        raise InvalidInputError(
            f"feature {label_key!r} of {name!r} is not a class label: {features[label_key]}; set labels=False"
        )
    named = labels and getattr(features[label_key], "names", None) is not None
    names = features[label_key].names if named else ()
    notes = [f"images: transparent ones blended on {background}"] if stored == 4 else []
    return images.hold_or_stream(f"{name} ({split})", reader, num_classes, resident_bytes, names, notes)


def stored_channels(feature: Any, what: str) -> int:
    """Returns the number of channels of an image feature; raises for videos and others."""
    shape, plain = getattr(feature, "shape", None), getattr(feature, "np_dtype", None) == np.uint8
    if not plain or not isinstance(shape, tuple) or len(shape) != 3 or shape[-1] not in (1, 3, 4):
        raise InvalidInputError(
            f"{what} is {feature}: expected an image, [h, w, c], of uint8 and 1, 3 or 4 channels; name another feature "
            "by image_key; tfds_videos reads videos that are stored as sequences of images"
        )
    return shape[-1]


_OWN_CLASSES = "tensorflow_datasets.core.features."
_CLASS_KEYS = ("pythonClassName", "python_class_name", "type")  # the last one in files of old versions of TFDS


def _class_names(value: Any) -> Iterator[str]:
    """Yields the names of all classes in a description of features, which may hold others as JSON in a string."""
    if isinstance(value, dict):
        yield from (value[key] for key in _CLASS_KEYS if isinstance(value.get(key), str))
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _class_names(item)
    with contextlib.suppress(json.JSONDecodeError):  # a text, in which TFDS would find no classes either
        yield from _class_names(json.loads(value)) if isinstance(value, str) else ()


def _check_classes(directory: pathlib.Path) -> None:
    """Raises unless all classes of a data set's features are TFDS's own: it imports the module that each one names."""
    path = directory / "features.json"
    try:
        names = list(_class_names(json.loads(path.read_text(encoding="utf-8"))))
    except (OSError, ValueError, RecursionError) as error:
        raise InvalidInputError(f"{path} cannot be read ({error}): prepare the data set again") from error
    others = [name for name in names if not name.startswith(_OWN_CLASSES)]
    if others:
        raise InvalidInputError(
            f"{path} names the feature class {others[0]!r}: expected classes of {_OWN_CLASSES}*, since the module of "
            "any other would be imported and run; if you trust it, read the data set by tfds yourself, as a "
            "data.Records"
        )


def open_prepared(name: str, data_dir: str, split: str, label_key: str | None) -> tuple[Any, Any]:
    """Opens a prepared data set; returns the records of the split, with only the label decoded, and the features."""
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
    _check_classes(versions[-1])
    import tensorflow_datasets as tfds  # noqa: PLC0415 - slow to import, and other sources do not need it

    try:
        builder = tfds.builder_from_directory(versions[-1])
    except Exception as error:  # TFDS raises exceptions of many types for files that are damaged
        raise InvalidInputError(
            f"{versions[-1]} cannot be opened ({error}): prepare it again; a feature of class Video needs TensorFlow: "
            "tfds_videos reads videos whose feature is a Sequence of Image"
        ) from error
    if builder.info.file_format.value != "array_record":
        raise InvalidInputError(
            f"{versions[-1]} is stored as {builder.info.file_format.value}, which needs TensorFlow to read: "
            + _PREPARE.format(name=path, data_dir=data_dir)
        )
    base = split.partition("[")[0]
    if base not in builder.info.splits:
        raise InvalidInputError(f"split={split!r}: {name!r} has {sorted(builder.info.splits)}")

    class Stored(tfds.decode.SkipDecoding):
        """Leaves features as they are stored; that of TFDS refuses sequences, such as the frames of a video."""

        def decode_batch_example_np(self, example: Any) -> Any:
            return example

    def undecoded(feature: Any) -> Any:  # TFDS would have Pillow open images of any format; see `decode`
        inside = isinstance(feature, tfds.features.FeaturesDict)
        return {key: undecoded(feature[key]) for key in feature} if inside else Stored()

    features = builder.info.features
    decoders = {key: undecoded(features[key]) for key in features if key != label_key}
    try:
        return builder.as_data_source(split=split, decoders=decoders), features
    except ValueError as error:
        raise InvalidInputError(f"split={split!r} of {name!r}: {error}") from error


def _version(path: pathlib.Path) -> tuple[int, ...]:
    parts = path.name.split(".")
    return tuple(int(part) for part in parts) if all(part.isdecimal() for part in parts) else (-1,)


@dataclasses.dataclass(frozen=True)
class _Images:
    source: Any
    name: str
    image_key: str
    label_key: str | None
    image_size: int | None
    decoder: decode.Decoder
    fit: str = "crop"

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
        stored = record[self.image_key]
        if isinstance(stored, bytes):
            with decode.open_picture(io.BytesIO(stored), f"an image of {self.name}") as picture:
                image = self.decoder.pixels(picture, f"an image of {self.name}")
        else:
            picture = Image.fromarray(stored[..., 0] if stored.shape[-1] == 1 else stored)
            image = self.decoder.pixels(picture, f"an image of {self.name}")
        example = {"real": images.resize(image, self.image_size, self.fit)}
        if self.label_key is not None:
            example["label"] = np.asarray(record[self.label_key], np.int32)
        return example
