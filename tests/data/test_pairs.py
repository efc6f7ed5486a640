"""Folders of pairs and of two domains: layouts, direction, resizing, jitter, and what is refused."""

import functools
import itertools

import jax
import numpy as np
import pytest
from PIL import Image

from gan_jax import data
from gan_jax.runtime.conditions import Conditions
from gan_jax.types import InvalidInputError
from tests.data import prepared


def picture(seed, height=12, width=16):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def save(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)


def bicubic(image, size):
    """The resizing of the papers' code: torchvision's, of a Pillow image to a square, is Pillow's own."""
    return np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC))


def batch(source, *, seed=0, step=0, size=4):
    feed = source.feed(seed, 1, size, range(size))
    sent = next(itertools.islice(feed.stream(step, 1), 1))
    made = feed.fetch(feed.data, jax.tree.map(lambda x: x[0], sent), step)
    return {name: np.asarray(x)[0] for name, x in made.items()}


@pytest.fixture
def together(tmp_path):
    for i in range(5):
        save(tmp_path / "train" / f"{i}.png", np.concatenate([picture(i), picture(100 + i)], axis=1))
    return tmp_path


def test_pairs_side_by_side(together):
    source = data.paired_folder(str(together), image_size=8)
    assert isinstance(source, data.Arrays) and len(source) == 5
    found = source.read(np.arange(5))
    for i in range(5):
        np.testing.assert_array_equal(found["a"][i], bicubic(picture(i), 8))
        np.testing.assert_array_equal(found["b"][i], bicubic(picture(100 + i), 8))
    turned = data.paired_folder(str(together), direction="BtoA", image_size=8)
    np.testing.assert_array_equal(turned.read(np.arange(5))["a"], found["b"])
    np.testing.assert_array_equal(turned.read(np.arange(5))["b"], found["a"])
    assert turned.fingerprint() != source.fingerprint()
    assert "(train, A to B)" in source.summary() and "5 not square, stretched" in source.summary()
    streamed = data.paired_folder(str(together), image_size=8, resident_bytes=0)
    assert isinstance(streamed, data.Records)
    for name, values in batch(streamed).items():
        np.testing.assert_array_equal(values, batch(source)[name])
    assert batch(source)["a"].dtype == np.float32 and batch(source)["a"].min() >= -1


def test_pairs_in_two_folders(tmp_path, together):
    """The same pairs; the endings of partners may differ."""
    for i in range(5):
        save(tmp_path / "two" / "A" / "train" / "x" / f"{i}.png", picture(i))
        save(tmp_path / "two" / "B" / "train" / "x" / f"{i}.bmp", picture(100 + i))
    apart = data.paired_folder(str(tmp_path / "two"), image_size=8)
    expected = data.paired_folder(str(together), image_size=8).read(np.arange(5))
    for name, values in apart.read(np.arange(5)).items():
        np.testing.assert_array_equal(values, expected[name])
    assert "another size" not in apart.summary()
    save(tmp_path / "two" / "B" / "train" / "x" / "2.bmp", picture(102, 20, 16))
    assert "1 whose partner has another size" in data.paired_folder(str(tmp_path / "two"), image_size=8).summary()


def test_the_jitter_is_alike_for_a_pair(tmp_path):
    """B is the negative of A, so that it stays it if both are cut and mirrored alike."""
    for i in range(6):
        save(tmp_path / "train" / f"{i}.png", np.concatenate([picture(i, 16, 16), 255 - picture(i, 16, 16)], axis=1))
    source = data.paired_folder(str(tmp_path), image_size=8, load_size=12)
    assert source.spec["a"].shape == (8, 8, 3)
    loaded = data.paired_folder(str(tmp_path), image_size=12).read(np.arange(6))["a"]
    views = {
        (top, left, mirrored): view[:, top : top + 8, left : left + 8]
        for mirrored, view in ((False, loaded), (True, loaded[:, :, ::-1]))
        for top, left in itertools.product(range(5), range(5))
    }
    seen = set()
    for step in range(8):
        made = batch(source, step=step)
        pixels = np.rint((made["a"] + 1) * 127.5).astype(np.uint8)
        # Pillow clips what bicubic interpolation takes beyond 0 and 255: by at most half a level otherwise
        assert np.abs(made["a"] + made["b"]).max() < 1.1 / 127.5
        for image in pixels:
            found = [place for place, view in views.items() if (view == image).all((1, 2, 3)).any()]
            assert len(found) == 1
            seen.add(found[0])
    assert {place[2] for place in seen} == {False, True} and len({place[:2] for place in seen}) > 8
    np.testing.assert_array_equal(batch(source, step=5)["a"], batch(source, step=5)["a"])
    upright = data.paired_folder(str(tmp_path), image_size=12, load_size=12, mirror=False)
    order = np.rint((batch(upright)["a"] + 1) * 127.5).astype(np.uint8)
    assert all((loaded == image).all((1, 2, 3)).any() for image in order)


