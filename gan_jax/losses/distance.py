"""Distances between two batches of features: losses that compare distributions, not single examples.

A generator minimises them, either on the features of a critic that maximises them (MMD GAN, Cramer GAN) or on fixed
features. Each distance is a scalar, since it has no value per example. It is computed in float32 or wider.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gan_jax.types import InvalidInputError

Features = Float[Array, "n d"]
Kernel = Callable[[Float[Array, "n m"]], Float[Array, "n m"]]


def gaussian_kernel(bandwidths: Sequence[float] = (1.0, 2.0, 4.0, 8.0, 16.0)) -> Kernel:
    """Returns a sum of Gaussian kernels: k(x, y) = sum over s of exp(-||x - y||^2 / (2 s^2)).

    Args:
      bandwidths: values of s, in the units of the features.

    Returns:
      A function of the squared distances.

    References:
      Li et al., "MMD GAN: Towards Deeper Understanding of Moment Matching Network", arXiv:1705.08584, 2017, whose
      bandwidths are the defaults. Some public code uses s as the variance.

    Example:
      >>> print(gaussian_kernel()(jnp.zeros((1, 1))))
      [[5.]]
    """
    return lambda squared: sum(jnp.exp(-squared / (2.0 * s**2)) for s in bandwidths)  # type: ignore[return-value]


def rational_quadratic_kernel(alphas: Sequence[float] = (0.2, 0.5, 1.0, 2.0, 5.0)) -> Kernel:
    """Returns a sum of rational quadratic kernels: k(x, y) = sum over a of (1 + ||x - y||^2 / (2 a))^-a.

    Args:
      alphas: values of a; a smaller a gives a heavier tail.

    Returns:
      A function of the squared distances.

    References:
      Binkowski et al., "Demystifying MMD GANs", arXiv:1801.01401, 2018, whose alphas are the defaults. The paper's best
      runs add a linear kernel.

    Example:
      >>> print(rational_quadratic_kernel([1.0])(jnp.array([[2.0]])))
      [[0.5]]
    """
    return lambda squared: sum((1.0 + squared / (2.0 * a)) ** -a for a in alphas)  # type: ignore[return-value]


def maximum_mean_discrepancy(
    real_features: Features, fake_features: Float[Array, "m d"], *, kernel: Kernel | None = None, unbiased: bool = True
) -> Float[Array, ""]:
    """Computes the squared maximum mean discrepancy: E k(r, r') + E k(f, f') - 2 E k(r, f).

    Args:
      real_features: features of the reals, `[n, d]`.
      fake_features: features of the fakes, `[m, d]`.
      kernel: a function of the squared distances; None for `rational_quadratic_kernel()`.
      unbiased: whether to leave pairs of an example with itself out of the first two means. The estimate can then be
        negative.

    Returns:
      A scalar.

    References:
      Gretton et al., "A Kernel Two-Sample Test", JMLR 2012; Li et al., arXiv:1705.08584, 2017; Binkowski et al.,
      arXiv:1801.01401, 2018. Li et al. take the square root. This function returns the square, because the gradient of
      its unbiased estimate is unbiased.

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
    """Computes the energy distance: 2 E ||r - f|| - E ||r - r'|| - E ||f - f'||.

    Args:
      real_features: features of the reals, `[n, d]`.
      fake_features: features of the fakes, `[m, d]`.
      unbiased: whether to leave pairs of an example with itself out of the last two means. The estimate can then be
        negative.

    Returns:
      A scalar.

    References:
      Szekely and Rizzo, "Energy statistics", 2013; Bellemare et al., "The Cramer Distance as a Solution to Biased
      Wasserstein Gradients", arXiv:1705.10743, 2017. Some packages return the square root or half of it.

    Example:
      >>> x = jnp.zeros((2, 1))
      >>> print(energy_distance(x, x + 2.0).round(4))
      4.0
    """

    def kernel(squared: Float[Array, "n m"]) -> Float[Array, "n m"]:
        # sqrt has an infinite slope at 0; with the floor, equal points get the gradient 0 instead of NaN
        return -jnp.sqrt(jnp.maximum(squared, 1e-12))

    return maximum_mean_discrepancy(real_features, fake_features, kernel=kernel, unbiased=unbiased)


def _centered(real: Features, fake: Float[Array, "m d"]) -> tuple[Features, Float[Array, "m d"]]:
    """Returns both sets in float32 or wider, shifted by the mean of the reals.

    Squared distances lose less to rounding near the origin.
    """
    if real.shape[1:] != fake.shape[1:]:
        raise InvalidInputError(
            f"features of shapes {real.shape[1:]} and {fake.shape[1:]} per example: expected [n, d] and [m, d], one d"
        )
    wide = jnp.promote_types(real.dtype, jnp.float32)
    real, fake = real.astype(wide), fake.astype(wide)
    center = jnp.mean(real, axis=0)
    return real - center, fake - center


def _squared(a: Features, b: Float[Array, "m d"]) -> Float[Array, "n m"]:
    """Returns the squared distances of all pairs, without an `[n, m, d]` array of differences.

    The product runs in full precision, because the terms cancel.
    """
    products = jnp.matmul(a, b.T, precision=jax.lax.Precision.HIGHEST)
    return jnp.maximum(jnp.sum(a**2, -1)[:, None] + jnp.sum(b**2, -1) - 2.0 * products, 0.0)


def _mean_pair(values: Float[Array, "n n"], unbiased: bool) -> Float[Array, ""]:
    """Returns the mean of a square matrix; if `unbiased`, without its diagonal (pairs of an example with itself)."""
    if not unbiased:
        return jnp.mean(values)
    n = values.shape[0]
    if n < 2:
        raise InvalidInputError(
            f"a batch of {n}: the unbiased estimate needs 2 or more reals and 2 or more fakes; or pass unbiased=False"
        )
    return jnp.sum(jnp.where(jnp.eye(n, dtype=bool), 0.0, values)) / (n * (n - 1))
