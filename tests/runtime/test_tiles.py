"""Tiles: where they begin, that weights add up to 1, and that seams cannot be seen."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gan_jax.runtime import tiles


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 40), st.integers(0, 80), st.data())
def test_tiles_cover_an_axis_and_their_weights_add_up(tile, more, data):
    overlap = data.draw(st.integers(0, tile // 2))
    begins = tiles.starts(tile + more, tile, overlap)
    assert begins[0] == 0 and begins[-1] == more
    assert all(0 < distance <= tile - overlap for distance in np.diff(begins))
    total = np.zeros(tile + more)
    for begin, weight in zip(begins, tiles.weights(begins, tile), strict=True):
        assert weight.min() >= 0 and weight.max() <= 1
        total[begin : begin + tile] += weight
    assert total.min() > 0
    if len(set(np.diff(begins))) < 2:  # the last tile of another distance is made up for by `by_tiles`
        np.testing.assert_allclose(total, 1.0, atol=1e-6)


def blurred(image, radius):
    """A mean over a square, with zeros outside, as convolutions pad."""
    padded = np.pad(image, [(radius, radius), (radius, radius), (0, 0)])
    size = 2 * radius + 1
    return np.lib.stride_tricks.sliding_window_view(padded, (size, size), (0, 1)).mean((-2, -1)).astype(np.float32)


@pytest.mark.parametrize("shape", [(24, 24), (37, 61), (24, 90), (25, 24)])
@pytest.mark.parametrize("scale", [1, 2])
def test_networks_that_see_no_farther_than_a_quarter_of_the_overlap_leave_no_seam(shape, scale):
    image = np.random.default_rng(0).uniform(-1, 1, (*shape, 3)).astype(np.float32)

    def apply(x):
        return blurred(x, 2).repeat(scale, 0).repeat(scale, 1)

    told = []
    made = tiles.by_tiles(image, apply, (24, 24), (8, 8), scale, lambda done, total: told.append((done, total)))
    np.testing.assert_allclose(made, apply(image), atol=1e-5)
    assert told == [(i + 1, len(told)) for i in range(len(told))]
    if max(shape) > 40:
        narrow = tiles.by_tiles(image, apply, (24, 24), (2, 2), scale)
        assert np.abs(narrow - apply(image)).max() > 0.01


def test_steps_between_tiles_are_blended():
    """Tiles of different brightness meet in a ramp, not in a step."""
    levels = iter([0.0, 1.0])
    made = tiles.by_tiles(np.zeros((8, 24, 1), np.float32), lambda x: x + next(levels), (8, 16), (0, 8), 1)
    np.testing.assert_allclose(made[3, 7:17, 0], [0, 0, 0, 0.125, 0.375, 0.625, 0.875, 1, 1, 1])


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 20), st.integers(1, 20), st.integers(1, 50), st.integers(1, 50))
def test_padding_reflects_and_knows_where_the_picture_is(height, width, least_height, least_width):
    image = np.arange(height * width, dtype=np.float32).reshape(height, width, 1)
    made, top, left = tiles.padded(image, least_height, least_width)
    assert made.shape == (max(height, least_height), max(width, least_width), 1)
    np.testing.assert_array_equal(made[top : top + height, left : left + width], image)
    if top and height > 1:
        np.testing.assert_array_equal(made[top - 1, left : left + width], image[1])
