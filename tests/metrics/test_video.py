"""Attributes of clips against drawn clips whose attributes are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gan_jax import data, metrics
from gan_jax.types import InvalidInputError

measure = jax.jit(metrics.clip_attributes, static_argnames=("turn", "pixels"))


def squares(path, side, color, size=32):
    """Draws an antialiased square: pixels are covered by the length of their overlap, along each axis."""
    borders = np.arange(size + 1)
    along = [np.clip(np.diff(np.clip(borders, c - side / 2, c + side / 2)), 0, 1) for xy in path for c in xy]
    cover = np.stack([np.outer(y, x) for x, y in zip(along[::2], along[1::2], strict=True)])
    return 2 * cover[..., None] * np.asarray(color) - 1


@settings(max_examples=25, deadline=None)
@given(st.floats(3, 9), st.tuples(*[st.floats(0.2, 1)] * 3), st.integers(0, 2**31))
def test_a_square_at_any_place_has_its_own_side_colour_and_path(side, color, seed):
    path = np.random.default_rng(seed).uniform(6, 26, (5, 2))
    found = measure(jnp.asarray(squares(path, side, color), jnp.float32)[None])
    # pixels that are covered less than a fifth are taken for ground
    np.testing.assert_allclose(found.color[0], color, rtol=1e-3)
    assert found.color_std[0] < 1e-4 and found.visible[0] == 1
    np.testing.assert_allclose(found.side, side, atol=0.45)
    np.testing.assert_allclose(found.area, side**2, atol=0.9 * side)
    np.testing.assert_allclose(found.start[0], path[0], atol=0.25)
    np.testing.assert_allclose(found.displacement[0], path[-1] - path[0], atol=0.5)
    assert found.fill[0] > 0.89


def test_discs_are_the_most_compact_and_two_blobs_are_not():
    y, x = np.mgrid[:32, :32] + 0.5
    disc = (np.hypot(x - 12, y - 16) < 5).astype(float)
    two = disc + (np.hypot(x - 25, y - 16) < 4)
    clips = np.stack([np.stack([disc] * 3), np.stack([disc, two, two]), np.stack([disc, disc * 0, disc])])
    found = measure(jnp.asarray(2 * clips[..., None] - 1, jnp.float32))
    np.testing.assert_allclose(found.compact, [1, 1 / 3, 2 / 3], rtol=1e-6)
    np.testing.assert_allclose(found.visible, [1, 1, 2 / 3], rtol=1e-6)
    assert 0.74 < found.fill[0] < 0.82
    for values in found:
        assert np.isfinite(values).all()
    empty = measure(-jnp.ones((1, 4, 8, 8, 1)))
    assert all(np.isfinite(values).all() for values in empty) and empty.visible[0] == 0


def test_paths():
    time = np.arange(16)
    line = np.stack([8 + time, 20 - 0.5 * time], -1)
    turn = 16 + 6 * np.stack([np.cos(2 * np.pi * time / 16), np.sin(2 * np.pi * time / 16)], -1)
    bounce = np.stack([16 + 8 * np.abs((time / 4 + 0.3) % 2 - 1), np.full(16, 16.0)], -1)
    found = measure(jnp.asarray(np.stack([squares(p, 4.0, [1.0]) for p in (line, turn, bounce)]), jnp.float32))
    np.testing.assert_array_equal(metrics.motion_kinds(found, 32), [0, 2, 1])
    assert found.line[0] < 0.1 and found.circle[1] < 0.1
    second = 6 * (2 * np.pi / 16) ** 2
    assert found.smoothness[0] < 0.3 and abs(found.smoothness[1] - second) < 0.3
    np.testing.assert_allclose(found.closure[0], 7.5, atol=0.3)
    np.testing.assert_array_equal(metrics.horizontal(found)[:1], [1])
    twice = measure(jnp.asarray(squares(line, 4.0, [1.0]), jnp.float32)[None], pixels=64)
    np.testing.assert_allclose(twice.displacement, 2 * found.displacement[:1], rtol=1e-5)
    np.testing.assert_allclose(twice.area, 4 * found.area[:1], rtol=1e-5)


def test_rows_hold_all_attributes():
    found = measure(jnp.asarray(squares(np.full((4, 2), 16.0), 5.0, [0.3, 0.6, 0.9]), jnp.float32)[None])
    back = metrics.ClipAttributes.of_rows(found.rows())
    for name, one, other in zip(found._fields, found, back, strict=True):
        np.testing.assert_array_equal(one, other, err_msg=name)


def test_the_motions_of_moving_digits_are_told_in_all_clips():
    videos, truth = data.moving_digits_truth(videos=200, seed=3)
    for low in (0, 11):
        found = measure(jnp.asarray(videos[:, low : low + 16]) / 127.5 - 1)
        np.testing.assert_array_equal(metrics.motion_kinds(found, 32), truth.motion)


def test_disentanglement_and_information():
    content, motion = np.random.default_rng(0).normal(size=(2, 8, 9))
    assert metrics.disentanglement(np.repeat(content[:, :1], 9, 1)) == 1
    assert metrics.disentanglement(np.repeat(motion[:1, :], 8, 0)) == 0
    both = content[:, :1] + motion[:1, :]
    share = content[:, 0].var() / (content[:, 0].var() + motion[0].var())
    assert metrics.disentanglement(both) == pytest.approx(share)
    assert metrics.disentanglement(np.stack([both] * 3, -1)) == pytest.approx(share)
    assert np.isnan(metrics.disentanglement(np.ones((2, 2))))
    a, b = np.random.default_rng(1).integers(0, 4, (2, 4000))
    assert metrics.mutual_information(a, a) == pytest.approx(2, abs=0.01)
    assert metrics.mutual_information(a, b) == pytest.approx(9 / (2 * 4000 * np.log(2)), abs=0.003)
    assert metrics.mutual_information(a, a % 2) == pytest.approx(1, abs=0.01)
    for bad in (lambda: metrics.disentanglement(np.ones((1, 5))), lambda: metrics.mutual_information(a, b[:5])):
        with pytest.raises(InvalidInputError, match="expected"):
            bad()
    with pytest.raises(InvalidInputError, match="three frames"):
        metrics.clip_attributes(jnp.zeros((1, 2, 4, 4, 1)))
