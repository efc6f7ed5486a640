"""VAEs: the bound of a linear model is its exact likelihood; functions, ex-post priors, inversion, and bad input."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import stats

from gan_jax import core, gans, losses, nets
from gan_jax import eval as evals
from gan_jax.gans.vae import VARIANCE, dequantized, running_variance
from gan_jax.types import InvalidInputError, Network, Term, Value

KEY = jax.random.key(0)
IMAGES = jax.random.uniform(jax.random.key(1), (16, 8, 8, 1), minval=-1.0)
SHAPE, D, K = (2, 3, 1), 6, 2


def linear_model(variance):
    """Probabilistic PCA with orthogonal columns as a VAE whose encoder is the exact posterior; and its parameters."""
    random = np.random.default_rng(0)
    w = np.linalg.qr(random.normal(size=(D, K)))[0] * [1.5, 0.4]
    center = random.normal(size=D)
    m = np.diag(w.T @ w) + variance  # a diagonal matrix, because the columns are orthogonal

    def encode(params, state, x, *, train, key=None):
        mean = ((x.reshape(-1, D) - center) @ w) / m
        return (mean, jnp.broadcast_to(jnp.log(variance / m), mean.shape)), state

    def decode(params, state, z, *, train, key=None):
        return (z @ w.T + center + params["zero"]).reshape(-1, *SHAPE), state

    encoder = Network(lambda key, x: ({}, {}), encode)
    decoder = Network(lambda key, z: ({"zero": jnp.zeros(())}, {}), decode)
    return gans.vae(encoder, decoder, K, levels=5), w, center


def test_the_bound_of_a_linear_model_is_its_exact_log_likelihood():
    """So likelihood, KL divergence, dequantisation and the conversion to bits are right together."""
    variance = 0.3
    game, w, center = linear_model(variance)
    x = jax.random.choice(KEY, jnp.linspace(-1, 1, 5), (7, *SHAPE))
    state = game.init(KEY, {"real": x})
    state = state.replace(aux={VARIANCE: jnp.array([2 * variance, 2.0])})
    bits = jax.jit(game.functions["bits_per_dimension"])
    draws = 4000
    found = np.mean(jax.lax.map(lambda key: bits(state, key, x), jax.random.split(KEY, draws)), axis=0)
    # the same noise is not needed: the mean over noise of log N(x + noise) is the same for every draw
    noise = np.random.default_rng(1).uniform(-0.25, 0.25, (draws, *x.shape))  # levels are 0.5 apart
    points = (np.asarray(x) + noise).reshape(draws, 7, D)
    density = stats.multivariate_normal(center, w @ w.T + variance * np.eye(D)).logpdf(points).mean(axis=0)
    np.testing.assert_allclose(found, -(density + D * math.log(0.5)) / (D * math.log(2)), atol=0.02)


def test_the_optimal_variance_gives_the_gradient_of_the_closed_form():
    x, y = IMAGES[:4], IMAGES[4:8]

    def closed(x):
        return x[0].size / 2 * (jnp.log(2 * math.pi * jnp.mean((x - y) ** 2)) + 1)

    mean = lambda x: jnp.mean(losses.gaussian_nll(x, y))  # noqa: E731
    for a, b in zip(jax.value_and_grad(mean)(x), jax.value_and_grad(closed)(x), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


@pytest.fixture(scope="module")
def trained():
    """A small VAE after 150 steps on images of two kinds, and its log."""
    encoder = nets.from_linen(nets.MLPEncoder(3, (16,)))
    decoder = nets.from_linen(nets.MLPGenerator((8, 8, 1), (16,)))
    game = gans.vae(encoder, decoder, 3, levels=256, learning_rate=1e-2, ema_halflife_images=64)
    kinds = jnp.sign(jax.random.normal(jax.random.key(4), (2, 8, 8, 1)))
    x = 0.7 * kinds[jnp.arange(16) % 2] + 0.05 * jax.random.normal(KEY, (16, 8, 8, 1))
    step, log = jax.jit(core.make_step(game)), []
    state = game.init(KEY, {"real": x})
    for _ in range(150):
        state, found = step(state, {"real": x[None]})
        log.append(core.accumulator_means(found))
    return game, state, x, log


def test_training_raises_the_bound_and_logs_its_parts(trained):
    game, state, _, log = trained
    last = log[-1]
    assert last["generator/elbo"] > log[0]["generator/elbo"] + 50
    assert last["generator/elbo"] == pytest.approx(-last["generator/nll"] - last["generator/kl"], rel=1e-5)
    bits = -last["generator/elbo"] / (64 * math.log(2)) + math.log2(127.5)
    assert last["generator/bits_per_dimension"] == pytest.approx(bits, rel=1e-5)
    assert 1 <= last["generator/active_units"] <= 3 and last["generator/mse"] < 0.02 < log[0]["generator/mse"]
    # the variance that evaluation uses is the running mean of the errors
    weights = 0.99 ** np.arange(150)[::-1]
    expected = np.average([line["generator/mse"] for line in log], weights=weights)
    assert float(running_variance(state)) == pytest.approx(expected, rel=1e-4)
    assert game.shown == () and float(state.hparams["kl_weight"]) == 1.0


def test_the_functions_fit_together(trained):
    game, state, x, _ = trained
    functions = {name: jax.jit(f) for name, f in game.functions.items() if name != "sample"}
    mean, log_variance = functions["posterior"](state, KEY, x)
    np.testing.assert_array_equal(functions["encode"](state, KEY, x), mean)
    assert mean.shape == log_variance.shape == (16, 3)
    again = functions["decode"](state, KEY, mean)
    np.testing.assert_allclose(functions["reconstruct"](state, KEY, x), again, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(game.sample(state, KEY, 16, inputs=mean), again, rtol=1e-5, atol=1e-6)
    assert float(jnp.mean((again - x) ** 2)) < 0.02
    assert functions["bits_per_dimension"](state, KEY, x).shape == (16,)


def test_beta_is_a_hyperparameter_and_zero_takes_the_kl_away(trained):
    game, state, x, _ = trained
    free = core.set_hparams(state, {"kl_weight": 0.0})
    slopes = [
        jax.grad(lambda p, s=s: game.phases[0].loss(p, s, {"real": x}, KEY)[0])(s.players["generator"].params)
        for s in (state, free)
    ]
    kl = jax.grad(
        lambda p: jnp.mean(losses.gaussian_kl(*nets.from_linen(nets.MLPEncoder(3, (16,))).apply(
            p["encoder"], {}, dequantized(jax.random.split(KEY, 4)[0], x, 256), train=True)[0]))
    )(state.players["generator"].params)  # fmt: skip
    difference = jax.tree.map(jnp.subtract, *slopes)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-2), difference, kl)


def test_priors_that_are_fitted_to_the_latents(trained):
    random = np.random.default_rng(0)
    kinds = random.integers(0, 2, 3000)
    z = np.where(kinds[:, None] == 0, [3.0, 0.0], [-3.0, 1.0]) + random.normal(size=(3000, 2)) * [0.5, 0.1]
    one, two = evals.fit_prior(z), evals.fit_prior(z, 2)
    drawn = [np.asarray(prior.sample(KEY, 4000)) for prior in (one, two)]
    for x in drawn:
        np.testing.assert_allclose(x.mean(0), z.mean(0), atol=0.2)
        np.testing.assert_allclose(np.cov(x.T), np.cov(z.T), atol=0.4)
    # between the two clusters there is nothing, as one normal distribution cannot say
    between = [np.mean(np.abs(x[:, 0]) < 1.0) for x in drawn]
    assert between[0] > 0.15 and between[1] < 0.005
    np.testing.assert_array_equal(two.sample(KEY, 5), two.sample(KEY, 5))
    game, state, x, _ = trained
    prior = evals.fit_prior(np.asarray(game.functions["encode"](state, KEY, x)))
    assert game.sample(state, KEY, 5, inputs=prior.sample(KEY, 5)).shape == (5, 8, 8, 1)
    for means, components in ((z[:1], 2), (z * np.nan, 1), (z[0], 1)):
        with pytest.raises(InvalidInputError, match="expected finite latents"):
            evals.fit_prior(means, components)
    with pytest.raises(InvalidInputError, match=r"truncation=0\.5"):
        one.sample(KEY, 2, 0.5)


def test_inversion_finds_the_latents_of_samples():
    game, w, center = linear_model(0.1)
    state = game.init(KEY, {"real": jnp.zeros((2, *SHAPE))})
    z = jax.random.normal(jax.random.key(5), (3, K))
    images = game.sample(state, KEY, 3, inputs=z)
    invert = jax.jit(functools.partial(gans.invert, game, steps=400, learning_rate=0.1, restarts=2))
    found, errors = invert(state, images, KEY)
    np.testing.assert_allclose(found, z, atol=1e-2)
    assert errors.shape == (3,) and float(errors.max()) < 1e-5
    # of an image that the generator cannot make, what is left is the part outside the plane of its images
    far = jnp.asarray(np.random.default_rng(2).normal(size=(1, *SHAPE)), jnp.float32)
    offset = np.asarray(far).ravel() - center
    basis = w / np.linalg.norm(w, axis=0)
    rest = offset - basis @ (basis.T @ offset)
    np.testing.assert_allclose(invert(state, far, KEY)[1], [np.mean(rest**2)], rtol=1e-3)
    with pytest.raises(InvalidInputError, match="steps=0"):
        gans.invert(game, state, images, KEY, steps=0)
    with pytest.raises(InvalidInputError, match="samples have the shape"):
        gans.invert(game, state, images[..., 0], KEY, steps=1)


def test_binary_images_and_their_means():
    encoder, decoder = nets.MLPEncoder(2, (8,)), nets.MLPGenerator((8, 8, 1), (8,), bounded=False)
    game = gans.vae(*map(nets.from_linen, (encoder, decoder)), 2, likelihood=gans.BERNOULLI)
    x = jnp.sign(IMAGES)
    state = game.init(KEY, {"real": x})
    assert VARIANCE not in state.aux and "bits_per_dimension" not in game.functions
    _, found = jax.jit(core.make_step(game))(state, {"real": x[None]})
    # before training all odds are nearly even: 64 pixels of log 2 nats
    assert core.accumulator_means(found)["generator/nll"] == pytest.approx(64 * math.log(2), rel=0.2)
    assert float(jnp.abs(game.sample(state, KEY, 3)).max()) <= 1.0


def test_what_does_not_fit_is_refused():
    encoder, decoder = nets.from_linen(nets.MLPEncoder(2, (8,))), nets.from_linen(nets.MLPGenerator((8, 8, 1), (8,)))
    batch = {"real": IMAGES}
    with pytest.raises(InvalidInputError, match="latents=3, but the encoder returns"):
        gans.vae(encoder, decoder, 3).init(KEY, batch)
    with pytest.raises(InvalidInputError, match="samples of shape"):
        gans.vae(encoder, decoder, 2).init(KEY, {"real": IMAGES[:, :4]})
    for options in ({"beta": -1.0}, {"levels": 1}, {"beta": math.nan}):
        with pytest.raises(InvalidInputError, match="2 or more levels"):
            gans.vae(encoder, decoder, 2, **options)
    adversarial = Term("hopeful", "generator", 1.0, lambda view, key: Value(view.fake_out))
    game = gans.vae(encoder, decoder, 2, terms=(adversarial,), generator_optimizer=optax.sgd(0.1))
    with pytest.raises(InvalidInputError, match=r"use `gans\.vae_gan`"):
        core.make_step(game)(game.init(KEY, batch), {"real": IMAGES[None]})
