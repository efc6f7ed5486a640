"""Penalties and regularisers: pure, unweighted, differentiable functions that depend on jax and jaxtyping only."""

from gan_jax.regularizers.consistency import consistency
from gan_jax.regularizers.critic import gradient_normalized, latent_optimization
from gan_jax.regularizers.gradient import dragan_penalty, interpolated_penalty, zero_centered_penalty
from gan_jax.regularizers.lecam import LeCamState, init_lecam, lecam
from gan_jax.regularizers.path_length import path_length
from gan_jax.regularizers.weights import orthogonal

__all__ = [
    "LeCamState",
    "consistency",
    "dragan_penalty",
    "gradient_normalized",
    "init_lecam",
    "interpolated_penalty",
    "latent_optimization",
    "lecam",
    "orthogonal",
    "path_length",
    "zero_centered_penalty",
]
