"""All regularisers except the gradient penalties: closed forms, and formulas by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gan_jax import regularizers
from gan_jax.types import InvalidInputError

KEY = jax.random.key(0)
X = jax.random.normal(KEY, (4, 3))
W = jnp.array([1.0, -2.0, 2.0])  # of norm 3


def test_lecam_over_three_batches():
    rng = np.random.default_rng(0)
    state, means = regularizers.init_lecam(), []
    for step in range(3):
        real, fake = rng.normal(1, 1, 8), rng.normal(-1, 1, 8)
        means.append((real.mean(), fake.mean()))
        penalty, state = regularizers.lecam(jnp.asarray(real), jnp.asarray(fake), state, decay=0.9)
        weights = 0.1 * 0.9 ** np.arange(step, -1, -1)
        anchors = (weights[:, None] * means).sum(0) / (1 - 0.9 ** (step + 1))
        expected = np.maximum(0, real - anchors[1]) ** 2 + np.maximum(0, anchors[0] - fake) ** 2
        np.testing.assert_allclose(penalty, expected, rtol=1e-5, atol=1e-6)


def test_lecam_of_patches_is_the_mean_over_an_example_and_its_anchors_are_constants():
    real, fake = jax.random.normal(KEY, (2, 4, 2, 2))
    state = regularizers.LeCamState(jnp.float32(0.3), jnp.float32(-0.2), jnp.float32(1.0))
    patches, _ = regularizers.lecam(real, fake, state, decay=1.0)
    flat, _ = regularizers.lecam(real.ravel(), fake.ravel(), state, decay=1.0)
    np.testing.assert_allclose(patches, flat.reshape(4, -1).mean(1), rtol=1e-6)
    gradient = jax.grad(lambda r: jnp.sum(regularizers.lecam(r, fake, regularizers.init_lecam(), decay=0.0)[0]))(real)
    np.testing.assert_allclose(gradient, 2 * jnp.maximum(0, real - fake.mean()) / 4, rtol=1e-5, atol=1e-6)


def test_path_length_of_a_linear_generator():
    """The image is w M, so ||J^T y||^2 = ||M y||^2, whose mean is ||M||_F^2 / (h w)."""
    matrix = jax.random.normal(KEY, (3, 32))
    w = jax.random.normal(KEY, (4096, 3))
    synthesize = lambda w: (w @ matrix).reshape(-1, 4, 4, 2)  # noqa: E731
    lengths_squared, mean = regularizers.path_length(synthesize, w, KEY, jnp.zeros(()), decay=0.0)
    np.testing.assert_allclose(lengths_squared.mean(), jnp.sum(matrix**2) / 16, rtol=0.03)
    assert float(mean) == 0.0
    penalty, mean = regularizers.path_length(synthesize, w, KEY, jnp.float32(2.0), decay=0.25)
    length = np.sqrt(lengths_squared)
    np.testing.assert_allclose(mean, 2.0 + 0.25 * (length.mean() - 2.0), rtol=1e-5)
    np.testing.assert_allclose(penalty, (length - mean) ** 2, rtol=1e-3, atol=1e-4)


def test_the_target_of_path_lengths_is_a_constant_to_the_gradient():
    """Images scaled by s have path lengths s l, so the gradient of (s l - a)^2 at s = 1 is 2 (l - a) l."""
    matrix = jax.random.normal(KEY, (3, 32))

    def penalty(scale, mean, decay):
        synthesize = lambda w: (scale * w @ matrix).reshape(-1, 4, 4, 2)  # noqa: E731
        return regularizers.path_length(synthesize, X, KEY, jnp.float32(mean), decay=decay)[0]

    length = np.sqrt(penalty(1.0, 0.0, 0.0))
    target = 2.0 + 0.25 * (length.mean() - 2.0)
    gradient = jax.grad(lambda scale: jnp.mean(penalty(scale, 2.0, 0.25)))(1.0)
    np.testing.assert_allclose(gradient, np.mean(2 * (length - target) * length), rtol=1e-4)


def test_path_length_of_layers_is_the_root_of_the_mean_of_squares():
    matrix = jax.random.normal(KEY, (3, 16))
    one = regularizers.path_length(lambda w: (w @ matrix).reshape(-1, 4, 4, 1), X, KEY, jnp.zeros(()), decay=0.0)[0]
    stacked = jnp.stack([X, X], axis=1)
    two = regularizers.path_length(
        lambda w: (w[:, 0] @ matrix + 0 * w[:, 1] @ matrix).reshape(-1, 4, 4, 1), stacked, KEY, jnp.zeros(()), decay=0.0
    )[0]
    np.testing.assert_allclose(two, one / 2, rtol=1e-5)


def test_consistency():
    a, b = jax.random.normal(KEY, (2, 4, 2, 3))
    np.testing.assert_allclose(regularizers.consistency(a, b), np.sum((a - b) ** 2, (1, 2)), rtol=1e-6)


@pytest.mark.parametrize("off_diagonal", [True, False])
def test_orthogonal(off_diagonal):
    rotation, _ = jnp.linalg.qr(jax.random.normal(KEY, (6, 6)))
    kernels = {"conv": rotation[:, :4].reshape(3, 2, 1, 4), "dense": 2.0 * rotation, "bias": jnp.ones(6)}
    expected = 0.0 if off_diagonal else 6 * (4 - 1) ** 2  # only the full penalty sees columns of length 2
    np.testing.assert_allclose(regularizers.orthogonal(kernels, off_diagonal=off_diagonal), expected, atol=1e-4)
    w = np.random.default_rng(0).normal(size=(5, 3))
    gram = w.T @ w
    target = np.eye(3) * np.diag(gram) if off_diagonal else np.eye(3)
    np.testing.assert_allclose(
        regularizers.orthogonal([jnp.asarray(w)], off_diagonal=off_diagonal), np.sum((gram - target) ** 2), rtol=1e-5
    )


def test_a_normalised_linear_critic():
    logits = X @ W
    normalized = regularizers.gradient_normalized(lambda x: x @ W)
    np.testing.assert_allclose(normalized(X), logits / (3 + jnp.abs(logits)), rtol=1e-5)


def test_gradient_normalisation_bounds_and_flattens_any_critic():
    kernel = 30 * jax.random.normal(KEY, (3, 16))
    normalized = regularizers.gradient_normalized(lambda x: jnp.sum(jax.nn.relu(x @ kernel), -1) - 20.0)
    x = jax.random.normal(KEY, (512, 3))
    assert float(jnp.abs(normalized(x)).max()) < 1
    norms = jnp.linalg.norm(jax.vmap(jax.grad(lambda x: normalized(x[None])[0]))(x), axis=-1)
    assert float(norms.max()) <= 1 + 1e-5  # piecewise linear


def test_latent_optimisation_of_a_linear_critic():
    z = jnp.array([[0.1, 0.2, -0.9]])
    moved = regularizers.latent_optimization(lambda z: z @ W, z, step=0.5, damping=3.0)
    np.testing.assert_allclose(moved, jnp.clip(z + 0.5 * W / (3 + 9), -1, 1), rtol=1e-6)


def test_latent_optimisation_is_the_natural_gradient_and_improves_the_score():
    def score(z):
        return -jnp.sum((z - 0.3) ** 2, -1)

    z = 0.2 * X
    gradient = jax.vmap(jax.grad(lambda z: score(z[None])[0]))(z)
    fisher = gradient[:, :, None] * gradient[:, None, :] + 2.0 * jnp.eye(3)
    natural = z + 0.1 * jax.vmap(jnp.linalg.solve)(fisher, gradient)
    moved = regularizers.latent_optimization(score, z, step=0.1, damping=2.0)
    np.testing.assert_allclose(moved, natural, rtol=1e-5, atol=1e-6)
    assert bool(jnp.all(score(moved) > score(z)))


def test_lecam_without_an_update_and_a_damping_of_zero():
    penalty, _ = regularizers.lecam(jnp.ones(4), jnp.ones(4), regularizers.init_lecam(), decay=1.0)
    assert bool(jnp.all(jnp.isfinite(penalty)))
    with pytest.raises(InvalidInputError, match="damping=0"):
        regularizers.latent_optimization(lambda z: z @ W, X, damping=0.0)


def test_dragan_stays_near_the_data():
    """The critic's gradient is the point itself. If all data are 0, points move by the epsilon of the std alone."""
    quadratic = lambda x: 0.5 * jnp.sum(x**2, -1)  # noqa: E731
    np.testing.assert_allclose(regularizers.dragan_penalty(quadratic, jnp.zeros((4, 3)), KEY), 1.0, rtol=1e-4)
    real = jax.random.normal(KEY, (256, 3))
    norm = jnp.sqrt(regularizers.dragan_penalty(quadratic, 10 + real, KEY)) + 1  # norms of points near 10
    assert bool(jnp.all(norm >= jnp.linalg.norm(10 + real, axis=-1) - 1e-3))
    assert bool(jnp.all(norm <= jnp.linalg.norm(10 + real, axis=-1) + 0.5 * 1.1 * np.sqrt(3)))
    np.testing.assert_allclose(regularizers.dragan_penalty(lambda x: x @ W, real, KEY), 4.0, rtol=1e-5)
