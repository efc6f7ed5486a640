"""Prior distributions of the latents."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gan_jax.types import InvalidInputError, Prior, PRNGKey


def normal(dim: int) -> Prior:
    """Creates the standard normal prior, with BigGAN's truncation trick and spherical interpolation.

    `truncation` is a threshold in standard deviations: samples follow the normal distribution restricted to values
    within it. 2 is mild, 0.5 strong. Interpolation is spherical (slerp), so that points between two latents are about
    as far from the origin as these are.

    Args:
      dim: number of latent variables.

    Returns:
      The prior; its latents are `[n, dim]`, float32.

    References:
      Brock, Donahue and Simonyan, "Large Scale GAN Training for High Fidelity Natural Image Synthesis",
      arXiv:1809.11096, 2018 (truncation); White, "Sampling Generative Networks", arXiv:1609.04468, 2016 (slerp).
    """
    _check_dim(dim)

    def sample(key: PRNGKey, n: int, truncation: float | None = None) -> Float[Array, "n dim"]:
        if truncation is None:
            return jax.random.normal(key, (n, dim))
        _check_truncation(truncation)
        return jax.random.truncated_normal(key, -truncation, truncation, (n, dim))

    def interpolate(z0: Float[Array, "... dim"], z1: Float[Array, "... dim"], t: Float[Array, "..."]) -> Array:
        cosine = jnp.sum(z0 * z1, -1) / (jnp.linalg.norm(z0, axis=-1) * jnp.linalg.norm(z1, axis=-1))
        angle = jnp.arccos(jnp.clip(cosine, -1.0, 1.0))
        sine = jnp.maximum(jnp.sin(angle), 1e-6)
        t = jnp.clip(t, 0.0, 1.0)
        # Where the angle is near 0, sine / sine is inaccurate; the limit is linear interpolation.
        nearly_parallel = angle < 1e-3
        weight0 = jnp.where(nearly_parallel, 1.0 - t, jnp.sin((1.0 - t) * angle) / sine)
        weight1 = jnp.where(nearly_parallel, t, jnp.sin(t * angle) / sine)
        return weight0[..., None] * z0 + weight1[..., None] * z1

    return Prior(sample, interpolate, "normal")


def uniform(dim: int) -> Prior:
    """Creates the uniform prior on [-1, 1], with linear interpolation; `truncation` in (0, 1] scales the range.

    Args:
      dim: number of latent variables.

    Returns:
      The prior; its latents are `[n, dim]`, float32.
    """
    _check_dim(dim)

    def sample(key: PRNGKey, n: int, truncation: float | None = None) -> Float[Array, "n dim"]:
        scale = 1.0 if truncation is None else truncation
        _check_truncation(scale)
        if scale > 1.0:
            raise InvalidInputError(f"truncation={truncation}: expected at most 1, the whole range of a uniform prior")
        return jax.random.uniform(key, (n, dim), minval=-scale, maxval=scale)

    def interpolate(z0: Float[Array, "... dim"], z1: Float[Array, "... dim"], t: Float[Array, "..."]) -> Array:
        return (1.0 - t[..., None]) * z0 + t[..., None] * z1

    return Prior(sample, interpolate, "uniform")


KINDS = {"normal": normal, "uniform": uniform}
"""Priors that exported models name instead of containing them, by `Prior.kind`."""


def _check_dim(dim: int) -> None:
    if dim < 1:
        raise InvalidInputError(f"dim={dim}: a prior needs at least one latent variable")


def _check_truncation(truncation: float) -> None:
    if not truncation > 0:
        raise InvalidInputError(f"truncation={truncation}: expected a positive threshold, or None for no truncation")


def interpolated(prior: Prior, ends: Array, between: int) -> Array:
    """Returns latents in rows, which lead from one latent to another.

    Args:
      prior: prior of the latents.
      ends: latents `[2 rows, ...]`; the first half are the starts, the second half the ends.
      between: latents in a row.

    Returns:
      Latents `[rows * between, ...]`, row after row.
    """
    rows = len(ends) // 2
    start, end = (jnp.repeat(x, between, axis=0) for x in jnp.split(ends, 2))
    return prior.interpolate(start, end, jnp.tile(jnp.linspace(0.0, 1.0, between), rows))
