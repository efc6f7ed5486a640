"""Closed forms and invariants of the bottlenecks of tokenizers."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gan_jax import ops
from gan_jax.types import InvalidInputError

KEY = jax.random.key(5)


@pytest.mark.parametrize("levels", [(8, 6, 5), (8, 5, 5, 5), (7, 5, 5, 5, 5), (3, 4)])
def test_finite_scalar_ids_and_codes_are_a_bijection(levels):
    ids = np.arange(np.prod(levels))
    codes = ops.finite_scalar_codes(jnp.asarray(ids), levels)
    digits = np.array(list(itertools.product(*(range(level) for level in levels[::-1]))))[:, ::-1]
    np.testing.assert_allclose(codes, (digits - np.array(levels) // 2) / (np.array(levels) // 2), atol=1e-7)
    # z of each code: the inverse of the bounding function, which only comes near to the outermost codes
    level = np.array(levels, np.float64)
    h, o = (level - 1) * (1 - 1e-3) / 2, np.where(level % 2 == 0, 0.5, 0.0)
    z = np.arctanh(np.clip((np.asarray(codes) * (level // 2) + o) / h, -0.9999, 0.9999)) - np.arctanh(o / h)
    found = ops.finite_scalar_quantize(jnp.asarray(z, jnp.float32), levels)
    np.testing.assert_array_equal(found.ids, ids)
    np.testing.assert_array_equal(found.codes, codes)


def test_finite_scalar_zero_stays_zero_and_extremes_are_the_last_levels():
    def bounded(z, level, shift):
        h, o = (level - 1) * (1 - 1e-3) / 2, 0.5
        return np.tanh(z + shift(o / h)) * h - o

    assert bounded(0.0, 8, np.arctanh) == pytest.approx(0.0, abs=1e-12)
    assert abs(bounded(0.0, 4, np.tan)) > 1e-4  # the shift of the public copies
    for level in (3, 4, 5, 8):
        ends = ops.finite_scalar_quantize(jnp.array([[-50.0], [0.0], [50.0]]), (level,))
        np.testing.assert_array_equal(ends.ids, [0, level // 2, level - 1])


def test_lookup_free_ids_and_codes_are_a_bijection():
    ids = jnp.arange(2**7)
    codes = ops.lookup_free_codes(ids, 7)
    np.testing.assert_array_equal(ops.lookup_free_quantize(3.0 * codes).ids, ids)
    assert int(ops.lookup_free_quantize(jnp.zeros((1, 7))).ids[0]) == 0  # 0 counts as -1


@pytest.mark.parametrize("group", [2, 5])
def test_lookup_free_entropy_is_that_of_the_softmax_over_all_codes(group):
    bits, temperature = 5, 1.3
    z = jax.random.normal(KEY, (6, 4, bits))
    codes = ops.lookup_free_codes(jnp.arange(2**bits), bits)
    p = jax.nn.softmax(2 * z @ codes.T / temperature)
    each = -jnp.sum(p * jnp.log(p), -1)
    mean = jnp.mean(p, (0, 1)).reshape((2,) * bits)  # the last bit is the first axis
    parts = [range(low, min(low + group, bits)) for low in range(0, bits, group)]
    total = 0.0
    for part in parts:
        others = tuple(bits - 1 - i for i in range(bits) if i not in part)
        q = jnp.sum(mean, others)
        total += -jnp.sum(q * jnp.log(q))
    found = ops.lookup_free_quantize(z, temperature=temperature, group=group).losses["entropy"]
    np.testing.assert_allclose(found, each - total, atol=2e-5)
    exact = ops.lookup_free_quantize(z, temperature=temperature, group=bits).losses["entropy"]
    assert bool(jnp.all(found <= exact + 1e-5))  # groups add up to an upper bound of the entropy of the mean


def test_vector_entropy_at_its_extremes():
    """It is lowest, -log k, for sure choices of all codes equally often; 0 where nothing is known."""
    codes = 10.0 * jnp.eye(4)
    sure = ops.vector_quantize(codes, codes, temperature=0.01).losses["entropy"]
    np.testing.assert_allclose(sure, -np.log(4), rtol=1e-6)
    unsure = ops.vector_quantize(jnp.zeros((3, 4)), codes, temperature=0.01).losses["entropy"]
    np.testing.assert_allclose(unsure, 0.0, atol=1e-5)
    alone = ops.vector_quantize(jnp.zeros((3, 4)), codes, temperature=0.01, diversity=0.0).losses["entropy"]
    np.testing.assert_allclose(alone, np.log(4), rtol=1e-6)


def test_normalized_codes_are_chosen_by_angle():
    found = ops.vector_quantize(jnp.array([[5.0, 1.0]]), jnp.array([[0.1, 0.0], [4.0, 4.0]]), normalize=True)
    np.testing.assert_array_equal(found.ids, [0])
    np.testing.assert_allclose(found.codes, [[1.0, 0.0]], rtol=1e-6)


def test_codes_in_half_precision_are_those_of_the_ids():
    z = jax.random.normal(KEY, (64, 4), jnp.bfloat16) * 3
    codes = jax.random.normal(jax.random.key(1), (16, 4))
    found = ops.vector_quantize(z, codes)
    assert found.codes.dtype == jnp.bfloat16
    np.testing.assert_array_equal(found.codes, codes[found.ids].astype(jnp.bfloat16))


def test_gaussian_kl_and_noise():
    moments = jnp.array([[[1.0, np.log(4.0)], [0.0, 0.0]]])
    found = ops.gaussian_bottleneck(moments, jnp.array([[[0.5], [2.0]]]))
    np.testing.assert_allclose(found.codes, [[[2.0], [2.0]]], rtol=1e-6)
    np.testing.assert_allclose(found.losses["kl"], [0.5 * (1 + 4 - 1 - np.log(4.0))], rtol=1e-6)
    assert found.ids is None


def test_running_means_and_restarts():
    state = ops.init_codebook(jnp.array([[0.0], [1.0], [5.0]]))
    z, ids = jnp.array([[0.5], [0.7], [2.0], [2.0]]), jnp.array([0, 0, 1, 1])
    new, restarted = ops.update_codebook(state, z, ids, KEY, decay=0.5, threshold=1.0)
    np.testing.assert_allclose(new.counts, [1.5, 1.5, 1.0])
    np.testing.assert_allclose(new.codes[:2, 0], [(0.5 * 0 + 0.5 * 1.2) / 1.5, (0.5 * 1 + 0.5 * 4) / 1.5], rtol=1e-6)
    assert float(restarted) == 1 and float(new.codes[2, 0]) in np.asarray(z).ravel()
    kept, none = ops.update_codebook(state, z, ids, KEY, decay=0.5, threshold=0.0)
    assert float(none) == 0
    np.testing.assert_allclose(kept.codes[2, 0], 5.0)


def test_restarts_bring_a_collapsed_codebook_back():
    """One code is near to all the data; without restarts it stays the only one."""
    z = jax.random.normal(KEY, (256, 2))
    far = jnp.concatenate([jnp.zeros((1, 2)), 100.0 + jnp.ones((15, 2))])

    def used(threshold):
        state = ops.init_codebook(far)
        for step in range(30):
            ids = ops.vector_quantize(z, state.codes).ids
            state, _ = ops.update_codebook(state, z, ids, jax.random.fold_in(KEY, step), decay=0.9, threshold=threshold)
        return float(ops.perplexity(ops.count_codes(ops.vector_quantize(z, state.codes).ids, 16)))

    assert used(0.0) == pytest.approx(1.0) and used(1.0) > 10


def test_kmeans_finds_clusters():
    centres = jnp.array([[0.0, 0.0], [9.0, 0.0], [0.0, 9.0], [9.0, 9.0]])
    z = centres[jnp.arange(200) % 4] + 0.1 * jax.random.normal(KEY, (200, 2))
    found = ops.kmeans(z, 8, KEY, iterations=10)  # more centres than clusters: each cluster gets one or more
    nearest = jnp.min(jnp.sum((z[:, None] - found) ** 2, -1), 1)
    assert float(jnp.max(nearest)) < 1.0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ops.vector_quantize(jnp.zeros((2, 3)), jnp.zeros((4, 2))), "number of channels"),
        (lambda: ops.finite_scalar_quantize(jnp.zeros((2, 2)), (2, 5)), "at least 3 levels"),
        (lambda: ops.finite_scalar_quantize(jnp.zeros((2, 2)), (5, 5, 5)), "3 levels for 2|5, 5, 5"),
        (lambda: ops.finite_scalar_codes(jnp.zeros(1, jnp.int32), (1024,) * 4), "2\\^31"),
        (lambda: ops.lookup_free_quantize(jnp.zeros((1, 32))), "1 to 31 bits"),
        (lambda: ops.gaussian_bottleneck(jnp.zeros((1, 3))), "even number"),
        (lambda: ops.kmeans(jnp.zeros((4, 2)), 0, KEY), "count=0"),
        (lambda: ops.vector_quantize(jnp.zeros((2, 3)), jnp.zeros((4, 3))).loss(commitment=1.0), "codebook"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(InvalidInputError, match=message):
        call()
