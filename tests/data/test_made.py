"""Pairs that are made of single images, and the default data for translation."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
from PIL import Image

from gan_jax import data
from gan_jax.runtime.conditions import Conditions
from gan_jax.types import InvalidInputError

KEY = jax.random.key(3)
IMAGES = np.random.default_rng(0).integers(0, 256, (6, 16, 16, 3), np.uint8)
COLOUR = data.Arrays("colour", {"real": IMAGES})
IMAGE = (IMAGES[0] / 127.5 - 1).astype(np.float32)


def batch(source, *, seed=0, step=0, size=4):
    feed = source.feed(seed, 1, size, range(size))
    sent = next(itertools.islice(feed.stream(step, 1), 1))
    made = feed.fetch(feed.data, jax.tree.map(lambda x: x[0], sent), step)
    return {name: np.asarray(x)[0] for name, x in made.items()}


def test_grey_is_that_of_pillow():
    grey = np.asarray(Image.fromarray(IMAGES[0]).convert("L"))
    found = (np.asarray(data.Colourisation()(KEY, IMAGE))[..., 0] + 1) * 127.5
    assert np.abs(found - grey).max() < 1.0  # Pillow rounds down
    np.testing.assert_array_equal(data.luma(IMAGE[..., :1]), IMAGE[..., :1])
    with pytest.raises(InvalidInputError, match="expected 1 channel"):
        data.luma(IMAGE[..., :2])


def test_edges_are_those_of_sobel():
    """SciPy's filter is 8 times the derivative."""
    grey = np.asarray(data.luma(jnp.asarray(IMAGE)))[..., 0]
    length = np.hypot(*(scipy.ndimage.sobel(grey, axis, mode="nearest") / 8 for axis in (0, 1)))
    found = data.EdgesToImage(0.5)(KEY, IMAGE)
    np.testing.assert_allclose(found[..., 0], 1 - 2 * np.minimum(1, length / 0.5), atol=1e-5)
    ramp = jnp.broadcast_to(jnp.linspace(-1, 1, 17)[:, None, None], (17, 9, 1))  # 1/8 per pixel inside
    np.testing.assert_allclose(data.EdgesToImage(0.25)(KEY, ramp)[1:-1], 0.0, atol=1e-6)
    assert float(jnp.min(data.EdgesToImage()(KEY, jnp.zeros((8, 8, 3))))) == 1.0  # no edge: white


def test_holes():
    make = data.Inpainting(0.25)
    places = set()
    for i in range(30):
        made = np.asarray(make(jax.random.key(i), IMAGE))
        hole = (made == 0).all(-1)
        rows, columns = np.flatnonzero(hole.any(1)), np.flatnonzero(hole.any(0))
        assert hole.sum() == 16 and len(rows) == len(columns) == 4
        np.testing.assert_array_equal(made[~hole], IMAGE[~hole])
        places.add((rows[0], columns[0]))
    assert len(places) > 15 and {0, 12} & {row for row, _ in places}
    middle = np.asarray(data.Inpainting(0.5, centered=True)(KEY, IMAGE))
    assert (middle[4:12, 4:12] == 0).all() and (middle == 0).all(-1).sum() == 64


def test_low_resolution_loses_what_is_finer():
    make = data.SuperResolution(4)
    flat = np.full((16, 16, 3), 0.3, np.float32)
    np.testing.assert_allclose(make(KEY, flat), flat, atol=1e-5)
    checks = np.indices((16, 16)).sum(0)[..., None] % 2 * 2.0 - 1
    assert np.abs(make(KEY, checks)).max() < 0.2
    slope = np.broadcast_to(np.linspace(-0.5, 0.5, 64)[:, None, None], (64, 8, 1))
    np.testing.assert_allclose(make(KEY, slope)[16:-16], slope[16:-16], atol=0.01)
    with pytest.raises(InvalidInputError, match="factor=5 does not divide 16x16"):
        data.SuperResolution(5)(KEY, IMAGE)


def test_noise():
    grey = jnp.zeros((64, 64, 3))
    noise = np.asarray(data.Denoising(0.1)(KEY, grey))
    assert abs(noise.std() - 0.1) < 0.003 and abs(noise.mean()) < 0.003
    assert np.abs(data.Denoising(5.0)(KEY, grey)).max() == 1.0


@pytest.mark.parametrize(
    ("make", "channels"),
    [
        (data.Colourisation(), 1),
        (data.EdgesToImage(), 1),
        (data.Inpainting(), 3),
        (data.SuperResolution(2), 3),
        (data.Denoising(), 3),
    ],
)
def test_pairs_made_in_the_step_and_read(make, channels):
    source = data.made_pairs(COLOUR, make)
    assert source.spec["a"].shape == (16, 16, channels) and repr(make) in source.summary()
    made, plain = batch(source), batch(COLOUR)["real"]
    np.testing.assert_array_equal(made["b"], plain)
    np.testing.assert_array_equal(batch(source)["a"], made["a"])
    assert np.abs(made["a"]).max() <= 1 + 1e-6
    read = source.read(np.array([4, 1]))
    np.testing.assert_array_equal(read["b"], IMAGES[[4, 1]])
    # what is read depends on the index alone
    np.testing.assert_array_equal(read["a"][1], source.read(np.array([1, 2, 3]))["a"][0])
    conditions = Conditions(data.renamed(source, inputs="a", target="b"))
    assert conditions.read(0, 6)["inputs"].shape == (6, 16, 16, channels)


