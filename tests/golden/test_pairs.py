"""Metrics of pairs of images against values of scikit-image, which make_pairs.py wrote to pairs.json."""

import json
import pathlib

import jax.numpy as jnp
import numpy as np
import pytest

from gan_jax import metrics
from gan_jax.types import InvalidInputError
from tests.golden.make_pairs import pairs

ENTRIES = json.loads(pathlib.Path(__file__).with_name("pairs.json").read_text())["entries"]


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: f"{entry['channels']} channels")
@pytest.mark.parametrize("name", ["psnr", "ssim"])
def test_scikit_image_agrees(entry, name):
    output, target = map(jnp.asarray, pairs(entry["seed"], channels=entry["channels"]))
    found = getattr(metrics, name)(output, target)
    np.testing.assert_allclose(found, entry[name], rtol=2e-5, atol=2e-6)


def test_every_frame_of_a_clip_counts_alike():
    output, target = map(jnp.asarray, pairs(0))
    for measure in (metrics.ssim, metrics.l1):
        clip = measure(output[None], target[None])
        np.testing.assert_allclose(clip, jnp.mean(measure(output, target), keepdims=True), rtol=1e-5)


def test_the_same_image_is_the_best_there_is():
    image = jnp.asarray(pairs(0)[0])
    assert np.asarray(metrics.l1(image, image)).max() == 0 and np.isinf(metrics.psnr(image, image)).all()
    np.testing.assert_allclose(metrics.ssim(image, image), 1.0, rtol=1e-6)


def test_directions_of_features_are_compared_and_zeros_have_none():
    a, b = jnp.array([[3.0, 4.0], [1.0, 0.0], [0.0, 0.0]]), jnp.array([[6.0, 8.0], [-2.0, 0.0], [0.0, 5.0]])
    np.testing.assert_allclose(metrics.feature_distance(a, b), [0.0, 4.0, 1.0], atol=1e-6)


def test_pairs_of_other_shapes_and_images_below_the_window_are_refused():
    image = jnp.zeros((2, 12, 12, 1))
    for measure in (metrics.l1, metrics.psnr, metrics.ssim):
        with pytest.raises(InvalidInputError, match="shapes differ"):
            measure(image, image[:1])
    with pytest.raises(InvalidInputError, match="11 pixels or more"):
        metrics.ssim(image[:, :10], image[:, :10])
