"""Terms of the evidence lower bound of variational autoencoders, in nats per example: likelihoods and KL divergence.

-log p(x) <= E_q[-log p(x | z)] + KL(q(z | x) || p(z)).
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gan_jax.types import check_same_shape

Values = Float[Array, "b *shape"]


def gaussian_kl(mean: Values, log_variance: Values) -> Float[Array, " b"]:
    """Computes the KL divergence of a normal distribution with independent variables from the standard normal one.

    1/2 sum_i (mean_i^2 + exp(log_variance_i) - 1 - log_variance_i).

    Args:
      mean: means of the posteriors, `[b, ...]`.
      log_variance: logarithms of their variances, of the same shape.

    Returns:
      `[b]`, non-negative, in nats; float32 or wider.

    References:
      Kingma and Welling, "Auto-Encoding Variational Bayes", arXiv:1312.6114, 2013, appendix B.

    Example:
      >>> print(gaussian_kl(jnp.array([[0.0, 2.0]]), jnp.zeros((1, 2))))
      [2.]
    """
    check_same_shape(mean=mean, log_variance=log_variance)
    mean, log_variance = _widen(mean), _widen(log_variance)
    return 0.5 * _total(mean**2 + jnp.expm1(log_variance) - log_variance)


def gaussian_nll(
    prediction: Values, target: Values, variance: Float[Array, ""] | float | None = None
) -> Float[Array, " b"]:
    """Computes the negative log-likelihood of targets under normal distributions around predictions, of one variance.

    sum_i ((target_i - prediction_i)^2 / variance + log(2 pi variance)) / 2. Without a variance it is that of maximum
    likelihood, the mean squared error of the whole batch; the mean over the batch is then d/2 (log(2 pi MSE) + 1) for d
    values per example. The variance and the weight of a KL term (beta) are otherwise one and the same knob.

    Args:
      prediction: means of the distributions, `[b, ...]`.
      target: values, of the same shape.
      variance: variance of all values; None for that of maximum likelihood. That is a constant for differentiation,
        which changes no gradient of the mean over the batch, because the variance is optimal.

    Returns:
      `[b]`, in nats, of a density: it can be negative; float32 or wider.

    References:
      Rybkin, Daniilidis and Levine, "Simple and Effective VAE Training with Calibrated Decoders" (optimal sigma-VAE),
      arXiv:2006.13202, 2020. Public code of VAEs mostly fixes the variance at 1, or at 1/2 by taking the plain squared
      error, and often takes means where the bound has sums.

    Example:
      >>> x = jnp.array([[1.0, -1.0]])
      >>> print(gaussian_nll(jnp.zeros((1, 2)), x).round(2), gaussian_nll(jnp.zeros((1, 2)), x, 4.0).round(2))
      [2.84] [3.47]
    """
    check_same_shape(prediction=prediction, target=target)
    squares = (_widen(prediction) - _widen(target)) ** 2
    if variance is None:  # the floor keeps an exact reconstruction finite
        variance = jax.lax.stop_gradient(jnp.maximum(jnp.mean(squares), 1e-10))
    variance = jnp.asarray(variance, squares.dtype)
    return 0.5 * _total(squares / variance + jnp.log(2.0 * math.pi * variance))


def bernoulli_nll(logits: Values, target: Values) -> Float[Array, " b"]:
    """Computes the negative log-likelihood of binary images under independent Bernoulli variables.

    sum_i softplus(logits_i) - t_i logits_i, with t = (target + 1) / 2.

    Args:
      logits: log odds of the value 1 against -1, `[b, ...]`.
      target: values -1 and 1, of the same shape. Grey values between them give the cross-entropy, which is not the
        negative logarithm of a probability.

    Returns:
      `[b]`, non-negative for binary targets, in nats; float32 or wider.

    References:
      Kingma and Welling, "Auto-Encoding Variational Bayes", arXiv:1312.6114, 2013, appendix C; Loaiza-Ganem and
      Cunningham, "The continuous Bernoulli", arXiv:1907.06845, 2019, on what is wrong with grey values.

    Example:
      >>> print(bernoulli_nll(jnp.zeros((1, 3)), jnp.array([[1.0, -1.0, 1.0]])).round(3))
      [2.079]
    """
    check_same_shape(logits=logits, target=target)
    logits, target = _widen(logits), _widen(target)
    return _total(jax.nn.softplus(logits) - 0.5 * (target + 1.0) * logits)


def _widen(x: Array) -> Array:
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _total(x: Array) -> Float[Array, " b"]:
    return jnp.sum(x.reshape(x.shape[0], -1), axis=1)
