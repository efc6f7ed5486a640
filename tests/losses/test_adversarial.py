"""Adversarial losses: values against formulas written out in float64, and relations between the losses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gan_jax import losses
from gan_jax.types import InvalidInputError

R = np.array([-3.0, -0.5, 0.0, 0.7, 20.0])
F = np.array([2.0, -1.5, 0.0, 0.3, -40.0])


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def sp(x):
    return np.logaddexp(0, x)


RF, FR = R - F.mean(), F - R.mean()
HAND = {
    "relativistic_average": (sp(-RF) + sp(FR), sp(-FR) + sp(RF)),
    "relativistic_average_hinge": (
        np.maximum(0, 1 - RF) + np.maximum(0, 1 + FR),
        np.maximum(0, 1 + RF) + np.maximum(0, 1 - FR),
    ),
    "relativistic_average_least_squares": ((RF - 1) ** 2 + (FR + 1) ** 2, (FR - 1) ** 2 + (RF + 1) ** 2),
    "hinge": (np.maximum(0, 1 - R) + np.maximum(0, 1 + F), -F),
    "least_squares": ((R - 1) ** 2 / 2 + F**2 / 2, (F - 1) ** 2 / 2),
    "minimax": (-np.log(sigmoid(R)) - np.log(1 - sigmoid(F)), np.log(1 - sigmoid(F))),
    "non_saturating": (-np.log(sigmoid(R)) - np.log(1 - sigmoid(F)), -np.log(sigmoid(F))),
    "relativistic_pairing": (-np.log(sigmoid(R - F)), -np.log(sigmoid(F - R))),
    "wasserstein": (F - R, -F),
}


@pytest.mark.parametrize("name", sorted(HAND))
def test_values(name):
    loss = getattr(losses, name)
    with jax.enable_x64(True):
        ours = (loss.discriminator(jnp.asarray(R), jnp.asarray(F)), loss.generator(jnp.asarray(R), jnp.asarray(F)))
    for value, expected in zip(ours, HAND[name], strict=True):
        np.testing.assert_allclose(value, expected, rtol=1e-12, atol=1e-15)


def test_every_loss_has_hand_values():
    assert set(HAND) == {name for name in losses.__all__ if isinstance(getattr(losses, name), losses.GANLoss)}


def test_minimax_is_zero_sum_in_the_fakes():
    r, f = jnp.asarray(R), jnp.asarray(F)
    total = losses.minimax.discriminator(r, f) + losses.minimax.generator(r, f)
    np.testing.assert_allclose(total, np.log1p(np.exp(-R)), rtol=1e-5)  # the term of the reals, which G can't change


def test_pairing_sees_differences_only():
    r, f = jnp.asarray(R), jnp.asarray(F)
    for player in losses.relativistic_pairing:
        np.testing.assert_allclose(player(r + 3, f + 3), player(r, f), rtol=1e-5, atol=1e-6)


# g and f* as in the paper's tables; the library has their composition in closed form
DIVERGENCES = {
    "kl": (lambda v: v, lambda t: np.exp(t - 1)),
    "reverse_kl": (lambda v: -np.exp(-v), lambda t: -1 - np.log(-t)),
    "pearson": (lambda v: v, lambda t: t**2 / 4 + t),
    "squared_hellinger": (lambda v: 1 - np.exp(-v), lambda t: t / (1 - t)),
    "jensen_shannon": (lambda v: np.log(2) - np.log1p(np.exp(-v)), lambda t: -np.log(2 - np.exp(t))),
    "gan": (lambda v: -np.log1p(np.exp(-v)), lambda t: -np.log(1 - np.exp(t))),
}


@pytest.mark.parametrize("name", sorted(DIVERGENCES))
def test_f_divergences(name):
    g, conjugate = DIVERGENCES[name]
    r, f = np.array([-3.0, -0.5, 0.0, 0.7, 5.0]), np.array([2.0, -1.5, 0.0, 0.3, -4.0])
    practical, exact = losses.f_divergence(name), losses.f_divergence(name, practical=False)
    with jax.enable_x64(True):
        r, f = jnp.asarray(r), jnp.asarray(f)
        for loss in (practical, exact):
            np.testing.assert_allclose(loss.discriminator(r, f), conjugate(g(f)) - g(r), rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(practical.generator(r, f), -g(f), rtol=1e-12, atol=1e-15)
        np.testing.assert_allclose(exact.generator(r, f), -conjugate(g(f)), rtol=1e-10, atol=1e-12)


def kl(p, q):
    return np.sum(p * np.log(p / q))


P, Q = np.array([0.5, 0.3, 0.2]), np.array([0.2, 0.2, 0.6])
TRUE = {
    "kl": kl(P, Q),
    "reverse_kl": kl(Q, P),
    "pearson": np.sum((Q - P) ** 2 / Q),
    "squared_hellinger": np.sum((np.sqrt(P) - np.sqrt(Q)) ** 2),
    "jensen_shannon": kl(P, (P + Q) / 2) + kl(Q, (P + Q) / 2),
    "gan": kl(P, (P + Q) / 2) + kl(Q, (P + Q) / 2) - 2 * np.log(2),
}


@pytest.mark.parametrize("name", sorted(TRUE))
def test_the_best_critic_measures_the_divergence(name):
    """Over three outcomes, maximising E_p g(v) - E_q f*(g(v)) by gradient steps gives D_f(p, q)."""
    loss = losses.f_divergence(name)
    with jax.enable_x64(True):

        @jax.jit
        def descend(v):
            value = lambda v: jnp.sum(P * loss.discriminator(v, 0 * v)) + jnp.sum(Q * loss.discriminator(0 * v, v))  # noqa: E731
            return v - 0.2 * jax.grad(value)(v)

        v = jnp.zeros(3)
        for _ in range(5000):
            v = descend(v)
        constant = loss.discriminator(jnp.zeros(1), jnp.zeros(1))[0]  # each sum includes the other term at 0
        value = jnp.sum(P * loss.discriminator(v, 0 * v)) + jnp.sum(Q * loss.discriminator(0 * v, v)) - constant
    np.testing.assert_allclose(-value, TRUE[name], rtol=1e-6)


def test_stable_where_the_composition_is_not():
    """From v = 17 on, 2 - exp(g) and 1 - exp(g) round to 0 in float32."""
    v = jnp.array([20.0, 1e4])
    for name in ("jensen_shannon", "gan"):
        gradient = jax.grad(lambda v, name=name: jnp.sum(losses.f_divergence(name).discriminator(0 * v, v)))(v)
        np.testing.assert_allclose(gradient, 1.0, rtol=1e-6)


def test_energy_based():
    loss = losses.energy_based(1.5)
    r, f = jnp.asarray(R), jnp.asarray(F)
    np.testing.assert_allclose(loss.discriminator(r, f), R + np.maximum(0, 1.5 - F), rtol=1e-6)
    np.testing.assert_allclose(loss.generator(r, f), F, rtol=1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: losses.f_divergence("jeffrey"), "name='jeffrey': expected one of kl, reverse_kl"),
        (lambda: losses.energy_based(0.0), "margin=0.0"),
    ],
)
def test_what_is_refused(make, message):
    with pytest.raises(InvalidInputError, match=message):
        make()
