"""Penalties on the critic: pure, per-example, unweighted, differentiable again."""

from gan_jax.regularizers.gradient import interpolated_penalty, zero_centered_penalty

__all__ = ["interpolated_penalty", "zero_centered_penalty"]
