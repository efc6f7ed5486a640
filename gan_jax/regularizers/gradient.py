"""Penalties on the gradient of the critic with respect to its input.

All take `critic`, a closure `x -> logits` with label, augmentation and model state already bound, and return one value
per example. Logits with more axes than the batch, or in several scales, are summed per example first. The critic must
treat examples independently (layer norm, not batch norm) for the gradient to be that of one example.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree

from gan_jax.types import check_same_shape

Critic = Callable[[Float[Array, "b *d"]], PyTree]


def _squared_gradient_norm(critic: Critic, x: Float[Array, "b *d"]) -> Float[Array, " b"]:
    """||dD/dx||^2 of every example, in float32 or wider."""

    def total(x: Array) -> Array:
        return jnp.sum(jnp.stack([jnp.sum(_at_least_float32(logits)) for logits in jax.tree.leaves(critic(x))]))

    gradient = _at_least_float32(jax.grad(total)(x))
    return jnp.sum(gradient**2, axis=tuple(range(1, gradient.ndim)))


def _gradient_norm(critic: Critic, x: Float[Array, "b *d"]) -> Float[Array, " b"]:
    return jnp.sqrt(_squared_gradient_norm(critic, x) + 1e-12)


def _at_least_float32(x: Array) -> Array:
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def zero_centered_penalty(critic: Critic, x: Float[Array, "b *d"]) -> Float[Array, " b"]:
    """The zero-centred gradient penalty: R1 if `x` are reals, R2 if they are fakes.

    ||grad_x D(x)||^2, summed over all axes of one example. Multiply the mean by gamma / 2 for the penalty of the paper.

    Args:
      critic: `x -> logits`, with logits `[b, ...]` or a tree of them.
      x: where the gradient is taken, `[b, ...]`.

    Returns:
      `[b]`, non-negative, float32 or wider.

    References:
      Mescheder, Geiger and Nowozin, "Which Training Methods for GANs do actually Converge?", arXiv:1801.04406, 2018.
      The same "gamma = 10" is three different penalties in public code: with or without the factor one half, and with
      a mean over pixels in place of the sum.

    Example:
      >>> w = jnp.array([3.0, 4.0])
      >>> print(zero_centered_penalty(lambda x: x @ w, jnp.zeros((2, 2))))
      [25. 25.]
    """
    return _squared_gradient_norm(critic, x)


def interpolated_penalty(
    critic: Critic,
    real: Float[Array, "b *d"],
    fake: Float[Array, "b *d"],
    key: Key[Array, ""],
    *,
    target: float = 1.0,
    one_sided: bool = False,
) -> Float[Array, " b"]:
    """The gradient penalty of WGAN-GP, and with `one_sided` that of WGAN-LP.

    (||grad D(x)|| - target)^2 at x = real + alpha (fake - real), with alpha uniform in [0, 1), one per example, and
    ||g|| = sqrt(sum g^2 + 1e-12), so that a zero gradient gives no NaN. `one_sided` squares only the positive part.

    Args:
      critic: `x -> logits`, with logits `[b, ...]` or a tree of them.
      real: `[b, ...]`.
      fake: `[b, ...]`, of the same shape.
      key: for alpha.
      target: the norm that is not penalised.
      one_sided: penalise only norms above `target`.

    Returns:
      `[b]`, non-negative, float32 or wider. WGAN-GP multiplies the mean by 10.

    References:
      Gulrajani et al., "Improved Training of Wasserstein GANs", arXiv:1704.00028, 2017; Petzka, Fischer and
      Lukovnicov, "On the regularization of Wasserstein GANs", arXiv:1709.08894, 2017 (one-sided). Public code also
      draws one alpha per batch, takes the norm over the whole batch (torchgan) or over the channels of each pixel
      (basicsr), divides by the target (tensorflow-gan), or has no epsilon, which is NaN at zero gradient.

    Example:
      >>> w = jnp.array([3.0, 4.0])
      >>> x = jnp.zeros((2, 2))
      >>> print(interpolated_penalty(lambda x: x @ w, x, x + 1.0, jax.random.key(0)))
      [16. 16.]
    """
    check_same_shape(real=real, fake=fake)
    excess = _gradient_norm(critic, real + _alpha(key, real) * (fake - real)) - target
    return (jax.nn.relu(excess) if one_sided else excess) ** 2


def dragan_penalty(
    critic: Critic, real: Float[Array, "b *d"], key: Key[Array, ""], *, scale: float = 0.5
) -> Float[Array, " b"]:
    """The gradient penalty of DRAGAN, around reals: no fakes are needed.

    (||grad D(x)|| - 1)^2 at x = real + alpha delta, delta = scale std(real) u, with u uniform in [0, 1) for every
    pixel, alpha uniform in [0, 1) for every example, and std one number, over the whole
    batch, with 1e-12 added to the variance.

    Args:
      critic: `x -> logits`, with logits `[b, ...]` or a tree of them.
      real: `[b, ...]`.
      key: for u and alpha.
      scale: size of the neighbourhood, in standard deviations of the data.

    Returns:
      `[b]`, non-negative, float32 or wider. The paper multiplies the mean by 10. Inside `jax.shard_map` std is the
      shard's.

    References:
      Kodali et al., "On Convergence and Stability of GANs", arXiv:1705.07215, 2017. At least four variants of the noise
      are in use: the paper's text has normal noise, its code this one; others centre u at 0 or leave out alpha.

    Example:
      >>> w = jnp.array([3.0, 4.0])
      >>> print(dragan_penalty(lambda x: x @ w, jnp.zeros((2, 2)), jax.random.key(0)))
      [16. 16.]
    """
    alpha_key, noise_key = jax.random.split(key)
    std = jnp.sqrt(jnp.var(_at_least_float32(real)) + 1e-12)
    delta = (scale * std * jax.random.uniform(noise_key, real.shape)).astype(real.dtype)
    return (_gradient_norm(critic, real + _alpha(alpha_key, real) * delta) - 1.0) ** 2


def _alpha(key: Key[Array, ""], x: Float[Array, "b *d"]) -> Array:
    """Uniform in [0, 1), one per example, shaped to multiply `x`."""
    return jax.random.uniform(key, (x.shape[0],) + (1,) * (x.ndim - 1)).astype(x.dtype)
