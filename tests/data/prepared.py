"""TFDS data sets that tests write themselves, without TensorFlow: records of tf.train.Example in array_record files."""

import io
import json

import numpy as np
from PIL import Image

_OWN = "tensorflow_datasets.core.features."


def _field(number: int, content: bytes) -> bytes:
    """A field of the wire format of protocol buffers: tag, length, content."""
    return bytes([number << 3 | 2]) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    low, rest = value & 127, value >> 7
    return bytes([low | 128]) + _varint(rest) if rest else bytes([low])


def example(image: np.ndarray, label: int) -> bytes:
    """A serialised tf.train.Example of an image, as PNG, and a label."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    features = {"image": _field(1, _field(1, file.getvalue())), "label": _field(3, _field(1, _varint(label)))}
    return _field(1, b"".join(_field(1, _field(1, name.encode()) + _field(2, x)) for name, x in features.items()))


def cycle_gan(root, splits):
    """Writes `cycle_gan/toy` with the features of TFDS's `cycle_gan`; `splits` has the images of each split."""
    from array_record.python.array_record_module import ArrayRecordWriter

    directory = root / "cycle_gan" / "toy" / "3.0.0"
    directory.mkdir(parents=True)
    shape = {"shape": {"dimensions": ["-1", "-1", "3"]}, "dtype": "uint8"}
    features = {
        "image": {"pythonClassName": f"{_OWN}image_feature.Image", "image": shape},
        "label": {"pythonClassName": f"{_OWN}class_label_feature.ClassLabel", "classLabel": {"numClasses": "2"}},
    }
    whole = {"pythonClassName": f"{_OWN}features_dict.FeaturesDict", "featuresDict": {"features": features}}
    (directory / "features.json").write_text(json.dumps(whole))
    told = []
    for name, images in splits.items():
        path = directory / f"cycle_gan-{name}.array_record-00000-of-00001"
        writer = ArrayRecordWriter(str(path), "group_size:1")
        for image in images:
            writer.write(example(image, int(name.endswith("B"))))
        writer.close()
        told.append(
            {
                "name": name,
                "shardLengths": [str(len(images))],
                "numBytes": str(path.stat().st_size),
                "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
            }
        )
    info = {"name": "cycle_gan", "configName": "toy", "version": "3.0.0", "fileFormat": "array_record"}
    (directory / "dataset_info.json").write_text(json.dumps(info | {"splits": told}))
    return str(root)
