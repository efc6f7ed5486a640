"""The order of examples, feeds, and every data source on real files."""

import itertools
import json
import pathlib

import jax
import numpy as np
import pytest
from PIL import Image

from gan_jax import data
from gan_jax.data import order
from gan_jax.types import InvalidInputError


def test_every_example_once_an_epoch_in_a_new_order():
    epochs = order.indices(7, np.arange(30).reshape(3, 10), 10)
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3
    assert not np.array_equal(order.permutation(7, 0, 10), order.permutation(8, 0, 10))


def test_the_order_never_changes():
    """The order is pinned, because another one would break every run that resumes under a newer version."""
    assert order.indices(0, np.arange(8), 8).tolist() == order.permutation(0, 0, 8).tolist()
    assert order.permutation(0, 0, 8).tolist() == FROZEN_0
    assert order.permutation(1, 2, 8).tolist() == FROZEN_1


FROZEN_0 = [0, 2, 1, 5, 4, 3, 6, 7]
FROZEN_1 = [4, 2, 0, 6, 1, 5, 7, 3]


def take(source, start, count, local_indices=range(12), seed=5, draws=2, length=2):
    feed = source.feed(seed, draws, 12, local_indices)
    return [
        jax.tree.map(np.asarray, feed.fetch(feed.data, jax.tree.map(lambda x, i=i: x[i], sent), start + n * length + i))
        for n, sent in enumerate(itertools.islice(feed.stream(start, length), count))
        for i in range(length)
    ]


class Squares:
    """A reader like that of a data set on disk, in which image i is filled with i."""

    def __len__(self):
        return 31

    def read(self, indices):
        return {"real": np.broadcast_to(np.asarray(indices, np.uint8)[:, None, None, None], (len(indices), 2, 2, 1))}


SOURCES = {
    "arrays": data.Arrays("squares", Squares().read(np.arange(31))),
    "records": data.Records("squares", Squares()),
}


@pytest.mark.parametrize("name", sorted(SOURCES))
def test_a_batch_is_a_function_of_seed_and_step_on_any_number_of_hosts(name):
    source = SOURCES[name]
    whole = take(source, 0, 3)
    assert whole[0]["real"].shape == (2, 12, 2, 2, 1) and whole[0]["real"].dtype == np.float32
    resumed = take(source, 2, 2)
    for a, b in zip(whole[2:], resumed, strict=True):
        np.testing.assert_array_equal(a["real"], b["real"])
    halves = [take(source, 0, 3, local_indices) for local_indices in (range(6), range(6, 12))]
    for step, batch in enumerate(whole):
        joined = np.concatenate([half[step]["real"] for half in halves], axis=1)
        np.testing.assert_array_equal(joined, batch["real"])
    assert not np.array_equal(whole[0]["real"], take(source, 0, 1, seed=6)[0]["real"])


def test_streamed_and_resident_give_the_same_batches():
    for a, b in zip(take(SOURCES["arrays"], 4, 2), take(SOURCES["records"], 4, 2), strict=True):
        np.testing.assert_array_equal(a["real"], b["real"])


@pytest.mark.parametrize("reader", [np.zeros((8, 2)), {"real": np.zeros((8, 2))}, None])
def test_records_of_no_reader_are_refused(reader):
    with pytest.raises(InvalidInputError, match=r"x: reader is \w+: expected an object with .*data\.Arrays"):
        data.Records("x", reader)


@pytest.mark.parametrize("make", [lambda x: data.Arrays("x", x), lambda x: data.Records("x", Held(x))])
def test_the_fingerprint_is_of_the_content(make):
    images = np.arange(24, dtype=np.uint8).reshape(6, 2, 2, 1)
    changed = images.copy()
    changed[5, 1, 1, 0] ^= 1
    others = [changed, images[::-1], images[:5], images.reshape(6, 4, 1, 1), images / np.float32(24)]
    prints = [make({"real": x}).fingerprint() for x in (images, *others)]
    assert len(set(prints)) == len(prints)
    assert make({"real": images.copy()}).fingerprint() == prints[0]


class Held:
    """A reader like that of a data set on disk, over arrays in memory."""

    def __init__(self, arrays):
        self.arrays = arrays

    def __len__(self):
        return len(self.arrays["real"])

    def read(self, indices):
        return {name: values[indices] for name, values in self.arrays.items()}