def test_metrics_and_grids_take_a_folder_without_jitter(together):
    pairs = data.paired_folder(str(together), image_size=8)
    conditions = Conditions(data.renamed(pairs, inputs="a", target="b"))
    assert conditions.has_target and conditions.read(0, 5)["inputs"].shape == (5, 8, 8, 3)
    with pytest.raises(InvalidInputError, match=r"stores 'inputs' as \(12, 12, 3\), and changes it"):
        jittered = data.paired_folder(str(together), image_size=8, load_size=12)
        Conditions(data.renamed(jittered, inputs="a", target="b"))


def test_what_is_no_folder_of_pairs_is_told(tmp_path, together):
    def refused(message, **options):
        with pytest.raises(InvalidInputError, match=message):
            data.paired_folder(**({"path": str(tmp_path), "image_size": 8} | options))

    refused("(?s)no pairs of 'val': expected val/.*A/val/ and B/val/.*it has train", split="val")
    refused("direction='A2B': expected AtoB or BtoA", direction="A2B")
    refused("load_size=7 is below image_size=8: expected", load_size=7)
    refused(r"split='\.\./x'", split="../x")
    refused("data_dir is missing", path="")
    save(tmp_path / "A" / "train" / "0.png", picture(0))
    refused("has pairs in train and in A/train: remove or rename")
    two = tmp_path / "two"
    save(two / "A" / "train" / "0.png", picture(0))
    refused("A/train' has no counterpart: expected .*B/train'", path=str(two))
    for name in ("1.png", "2.png"):
        save(two / "B" / "train" / name, picture(1))
    refused(
        r"(?s)A/train/0.png' has no partner '.*B/train/0\.\*'.*B/train/1.png' has no partner '.*A/train/1\.\*'",
        path=str(two),
    )
    save(two / "B" / "train" / "1.jpg", picture(1))
    refused("1.jpg' and .*1.png' have one name", path=str(two))
    save(tmp_path / "odd" / "train" / "0.png", picture(0, 8, 15))
    refused("0.png is 15 pixels wide: expected two images of one width", path=str(tmp_path / "odd"))
    (tmp_path / "odd" / "train" / "0.png").write_bytes(b"nothing")
    refused("0.png is not an image that can be opened", path=str(tmp_path / "odd"))


def test_segmentation_maps(tmp_path):
    """Classes are values, of grey or of a palette, whatever colours these have; crops and mirrors go with them."""
    labels = [np.random.default_rng(i).integers(0, 5, (12, 12), np.uint8) for i in range(4)]
    for i, values in enumerate(labels):
        kept = Image.fromarray(values)
        if i % 2:
            kept = kept.convert("P")
            kept.putdata(values.ravel())
            kept.putpalette([7 * x % 256 for x in range(768)])
        (tmp_path / "B" / "train").mkdir(parents=True, exist_ok=True)
        kept.save(tmp_path / "B" / "train" / f"{i}.png")
        save(tmp_path / "A" / "train" / f"{i}.png", np.repeat(values[..., None] * 50, 3, -1))
    read = functools.partial(data.paired_folder, str(tmp_path), direction="BtoA", classes=5)
    pairs = read(image_size=12)
    np.testing.assert_array_equal(pairs.read(np.arange(4))["a"], labels)
    assert pairs.spec["a"].shape == (12, 12) and pairs.spec["a"].dtype == np.int32
    small = read(image_size=6).read(np.arange(4))
    np.testing.assert_array_equal(small["a"], np.stack(labels)[:, 1::2, 1::2])  # no value between two classes
    for step in range(4):
        made = batch(read(image_size=8, load_size=12), step=step)
        assert made["a"].shape == (4, 8, 8)
        np.testing.assert_array_equal(np.rint((made["b"][..., 0] + 1) * 127.5), made["a"] * 50)
    with pytest.raises(InvalidInputError, match=r"0.png has values from 0 to 4: expected classes from 0 to 3"):
        read(image_size=12, classes=4)
    with pytest.raises(InvalidInputError, match=r"0.png has mode RGB: expected a map of classes"):
        read(image_size=12, direction="AtoB")
    with pytest.raises(InvalidInputError, match="classes=1 with pairs in two folders: expected 2 or more"):
        read(image_size=12, classes=1)