def test_randomness_of_made_pairs():
    """New for each step and each example in training; fixed where pairs are read."""
    source = data.made_pairs(data.Arrays("flat", {"real": np.full((4, 8, 8, 3), 128, np.uint8)}), data.Denoising())
    first, second = batch(source)["a"], batch(source, step=1)["a"]
    assert len({x.tobytes() for x in (*first, *second, *source.read(np.arange(4))["a"])}) == 12
    assert not np.array_equal(batch(source, seed=1)["a"], first)
    cut = data.transformed(data.made_pairs(COLOUR, data.Colourisation()), data.crop(8), data.flip())
    made = batch(cut)
    np.testing.assert_allclose(made["a"], data.luma(jnp.asarray(made["b"])), atol=1e-5)
    crops = batch(data.made_pairs(data.transformed(COLOUR, data.crop(8)), data.Denoising()))
    assert crops["a"].shape == (4, 8, 8, 3)


def test_the_function_is_part_of_the_fingerprint():
    prints = {data.made_pairs(COLOUR, make).fingerprint() for make in (data.Denoising(0.1), data.Denoising(0.2))}
    assert len(prints) == 2 and data.made_pairs(COLOUR, data.Denoising(0.1)).fingerprint() in prints
    labelled = data.Arrays("x", {"real": IMAGES, "label": np.arange(6) % 2}, 2)
    made = data.made_pairs(labelled, data.Colourisation())
    assert made.num_classes == 2 and set(batch(made)) == {"a", "b", "label"} == set(made.read(np.arange(2)))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: data.made_pairs(data.ring(), data.Denoising()), "expected images 'real'"),
        (lambda: data.Denoising(0), "std=0"),
        (lambda: data.Inpainting(1.0), "share=1.0"),
        (lambda: data.SuperResolution(1), "factor=1"),
        (lambda: data.EdgesToImage(0.0), "steepness=0.0"),
        (lambda: data.photographs("val"), "part='val': expected train or test"),
        (lambda: data.photographs(image_size=129), "image_size=129: expected 1 to 128"),
        (lambda: data.turned_digits(COLOUR), "expected grey uint8 digits"),
    ],
)
def test_what_makes_no_pairs_is_told(wrong, message):
    with pytest.raises(InvalidInputError, match=message):
        wrong()


def test_patches_of_photographs_hold_out_a_band():
    from sklearn.datasets import load_sample_images

    train, test = data.photographs("train"), data.photographs("test", labels=True)
    assert (len(train), len(test)) == (4600, 230) and test.num_classes == 2
    assert np.bincount(test.arrays["label"]).tolist() == [115, 115]
    expected = {
        (label, photo[top : top + 64, left : left + 64].tobytes())
        for label, photo in enumerate(load_sample_images().images)
        for top in range(0, 427 - 63, 16)
        for left in range(256, 384 - 63, 16)
    }
    found = list(zip(test.arrays["label"].tolist(), (x.tobytes() for x in test.arrays["real"]), strict=True))
    assert len(found) == len(expected) and set(found) == expected
    assert 2 <= test.arrays["label"][:8].sum() <= 6, "the first ones, which grids show, are of one photograph"
    # Each column of a photograph is unlike any other: none of the band is in a patch to train on.
    rows = {patch[:, column].tobytes() for patch in train.arrays["real"] for column in range(64)}
    band = {patch[:, column].tobytes() for patch in test.arrays["real"] for column in range(64)}
    assert not rows & band


def test_turned_digits_are_disjoint_and_their_truth_is_known():
    strokes = np.zeros((6, 4, 4, 1), np.uint8)
    strokes[:, 0, 1, 0] = 255 - np.arange(6)  # one pixel, in the top row, by which the digit is known
    digits = data.Arrays("digits", {"real": strokes, "label": np.arange(6)}, 6)
    source = data.turned_digits(digits, 6)
    a, b = (source.sources[name].arrays["real"] for name in "ab")
    assert a.shape == b.shape == (3, 6, 6, 3) and source.num_classes is None
    np.testing.assert_array_equal(a[:, 1, 2], np.repeat([[255], [254], [253]], 3, 1))
    # turned left by 90 degrees, the pixel at row 1, column 2 comes to row 3, column 1
    paper, ink = (255, 200, 80), (40, 30, 160)
    expected = [np.rint(np.array(paper) * (1 - v / 255) + np.array(ink) * v / 255) for v in (252, 251, 250)]
    np.testing.assert_array_equal(b[:, 3, 1], expected)
    assert (np.delete(b.reshape(3, 36, 3), 19, axis=1) == paper).all()
    pairs = data.turned_digit_pairs(digits, 6)
    np.testing.assert_array_equal(pairs.arrays["b"][3:], b)
    assert pairs.num_classes == 6 and pairs.arrays["label"].tolist() == list(range(6))
    conditions = Conditions(data.renamed(pairs, inputs="a", target="b", label="label"))
    assert conditions.has_target
    upright = data.turned_digit_pairs(digits, 6, turns=0)
    np.testing.assert_array_equal(np.rot90(upright.arrays["b"], axes=(1, 2)), pairs.arrays["b"])
    source = data.turned_digits(digits, 6, turns=0)
    np.testing.assert_array_equal(source.sources["b"].arrays["real"], upright.arrays["b"][3:])
