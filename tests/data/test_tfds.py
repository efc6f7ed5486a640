"""Prepared data sets that would run code, hide colours, or are no images."""

import json
import pathlib
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import EpsImagePlugin, Image

from gan_jax import data
from gan_jax.data import decode, tfds
from gan_jax.types import InvalidInputError
from tests.data.test_decode import POSTSCRIPT, saved

OWN = "tensorflow_datasets.core.features."
IMAGE = {
    "pythonClassName": f"{OWN}image_feature.Image",
    "image": {"dtype": "uint8", "shape": {"dimensions": ["8", "8", "4"]}},
}


def prepared(root, features):
    directory = root / "toy" / "1.0.0"
    directory.mkdir(parents=True)
    info = {"name": "toy", "version": "1.0.0", "fileFormat": "array_record"}
    (directory / "dataset_info.json").write_text(json.dumps(info))
    (directory / "features.json").write_text(features if isinstance(features, str) else json.dumps(features))
    return str(root)


def features_dict(**features):
    return {"pythonClassName": f"{OWN}features_dict.FeaturesDict", "featuresDict": {"features": features}}


BAD = {"pythonClassName": "evil_features.Image", "jsonFeature": {"json": "{}"}}
LEGACY = {"type": "evil_features.Image", "content": {}}


@pytest.mark.parametrize(
    "features",
    [
        BAD,
        features_dict(image=BAD),
        features_dict(image={"python_class_name": "evil_features.Image"}),
        features_dict(
            frames={"pythonClassName": f"{OWN}sequence_feature.Sequence", "sequence": {"feature": BAD, "length": "2"}}
        ),
        {"type": f"{OWN}features_dict.FeaturesDict", "content": {"image": LEGACY}},
        {
            "pythonClassName": f"{OWN}features_dict.FeaturesDict",
            "jsonFeature": {"json": json.dumps({"image": LEGACY})},
        },
    ],
    ids=["root", "inside", "snake_case", "sequence", "legacy", "json in a string"],
)
def test_no_module_is_imported(features, tmp_path, monkeypatch):
    """TFDS imports the module of a feature's class, which may lie in the current directory."""
    mark = tmp_path / "imported"
    (tmp_path / "evil_features.py").write_text(f"import pathlib\npathlib.Path({str(mark)!r}).touch()\n")
    monkeypatch.syspath_prepend(tmp_path)
    root = prepared(tmp_path / "data", features)
    with pytest.raises(InvalidInputError, match=r"names the feature class 'evil_features\.Image'"):
        data.tfds_images("toy", data_dir=root, labels=False)
    assert not mark.exists() and "evil_features" not in sys.modules


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["image", "content", "type", "featuresDict", "json"]), inner, max_size=3)
        | inner.map(json.dumps)
    ),
    max_leaves=8,
)


@settings(max_examples=200, deadline=None)
@given(value=JSON, name=st.sampled_from(["os.path", "evil", f"{OWN}", f"x{OWN}image_feature.Image"]))
def test_a_class_is_found_wherever_it_is(value, name):
    """In lists and texts of JSON, to any depth."""
    for key in ("pythonClassName", "python_class_name", "type"):
        inside = {"image": [json.dumps({"content": value, key: name})], "more": value}
        assert name in list(tfds._class_names(inside))


def test_texts_that_are_no_json_are_passed_over():
    assert list(tfds._class_names({"description": "{an image}", "type": f"{OWN}x"})) == [f"{OWN}x"]


@pytest.mark.parametrize("features", ["", "{", "[" * 100_000, json.dumps(features_dict(image={"image": {"dtype": 7}}))])
def test_damaged_descriptions(features, tmp_path):
    with pytest.raises(InvalidInputError, match="prepare"):
        data.tfds_images("toy", data_dir=prepared(tmp_path, features), labels=False)


def test_videos_are_refused(tmp_path):
    frames = {"pythonClassName": f"{OWN}sequence_feature.Sequence", "sequence": {"feature": IMAGE, "length": "2"}}
    root = prepared(tmp_path, features_dict(video=frames, nested=features_dict(image=IMAGE)))
    info = pathlib.Path(root, "toy", "1.0.0", "dataset_info.json")
    split = {
        "name": "train",
        "shardLengths": ["1"],
        "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
    }
    info.write_text(json.dumps(json.loads(info.read_text()) | {"splits": [split]}))
    for key in ("video", "nested"):
        with pytest.raises(InvalidInputError, match=f"(?s)feature '{key}' of 'toy' is .*: expected an image"):
            data.tfds_images("toy", data_dir=root, labels=False, image_key=key)


class Stored:
    """The records of a data set, of which images are bytes or arrays."""

    def __init__(self, *images):
        self.images = images

    def __len__(self):
        return len(self.images)

    def __getitems__(self, keys):
        return [{"image": self.images[key]} for key in keys]


def read(*images, **options):
    decoder = decode.Decoder(**({"channels": 3} | options))
    reader = tfds._Images(Stored(*images), "toy", "image", None, 8, decoder)
    return reader.read(np.arange(len(images)))["real"]


def test_hidden_colours_are_not_seen():
    picture = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    made = read(saved(picture, format="PNG").getvalue(), np.asarray(picture), background="#010203")
    assert (made == (1, 2, 3)).all()


def test_grey_stays_grey_and_damage_is_named():
    grey = Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8))
    expected = np.asarray(grey)[None, ..., None]
    np.testing.assert_array_equal(read(saved(grey, format="PNG").getvalue(), channels=1), expected)
    np.testing.assert_array_equal(read(expected[0], channels=1), expected)
    with pytest.raises(InvalidInputError, match="an image of toy is not an image"):
        read(b"nothing")


def test_postscript_is_never_interpreted(monkeypatch):
    def started(*arguments, **options):
        raise AssertionError("Ghostscript was started")

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", started)
    with pytest.raises(InvalidInputError, match="an image of toy is not an image"):
        read(POSTSCRIPT)
