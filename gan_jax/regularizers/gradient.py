"""Penalties on the gradient of the critic with respect to its input.

All functions take `critic`, a closure `x -> logits` with label, augmentation and model state already bound. They return
one value per example. If an example has several logits (a map, or several scales), its logits are summed first. The
critic must treat examples independently (layer norm, not batch norm); otherwise the gradient is not that of one
example.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree

from gan_jax.types import check_same_shape

Critic = Callable[[Float[Array, "b *d"]], PyTree]


def _squared_gradient_norm(critic: Critic, x: Float[Array, "b *d"]) -> Float[Array, " b"]:
    """Returns ||dD/dx||^2 of each example, in float32 or wider."""

    def total(x: Array) -> Array:
        return jnp.sum(jnp.stack([jnp.sum(_at_least_float32(logits)) for logits in jax.tree.leaves(critic(x))]))

    # Examples are independent, so the gradient of the sum over the batch holds the gradient of each example.
    gradient = _at_least_float32(jax.grad(total)(x))
    return jnp.sum(gradient**2, axis=tuple(range(1, gradient.ndim)))


def _gradient_norm(critic: Critic, x: Float[Array, "b *d"]) -> Float[Array, " b"]:
    """Returns ||dD/dx|| of each example; the epsilon keeps its derivative finite where the gradient is 0."""
    return jnp.sqrt(_squared_gradient_norm(critic, x) + 1e-12)


def _at_least_float32(x: Array) -> Array:
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def zero_centered_penalty(critic: Critic, x: Float[Array, "b *d"]) -> Float[Array, " b"]:
    """Computes the zero-centred gradient penalty: R1 if `x` are reals, R2 if they are fakes.

    ||grad_x D(x)||^2, summed over all axes of one example. The penalty of the paper is the mean times gamma / 2.

    Args:
      critic: `x -> logits`, with logits `[b, ...]` or a tree of them.
      x: examples at which the gradient is taken, `[b, ...]`.

    Returns:
      `[b]`, non-negative, float32 or wider.

    References:
      Mescheder, Geiger and Nowozin, "Which Training Methods for GANs do actually Converge?", arXiv:1801.04406, 2018.
      The same "gamma = 10" means three different penalties in public code: with the factor one half, without it, and
      with a mean over pixels instead of the sum.

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
    """Computes the gradient penalty of WGAN-GP, or with `one_sided` that of WGAN-LP.

    (||grad D(x)|| - target)^2 at x = real + alpha (fake - real). alpha is uniform in [0, 1), one per example. ||g|| =
    sqrt(sum g^2 + 1e-12), so that a zero gradient gives no NaN. `one_sided` squares only the positive part.

    Args:
      critic: `x -> logits`, with logits `[b, ...]` or a tree of them.
      real: real examples, `[b, ...]`.
      fake: fake examples, `[b, ...]`, of the same shape.
      key: key for alpha.
      target: gradient norm that is not penalised.
      one_sided: whether to penalise only norms above `target`.

    Returns:
      `[b]`, non-negative, float32 or wider. WGAN-GP multiplies the mean by 10.

    References:
      Gulrajani et al., "Improved Training of Wasserstein GANs", arXiv:1704.00028, 2017; Petzka, Fischer and Lukovnicov,
      "On the regularization of Wasserstein GANs", arXiv:1709.08894, 2017 (one-sided). Other public code draws one alpha
      per batch, takes the norm over the whole batch (torchgan) or over the channels of each pixel (basicsr), divides by
      the target (tensorflow-gan), or has no epsilon, which gives NaN at a zero gradient.

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
    """Computes the gradient penalty of DRAGAN around reals; it needs no fakes.

    (||grad D(x)|| - 1)^2 at x = real + alpha delta, with delta = scale std(real) u. u is uniform in [0, 1) for every
    element, and alpha is uniform in [0, 1) for every example. std is one number over the whole batch, with 1e-12 added
    to the variance.

    Args:
      critic: `x -> logits`, with logits `[b, ...]` or a tree of them.
      real: real examples, `[b, ...]`.
      key: key for u and alpha.
      scale: size of the neighbourhood, in standard deviations of the data.

    Returns:
      `[b]`, non-negative, float32 or wider. The paper multiplies the mean by 10. Inside `jax.shard_map` std is that of
      the shard.

    References:
      Kodali et al., "On Convergence and Stability of GANs", arXiv:1705.07215, 2017. At least four variants of the noise
      are in use. The paper's text has normal noise; its code has the noise used here. Others centre u at 0 or leave out
      alpha.

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
    """Draws one number per example, uniform in [0, 1), in a shape that broadcasts against `x`."""
    return jax.random.uniform(key, (x.shape[0],) + (1,) * (x.ndim - 1)).astype(x.dtype)
