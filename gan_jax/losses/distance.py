"""Distances between two batches of features: losses that compare distributions, not examples.

A generator minimises them on the features of a critic that maximises them (MMD GAN, Cramer GAN), or on fixed features.
Each is one number: there is no value per example. They are computed in float32 or wider.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gan_jax.types import InvalidInputError

Features = Float[Array, "n d"]
Kernel = Callable[[Float[Array, "n m"]], Float[Array, "n m"]]


def gaussian_kernel(bandwidths: Sequence[float] = (1.0, 2.0, 4.0, 8.0, 16.0)) -> Kernel:
    """A sum of Gaussian kernels, k(x, y) = sum over s of exp(-||x - y||^2 / (2 s^2)).

    Args:
      bandwidths: s, in the units of the features.

    Returns:
      A function of the squared distances.

    References:
      Li et al., "MMD GAN: Towards Deeper Understanding of Moment Matching Network", arXiv:1705.08584, 2017, whose
      bandwidths are the defaults. Some code takes s for the variance.

    Example:
      >>> print(gaussian_kernel()(jnp.zeros((1, 1))))
      [[5.]]
    """
    return lambda squared: sum(jnp.exp(-squared / (2.0 * s**2)) for s in bandwidths)  # type: ignore[return-value]


def rational_quadratic_kernel(alphas: Sequence[float] = (0.2, 0.5, 1.0, 2.0, 5.0)) -> Kernel:
    """A sum of rational quadratic kernels, k(x, y) = sum over a of (1 + ||x - y||^2 / (2 a))^-a.

    Args:
      alphas: the smaller, the heavier the tail.

    Returns:
      A function of the squared distances.

    References:
      Binkowski et al., "Demystifying MMD GANs", arXiv:1801.01401, 2018, whose alphas are the defaults; its best runs
      add a linear kernel.

    Example:
      >>> print(rational_quadratic_kernel([1.0])(jnp.array([[2.0]])))
      [[0.5]]
    """
    return lambda squared: sum((1.0 + squared / (2.0 * a)) ** -a for a in alphas)  # type: ignore[return-value]


def maximum_mean_discrepancy(
    real_features: Features, fake_features: Float[Array, "m d"], *, kernel: Kernel | None = None, unbiased: bool = True
) -> Float[Array, ""]:
    """The squared maximum mean discrepancy: E k(r, r') + E k(f, f') - 2 E k(r, f).

    Args:
      real_features: `[n, d]`.
      fake_features: `[m, d]`.
      kernel: a function of the squared distances; None for `rational_quadratic_kernel()`.
      unbiased: leave pairs of an example with itself out of the first two means. The estimate can then be negative.

    Returns:
      A scalar.

    References:
      Gretton et al., "A Kernel Two-Sample Test", JMLR 2012; Li et al., arXiv:1705.08584, 2017; Binkowski et al.,
      arXiv:1801.01401, 2018. Li et al. take the square root; the gradient of the unbiased square is unbiased.

    Example:
      >>> x = jnp.zeros((2, 1))
      >>> print(maximum_mean_discrepancy(x, x + 2.0, kernel=lambda squared: -squared))
      8.0
    """
    real, fake = _centered(real_features, fake_features)
    kernel = rational_quadratic_kernel() if kernel is None else kernel
    within = _mean_pair(kernel(_squared(real, real)), unbiased) + _mean_pair(kernel(_squared(fake, fake)), unbiased)
    return within - 2.0 * jnp.mean(kernel(_squared(real, fake)))


def energy_distance(real_features: Features, fake_features: Features, *, unbiased: bool = True) -> Float[Array, ""]:
    """The energy distance: 2 E ||r - f|| - E ||r - r'|| - E ||f - f'||.

    Args:
      real_features: `[n, d]`.
      fake_features: `[m, d]`.
      unbiased: leave pairs of an example with itself out of the last two means. The estimate can then be negative.

    Returns:
      A scalar.

    References:
      Szekely and Rizzo, "Energy statistics", 2013; Bellemare et al., "The Cramer Distance as a Solution to Biased
      Wasserstein Gradients", arXiv:1705.10743, 2017. Some packages return its square root or half.

    Example:
      >>> x = jnp.zeros((2, 1))
      >>> print(energy_distance(x, x + 2.0).round(4))
      4.0
    """

    def kernel(squared: Float[Array, "n m"]) -> Float[Array, "n m"]:
        return -jnp.sqrt(jnp.maximum(squared, 1e-12))  # equal points pull at each other with a force of 0, not NaN

    return maximum_mean_discrepancy(real_features, fake_features, kernel=kernel, unbiased=unbiased)


def _centered(real: Features, fake: Float[Array, "m d"]) -> tuple[Features, Float[Array, "m d"]]:
    """Both, moved near the origin, where squared distances lose less to rounding."""
    if real.shape[1:] != fake.shape[1:]:
        raise InvalidInputError(
            f"features of {real.shape[1:]} and {fake.shape[1:]}: expected one number of them, [n, d]"
        )
    wide = jnp.promote_types(real.dtype, jnp.float32)
    real, fake = real.astype(wide), fake.astype(wide)
    center = jnp.mean(real, axis=0)
    return real - center, fake - center


def _squared(a: Features, b: Float[Array, "m d"]) -> Float[Array, "n m"]:
    """Squared distances of all pairs, without an array of n m d differences; in full precision, since they cancel."""
    products = jnp.matmul(a, b.T, precision=jax.lax.Precision.HIGHEST)
    return jnp.maximum(jnp.sum(a**2, -1)[:, None] + jnp.sum(b**2, -1) - 2.0 * products, 0.0)


def _mean_pair(values: Float[Array, "n n"], unbiased: bool) -> Float[Array, ""]:
    if not unbiased:
        return jnp.mean(values)
    n = values.shape[0]
    if n < 2:
        raise InvalidInputError(f"a batch of {n}: the unbiased estimate needs 2 examples of each kind (unbiased=False)")
    return jnp.sum(jnp.where(jnp.eye(n, dtype=bool), 0.0, values)) / (n * (n - 1))