@pytest.fixture
def domains(tmp_path):
    for seed, (part, count) in enumerate((("trainA", 7), ("trainB", 3), ("testA", 2), ("testB", 1))):
        for i in range(count):
            save(tmp_path / part / f"{i}.png", picture(100 * seed + i))
    return tmp_path


def test_two_domains_are_drawn_independently(domains):
    source = data.unpaired_folder(str(domains), image_size=8)
    assert len(source) == 7 and set(source.spec) == {"a", "b"}  # the larger one defines an epoch
    partners = set()
    for step in range(12):
        made = batch(source, step=step)
        partners |= {(a.tobytes(), b.tobytes()) for a, b in zip(made["a"], made["b"], strict=True)}
    assert len({a for a, _ in partners}) == 7 and len({b for _, b in partners}) == 3 and len(partners) > 15
    swapped = data.unpaired_folder(str(domains), direction="BtoA", image_size=8)
    np.testing.assert_array_equal(swapped.sources["a"].arrays["real"], source.sources["b"].arrays["real"])
    held_out = data.unpaired_folder(str(domains), "test", image_size=8).sources["a"]
    assert len(Conditions(data.renamed(held_out, inputs="real"))) == 2
    with pytest.raises(InvalidInputError, match=r"no folder valA and no valB: .*it has testA, testB, trainA, trainB"):
        data.unpaired_folder(str(domains), "val")


def test_two_domains_are_jittered_independently(tmp_path):
    """Both folders have one and the same image, which would come out equal if both were cut and mirrored alike."""
    for part in ("trainA", "trainB"):
        save(tmp_path / part / "0.png", picture(3, 16, 16))
    source = data.unpaired_folder(str(tmp_path), image_size=8, load_size=14)
    made = batch(source, size=16)
    assert made["a"].shape == (16, 8, 8, 3)
    equal = [np.array_equal(a, b) for a, b in zip(made["a"], made["b"], strict=True)]
    assert sum(equal) < 4 and len({a.tobytes() for a in made["a"]}) > 10


def test_cycle_gan_of_tfds(tmp_path):
    splits = {"trainA": [picture(i) for i in range(3)], "trainB": [picture(10, 9, 30), picture(11)]}
    splits |= {"testA": [picture(20)], "testB": [picture(30)]}
    root = prepared.cycle_gan(tmp_path, splits)
    source = data.unpaired_tfds("cycle_gan/toy", data_dir=root, image_size=8)
    assert len(source) == 3 and batch(source)["a"].shape == (4, 8, 8, 3)
    for name, split in (("a", "trainA"), ("b", "trainB")):
        expected = np.stack([bicubic(image, 8) for image in splits[split]])
        np.testing.assert_array_equal(source.sources[name].arrays["real"], expected)
    other = data.unpaired_tfds("cycle_gan/toy", "test", data_dir=root, direction="BtoA", image_size=8, load_size=9)
    np.testing.assert_array_equal(other.sources["a"].read(np.zeros(1, int))["real"][0], bicubic(picture(30), 9))
    with pytest.raises(InvalidInputError, match="split='valA'"):
        data.unpaired_tfds("cycle_gan/toy", "val", data_dir=root)
