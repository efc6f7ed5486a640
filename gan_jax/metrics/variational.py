"""Metrics of the latents of variational autoencoders."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def active_units(means: Float[Array, "n d"], *, threshold: float = 0.01) -> Int[Array, ""]:
    """Counts the latent variables that depend on the data: Var_x(mean_i(x)) > threshold.

    A variable whose posterior is the prior for every image carries nothing; the others are called active.

    Args:
      means: means of the posteriors of n images.
      threshold: least variance of an active variable.

    Returns:
      The number of active variables, from 0 to d.

    References:
      Burda, Grosse and Salakhutdinov, "Importance Weighted Autoencoders", arXiv:1509.00519, 2015, section 5.2, whose
      threshold is the default.

    Example:
      >>> print(active_units(jnp.array([[1.0, 0.05, 3.0], [-1.0, -0.05, 3.0]])))
      1
    """
    return jnp.sum(jnp.var(means, axis=0) > threshold)
