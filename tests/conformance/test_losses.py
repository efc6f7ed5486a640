"""The battery that every adversarial loss passes, found by reflection."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gan_jax import losses

PAIRS = {name: getattr(losses, name) for name in losses.__all__ if isinstance(getattr(losses, name), losses.GANLoss)}
RELATIVISTIC = {"relativistic_pairing"}
ALL = pytest.mark.parametrize(
    ("name", "player"), [(name, player) for name in sorted(PAIRS) for player in ("discriminator", "generator")]
)


def logits(shape=(6,), dtype=jnp.float32):
    r, f = jax.random.split(jax.random.key(0))
    return 3 * jax.random.normal(r, shape, dtype), 3 * jax.random.normal(f, shape, dtype)


def test_there_are_losses():
    assert len(PAIRS) >= 6


@ALL
@pytest.mark.parametrize("shape", [(), (5,), (3, 4, 4), (2, 3, 4, 4, 1)])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_shape_and_dtype_are_the_logits(name, player, shape, dtype):
    value = getattr(PAIRS[name], player)(*logits(shape, dtype))
    assert value.shape == shape and value.dtype == dtype


@ALL
def test_jit_vmap_and_permutation(name, player):
    loss = getattr(PAIRS[name], player)
    r, f = logits()
    eager = loss(r, f)
    np.testing.assert_allclose(jax.jit(loss)(r, f), eager, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(jax.vmap(loss)(r, f), eager, rtol=1e-6, atol=1e-6)
    order = jnp.array([3, 1, 5, 0, 2, 4])
    np.testing.assert_array_equal(loss(r[order], f[order]), eager[order])


@ALL
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_extremes_are_finite_with_finite_gradients(name, player, dtype):
    loss = getattr(PAIRS[name], player)
    ends = jnp.array([-1e4, 0.0, 1e4], dtype)
    r, f = (x.ravel() for x in jnp.meshgrid(ends, ends))
    values = loss(r, f)
    gradients = jax.grad(lambda r, f: loss(r, f).sum(), (0, 1))(r, f)
    assert all(bool(jnp.all(jnp.isfinite(x))) for x in (values, *gradients))


@ALL
def test_first_and_second_derivatives_match_finite_differences(name, player):
    loss = getattr(PAIRS[name], player)
    with jax.enable_x64(True):
        r, f = (x.astype(jnp.float64) + 0.123 for x in logits())
        for argument in (0, 1):
            first = lambda r, f, a=argument: jax.grad(lambda r, f: loss(r, f).sum(), a)(r, f)  # noqa: E731
            for function, h in ((loss, 1e-5), (first, 1e-5)):
                step = jnp.zeros((2, 6)).at[argument].set(h)
                difference = (function(r + step[0], f + step[1]) - function(r - step[0], f - step[1])) / (2 * h)
                exact = jax.grad(lambda r, f, g=function: g(r, f).sum(), argument)(r, f)
                np.testing.assert_allclose(exact, difference, rtol=1e-6, atol=1e-8)


@ALL
def test_the_gradient_has_the_right_sign(name, player):
    """D wants reals up and fakes down, G wants fakes up; where no hinge is flat, and no target is passed."""
    loss = getattr(PAIRS[name], player)
    r, f = jnp.linspace(-0.9, 0.9, 5), jnp.linspace(0.1, 0.8, 5)
    of_real, of_fake = jax.grad(lambda r, f: loss(r, f).sum(), (0, 1))(r, f)
    if player == "discriminator":
        assert bool(jnp.all(of_real < 0)) and bool(jnp.all(of_fake > 0))
    else:
        assert bool(jnp.all(of_fake < 0))
        assert bool(jnp.any(of_real != 0)) == (name in RELATIVISTIC)


@ALL
def test_documented(name, player):
    document = getattr(PAIRS[name], player).__doc__
    assert document == PAIRS[name].__doc__
    for part in ("Args:", "Returns:", "References:", "arXiv:", "Example:", ">>>"):
        assert part in document