def test_images_are_in_minus_one_to_one():
    ends = data.Arrays("ends", {"real": np.array([0, 255] * 12, np.uint8).reshape(24, 1, 1, 1)})
    assert set(np.unique(take(ends, 0, 1)[0]["real"])) == {-1.0, 1.0}
    assert ends.spec["real"].dtype == np.float32


def test_draws_are_a_function_of_seed_and_step():
    ring = data.ring()

    def at(seed, step):
        feed = ring.feed(seed, 2, 64, range(64))
        return np.asarray(feed.fetch(feed.data, next(feed.stream(step, 1)), step)["real"])

    assert at(0, 3).shape == (2, 64, 2)
    np.testing.assert_array_equal(at(0, 3), at(0, 3))
    assert not np.array_equal(at(0, 3), at(0, 4)) and not np.array_equal(at(0, 3), at(1, 3))
    assert not np.array_equal(*at(0, 3))


@pytest.mark.parametrize(("mixture", "modes", "extent"), [(data.ring(), 8, 1.0), (data.grid(), 25, 4.0)])
def test_mixtures_lie_on_their_modes(mixture, modes, extent):
    x = np.asarray(mixture.draw(jax.random.key(0), 20_000)["real"])
    distance = np.linalg.norm(x[:, None] - mixture.centers, axis=-1)
    nearest = np.bincount(distance.argmin(1), minlength=modes)
    assert len(mixture.centers) == modes and np.abs(mixture.centers).max() == pytest.approx(extent)
    assert nearest.min() > 0.8 * 20_000 / modes
    assert np.sqrt((distance.min(1) ** 2).mean() / 2) == pytest.approx(mixture.std, rel=0.05)


def test_digits():
    source = data.digits(labels=True)
    assert source.size == 1797 and source.spec["real"].shape == (8, 8, 1) and source.num_classes == 10
    assert source.arrays["real"].min() == -1.0 and source.arrays["real"].max() == 1.0
    summary = source.summary()
    assert all(part in summary for part in ("1,797", "(8, 8, 1)", "from -1 to 1", "0:178"))
    assert "no labels" in data.digits(labels=False).summary()


def folder(root: pathlib.Path, classes=("cat", "dog"), count=3) -> pathlib.Path:
    rng = np.random.default_rng(0)
    for name in classes:
        (root / name).mkdir(parents=True)
        for i in range(count):
            Image.fromarray(rng.integers(0, 256, (20 + i, 30, 3), np.uint8)).save(root / name / f"{i}.png")
    return root


def test_image_folder(tmp_path):
    root = folder(tmp_path / "pets")
    source = data.image_folder(str(root), image_size=16, labels=True)
    assert source.size == 6 and source.num_classes == 2 and source.arrays["label"].tolist() == [0] * 3 + [1] * 3
    assert source.arrays["real"].shape == (6, 16, 16, 3)
    grey = data.image_folder(str(root), image_size=8, labels=False, channels=1, resident_bytes=0)
    assert isinstance(grey, data.Records) and grey.spec["real"].shape == (8, 8, 1) and set(grey.spec) == {"real"}
    assert "streamed" in grey.summary()


def test_an_image_keeps_its_centre_and_proportions(tmp_path):
    wide = np.zeros((10, 30, 3), np.uint8)
    wide[:, 10:20] = 255
    Image.fromarray(wide).save(tmp_path / "wide.png")
    source = data.image_folder(str(tmp_path), image_size=10, labels=False)
    assert source.arrays["real"].min() == 255


def test_a_photograph_of_a_camera_that_was_turned_stands_upright(tmp_path):
    """With Exif orientation 6, the first stored row is the right-hand side, and the first stored column the top."""
    stored = np.zeros((24, 24, 3), np.uint8)
    stored[:12, :12] = 255
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(stored).save(tmp_path / "photograph.jpg", quality=95, exif=exif)
    [image] = data.image_folder(str(tmp_path), image_size=24, labels=False, channels=1).arrays["real"][..., 0]
    upright = np.zeros((24, 24), bool)
    upright[:12, 12:] = True
    assert (image[upright] > 200).all() and (image[~upright] < 55).all()


