"""Weights and gradients at the generator's output: EnCodec's and AFM's rules written with loops, trees, bad input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gan_jax import losses
from gan_jax.types import InvalidInputError

RANDOM = np.random.default_rng(0)
WEIGHTS = {"pixels": 1.0, "critic": 4.0}


def test_the_steered_gradient_goes_back_through_the_generator_once():
    """Equal to differentiating the weighted sum of the losses, with a generator whose output is a tree."""
    z, w = (jnp.asarray(RANDOM.normal(size=shape), jnp.float32) for shape in ((5, 3), (3, 4)))
    terms = {"square": lambda y: y["a"] ** 2, "critic": lambda y: jnp.tanh(y["a"]) + y["b"]}
    calls = []

    def generator(w):
        calls.append(w)
        return {"a": jnp.tanh(z @ w), "b": jnp.sin(z @ w)}

    def steered(w):
        y = generator(w)
        values, gradients = losses.output_gradients(terms, y)
        total = jax.tree.map(lambda a, b: 2.0 * a + 3.0 * b, gradients["square"], gradients["critic"])
        return losses.steer(y, total), values

    found, values = jax.jit(jax.grad(steered, has_aux=True))(w)
    assert len(calls) == 1
    expected = jax.grad(lambda w: sum(c * jnp.mean(terms[n](generator(w))) for n, c in (("square", 2), ("critic", 3))))
    np.testing.assert_allclose(found, expected(w), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(values["critic"], terms["critic"](generator(w)), rtol=1e-6)


def test_what_losses_return_beside_their_values_is_kept_and_constant():
    def loss(y):
        return y**2, {"logits": 3 * y}

    values, _ = losses.output_gradients({"a": loss}, jnp.arange(3.0), has_aux=True)
    np.testing.assert_array_equal(values["a"][1]["logits"], [0, 3, 6])
    slope = jax.grad(lambda y: jnp.sum(losses.output_gradients({"a": loss}, y, has_aux=True)[0]["a"][0]))
    np.testing.assert_array_equal(slope(jnp.arange(3.0)), 0)


def test_encodec_balances_by_bias_corrected_norms_of_examples():
    """Three updates against the rule with loops; the scale of a loss changes nothing."""
    draws = RANDOM.normal(size=(3, 2, 6, 5, 2))
    draws[:, 1] *= 50.0
    state, total, fix = losses.init_balancer(WEIGHTS), np.zeros(2), 0.0
    for pair in draws:
        gradients = dict(zip(WEIGHTS, map(jnp.asarray, pair), strict=True))
        found, state = losses.balance(gradients, WEIGHTS, state, decay=0.9)
        norms = [np.mean([np.sqrt((example**2).sum()) for example in each]) for each in pair]
        total, fix = 0.9 * total + norms, 0.9 * fix + 1
        expected = sum(w / 5 * g / (t / fix) for w, g, t in zip(WEIGHTS.values(), pair, total, strict=True))
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)
    # at a constant norm each loss's part is as long as its share
    parts = {"pixels": jnp.full((2, 4), 7.0), "critic": jnp.zeros((2, 4))}
    alone, _ = losses.balance(parts, WEIGHTS, losses.init_balancer(WEIGHTS), total_norm=10.0)
    np.testing.assert_allclose(np.linalg.norm(alone, axis=1), 2.0, rtol=1e-6)
    off, _ = losses.balance(parts, dict.fromkeys(WEIGHTS, 0.0), losses.init_balancer(WEIGHTS))
    np.testing.assert_array_equal(off, 0.0)


def test_afm_divides_by_a_running_size_that_the_batch_does_not_change():
    one = jnp.asarray(RANDOM.normal(size=(4, 3)), jnp.float32)
    s, slow = jnp.zeros(()), 0.0
    for scale in (1.0, 10.0, 0.1):
        found, s = losses.normalize_gradient({"y": scale * one}, s)
        slow = 0.9 * slow + 0.1 * 12 * float(jnp.sum((scale * one) ** 2))
        np.testing.assert_allclose(found["y"], scale * one / (np.sqrt(slow) + 1e-8), rtol=1e-5)
    # the gradient of a mean over twice the examples has halves of the values; n makes up for it
    twice = jnp.concatenate([one, one]) / 2
    size = [losses.normalize_gradient(g, jnp.zeros(()))[1] for g in (one, twice)]
    np.testing.assert_allclose(size[0], size[1], rtol=1e-5)


def test_a_ramp_jumps_without_a_length_and_may_be_traced():
    jump = jax.jit(losses.ramp)(jnp.arange(5), jnp.int32(3), jnp.int32(0))
    np.testing.assert_array_equal(jump, [0, 0, 0, 1, 1])
    assert jump.dtype == jnp.float32
    assert losses.ramp(15, start=10, length=10) == 0.5, "a counter of a loop"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: losses.output_gradients({}, x), "at least one function"),
        (lambda x: losses.steer(x, [x, x]), r"y \[\(2, 3\)\], gradient \[\(2, 3\), \(2, 3\)\]"),
        (lambda x: losses.balance({"pixels": x}, WEIGHTS, losses.init_balancer(WEIGHTS)), "expected the same names"),
        (lambda x: losses.balance({"pixels": x, "critic": x[:1]}, WEIGHTS, losses.init_balancer(WEIGHTS)), "differ"),
    ],
)
def test_trees_and_names_that_differ_are_refused(call, message):
    with pytest.raises(InvalidInputError, match=message):
        call(jnp.ones((2, 3)))
