"""Adversarial losses: pure, unreduced, unweighted functions of logits."""

from gan_jax.losses.adversarial import (
    GANLoss,
    hinge,
    least_squares,
    minimax,
    non_saturating,
    relativistic_pairing,
    wasserstein,
)

__all__ = [
    "GANLoss",
    "hinge",
    "least_squares",
    "minimax",
    "non_saturating",
    "relativistic_pairing",
    "wasserstein",
]
