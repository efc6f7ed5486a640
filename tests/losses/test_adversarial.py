"""Values against formulas written out in float64, and what the losses promise each other."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gan_jax import losses

R = np.array([-3.0, -0.5, 0.0, 0.7, 20.0])
F = np.array([2.0, -1.5, 0.0, 0.3, -40.0])


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


HAND = {
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