def test_sixteen_bits_of_grey_become_eight(tmp_path):
    """Each of the 256 values comes from equally many of the 65,536."""
    Image.fromarray(np.arange(2**16, dtype=np.uint16).reshape(256, 256)).save(tmp_path / "x_ray.png")
    for channels in (1, 3):
        source = data.image_folder(str(tmp_path), image_size=256, labels=False, channels=channels)
        expected = np.broadcast_to((np.arange(2**16) // 256).reshape(1, 256, 256, 1), (1, 256, 256, channels))
        np.testing.assert_array_equal(source.arrays["real"], expected)


@pytest.mark.parametrize(
    ("break_it", "options", "message"),
    [
        (lambda root: (root / "cat" / "0.png").write_bytes(b"not an image"), {}, "0.png is not an image"),
        (lambda root: _truncate(root / "cat" / "1.png"), {}, "1.png is corrupt"),
        (lambda root: Image.new("RGB", (9, 9)).save(root / "stray.png"), {"labels": True}, "1 images outside"),
        (lambda root: (root / "cat" / "0.ppm").write_bytes(b"P6 " + b"9" * 99), {}, "0.ppm is not an image"),
        (lambda root: None, {"channels": 2}, "channels=2"),
        (lambda root: None, {"image_size": 0}, "image_size=0"),
    ],
)
def test_image_folders_that_are_refused(tmp_path, break_it, options, message):
    root = folder(tmp_path / "pets")
    break_it(root)
    with pytest.raises(InvalidInputError, match=message):
        data.image_folder(str(root), **({"labels": False, "image_size": 8} | options))


def _truncate(path: pathlib.Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def test_missing_and_empty_folders(tmp_path):
    with pytest.raises(InvalidInputError, match="does not exist"):
        data.image_folder(str(tmp_path / "none"), image_size=8, labels=False)
    with pytest.raises(InvalidInputError, match="data_dir is missing"):  # it is not the current directory
        data.image_folder("", image_size=8, labels=False)
    with pytest.raises(InvalidInputError, match="has no image"):
        data.image_folder(str(tmp_path), image_size=8, labels=False)


def test_labels_must_fit_the_classes():
    images = np.zeros((2, 2, 2, 1), np.uint8)
    with pytest.raises(InvalidInputError, match="labels from 0 to 5"):
        data.Arrays("x", {"real": images, "label": np.array([0, 5])}, 3)
    with pytest.raises(InvalidInputError, match="one integer per example"):
        data.Arrays("x", {"real": images, "label": np.array([0.0, 1.0])}, 3)
    with pytest.raises(InvalidInputError, match="without labels"):
        data.Arrays("x", {"real": images}, 3)


def test_labels_are_integers_of_whatever_width():
    """MNIST's labels are uint8, as images are."""
    source = data.Arrays("x", {"real": np.zeros((4, 2), np.uint8), "label": np.arange(4).astype(np.uint8)}, 4)
    batch = take(source, 0, 1)[0]
    assert batch["label"].dtype == np.int32 and sorted(batch["label"].ravel().tolist())[-1] == 3
    assert source.spec["label"].dtype == np.int32 and source.spec["real"].dtype == np.float32


def test_tfds_on_real_files(tfds_dir):
    source = data.tfds_images("mnist", data_dir=tfds_dir, labels=True, split="test[:256]")
    assert isinstance(source, data.Arrays) and source.size == 256 and source.num_classes == 10
    assert source.arrays["real"].shape == (256, 28, 28, 1) and source.arrays["label"][:3].tolist() == TEST_LABELS
    streamed = data.tfds_images("mnist", data_dir=tfds_dir, labels=True, split="test[:256]", resident_bytes=0)
    for a, b in zip(take(source, 0, 1), take(streamed, 0, 1), strict=True):
        np.testing.assert_array_equal(a["real"], b["real"])
        np.testing.assert_array_equal(a["label"], b["label"])
    small = data.tfds_images(
        "cifar10_jpeg:1.0.0", data_dir=tfds_dir, labels=False, split="train[:8]", image_size=16, channels=1
    )
    assert small.arrays["real"].shape == (8, 16, 16, 1)


TEST_LABELS = [2, 0, 4]


def test_the_newest_of_several_prepared_versions_is_read_unless_one_is_named(tmp_path):
    """They are stored as TFRecord, so that the error says which one was chosen. `nightly` is no version number."""
    for version in ("3.9.0", "3.10.0", "nightly"):
        directory = tmp_path / "toy" / version
        directory.mkdir(parents=True)
        info = {"name": "toy", "version": version, "fileFormat": "tfrecord"}
        features = "tensorflow_datasets.core.features.features_dict.FeaturesDict"
        (directory / "dataset_info.json").write_text(json.dumps(info))
        (directory / "features.json").write_text(json.dumps({"pythonClassName": features, "featuresDict": {}}))
    for name, version in (("toy", "3.10.0"), ("toy:3.9.0", "3.9.0")):
        with pytest.raises(InvalidInputError, match=f"toy/{version} is stored as tfrecord"):
            data.tfds_images(name, data_dir=str(tmp_path), labels=False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "mnits"}, "no TFDS data set 'mnits'.*'mnist'.*tfds.builder\\('mnits'"),
        ({"name": "mnist:9.9.9"}, "no TFDS data set 'mnist:9.9.9'"),
        ({"split": "validation"}, "split='validation': 'mnist' has \\['test', 'train'\\]"),
        ({"label_key": "digit"}, "no feature \\['digit'\\].*labels=False"),
        ({"channels": 2}, "channels=2"),
        ({"data_dir": ""}, "data_dir is missing"),
        ({"data_dir": "/nonexistent"}, "data_dir='/nonexistent' does not exist"),
    ],
)
def test_tfds_requests_that_are_refused(tfds_dir, arguments, message):
    with pytest.raises(InvalidInputError, match=message):
        data.tfds_images(**({"name": "mnist", "data_dir": tfds_dir, "labels": True} | arguments))


