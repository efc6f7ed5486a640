"""Gradient penalties: closed forms for linear and quadratic critics, finite differences, and unusual shapes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gan_jax.regularizers import interpolated_penalty, zero_centered_penalty

KEY = jax.random.key(0)
W = jnp.array([1.0, -2.0, 2.0])  # of norm 3
X = jax.random.normal(KEY, (4, 3))
Y = jax.random.normal(jax.random.key(1), (4, 3))


def linear(x):
    return x @ W


def quadratic(x):
    return 0.5 * jnp.sum(x**2, axis=-1)  # whose gradient is x


def test_linear_critic():
    np.testing.assert_allclose(zero_centered_penalty(linear, X), np.full(4, 9.0), rtol=1e-6)
    np.testing.assert_allclose(interpolated_penalty(linear, X, Y, KEY), np.full(4, 4.0), rtol=1e-5)
    np.testing.assert_allclose(interpolated_penalty(linear, X, Y, KEY, target=5.0), np.full(4, 4.0), rtol=1e-5)
    assert not np.any(interpolated_penalty(linear, X, Y, KEY, target=5.0, one_sided=True))


def test_quadratic_critic():
    np.testing.assert_allclose(zero_centered_penalty(quadratic, X), np.sum(X**2, -1), rtol=1e-6)
    same = interpolated_penalty(quadratic, X, X, KEY)
    np.testing.assert_allclose(same, (np.linalg.norm(X, axis=-1) - 1) ** 2, rtol=1e-4, atol=1e-6)


def test_the_interpolation_lies_between_with_one_alpha_per_example():
    """From 0 to (1, 1, 1), with a critic whose gradient is the point itself, the penalty to target 0 is 3 alpha^2."""
    values = interpolated_penalty(quadratic, jnp.zeros((64, 3)), jnp.ones((64, 3)), KEY, target=0.0)
    alpha = np.sqrt(values / 3)
    assert alpha.min() >= 0 and alpha.max() < 1 and alpha.std() > 0.2 and len(np.unique(alpha)) == 64


def test_zero_gradient_is_finite_to_second_order():
    def penalty(scale):
        return jnp.sum(interpolated_penalty(lambda x: scale * jnp.sum(x, -1), X, Y, KEY))

    assert float(penalty(0.0)) == pytest.approx(4.0, rel=1e-4)
    assert np.isfinite(jax.grad(penalty)(0.0)) and np.isfinite(jax.grad(jax.grad(penalty))(0.0))


@pytest.mark.parametrize("shape", [(4,), (4, 5), (4, 3, 3), (4, 2, 3, 3)])
def test_logits_of_any_shape_are_summed_per_example(shape):
    weights = jax.random.normal(KEY, (3, *shape[1:]))

    def critic(x):
        return jnp.tensordot(x, weights, 1)

    expected = jnp.sum(weights.reshape(3, -1).sum(-1) ** 2)
    np.testing.assert_allclose(zero_centered_penalty(critic, X), np.full(4, expected), rtol=1e-4)
    np.testing.assert_allclose(
        zero_centered_penalty(lambda x: [critic(x), linear(x)], X),
        np.full(4, jnp.sum((weights.reshape(3, -1).sum(-1) + W) ** 2)),
        rtol=1e-4,
    )


PENALTIES = {
    "r1": lambda critic, x, y: zero_centered_penalty(critic, x),
    "gradient_penalty": lambda critic, x, y: interpolated_penalty(critic, x, y, KEY),
    "lipschitz_penalty": lambda critic, x, y: interpolated_penalty(critic, x, y, KEY, one_sided=True),
}


@pytest.mark.parametrize("name", sorted(PENALTIES))
def test_derivative_with_respect_to_parameters(name):
    """The second-order derivatives that training takes, against finite differences in float64."""
    with jax.enable_x64(True):
        v = jax.random.normal(jax.random.key(2), (3, 5), jnp.float64)

        x, y = X.astype(jnp.float64), Y.astype(jnp.float64)

        def total(v):
            return jnp.sum(PENALTIES[name](lambda x: jnp.sum(jnp.tanh(x @ v) ** 2, -1), x, y))

        gradient = jax.grad(total)(v)
        direction = jax.random.normal(jax.random.key(3), v.shape, jnp.float64)
        difference = (total(v + 1e-6 * direction) - total(v - 1e-6 * direction)) / 2e-6
        np.testing.assert_allclose(jnp.vdot(gradient, direction), difference, rtol=1e-6)


@pytest.mark.parametrize("name", sorted(PENALTIES))
def test_jit_and_per_example(name):
    values = PENALTIES[name](quadratic, X, Y)
    assert values.shape == (4,) and bool(jnp.all(values >= 0))
    np.testing.assert_allclose(jax.jit(lambda: PENALTIES[name](quadratic, X, Y))(), values, rtol=1e-5, atol=1e-6)


def test_bfloat16_input_gives_float32():
    half = X.astype(jnp.bfloat16)
    assert zero_centered_penalty(lambda x: x @ W.astype(x.dtype), half).dtype == jnp.float32
    assert interpolated_penalty(lambda x: x @ W.astype(x.dtype), half, half, KEY).dtype == jnp.float32