def test_values_that_a_game_would_misread_are_refused():
    image = np.zeros((6, 8, 8, 3), np.float32)
    broken = image.copy()
    broken[4, 0, 0, 0] = np.nan
    for values, message in (
        (broken, "is not finite in 1 examples, the first of them 4"),
        (np.full((6, 2), np.inf), "is not finite in 6 examples"),
        (np.moveaxis(image, -1, 1), r"has examples \(3, 8, 8\), channels first"),
        (image.astype(np.int64) + 255, "is int64, from 255 to 255: expected uint8"),
        (image + 255, "goes from 255 to 255: expected floats in"),
        (np.zeros((2, 5, 3, 8, 8), np.uint8), "channels first"),
    ):
        with pytest.raises(InvalidInputError, match=message):
            data.Arrays("x", {"real": values})
        if values is not broken:
            with pytest.raises(InvalidInputError, match=message):
                data.Records("x", Held({"real": values})).summary()
    data.Arrays("x", {"real": image - 1, "points": np.full((6, 2), 100.0), "map": np.zeros((6, 8, 8), np.int32)})


def test_class_names_are_in_the_summary():
    labels = np.array([0, 1, 1], np.int32)
    named = data.Arrays("x", {"real": np.zeros((3, 2)), "label": labels}, 2, ("cat", "dog"))
    assert "labels, 2 classes: 0 cat:1, 1 dog:2" in named.summary()
    assert data.transformed(named).class_names == data.renamed(named, real="real", label="label").class_names
    for names in (("cat",), ("cat", "cat")):
        with pytest.raises(InvalidInputError, match="1 different class names for num_classes=2"):
            data.Arrays("x", {"real": np.zeros((3, 2)), "label": labels}, 2, names)
    with pytest.raises(InvalidInputError, match="class_names='ab': expected a tuple of names"):
        data.Arrays("x", {"real": np.zeros((3, 2)), "label": labels}, 2, "ab")


def test_renamed_arrays():
    pairs = data.zip_sources(a=SOURCES["arrays"], b=data.Arrays("y", {"real": 255 - SOURCES["arrays"].arrays["real"]}))
    made = data.renamed(pairs, inputs="a", target="b")
    assert set(made.spec) == {"inputs", "target"} and len(made) == len(pairs) and made.num_classes is None
    batch, before = take(made, 0, 1)[0], take(pairs, 0, 1)[0]
    np.testing.assert_array_equal(batch["target"], before["b"])
    assert made.fingerprint() not in (pairs.fingerprint(), data.renamed(pairs, inputs="b", target="a").fingerprint())
    with pytest.raises(InvalidInputError, match="has a, b"):
        data.renamed(pairs, inputs="real")
