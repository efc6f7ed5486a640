"""Path-length regularisation of a generator."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

Latents = Float[Array, "b *layers d"]


def path_length(
    synthesize: Callable[[Latents], Float[Array, "b h w c"]],
    w: Latents,
    key: Key[Array, ""],
    mean: Float[Array, ""],
    *,
    decay: float | Float[Array, ""] = 0.01,
) -> tuple[Float[Array, " b"], Float[Array, ""]]:
    """Computes the path-length regulariser of StyleGAN2: equal steps in w should change the image by equal lengths.

    (||J^T y|| - a)^2, where J is the Jacobian of the image with respect to w, y ~ N(0, 1) / sqrt(height width), and
    ||J^T y|| = sqrt(mean over layers of sum over d of (J^T y)^2). The target a is a moving average, lerp(a, E ||J^T
    y||, decay). It is updated first, and no gradient flows through it.

    Args:
      synthesize: `w -> images`, with parameters and noise bound.
      w: style latents, `[b, d]`, or `[b, layers, d]` if each layer has its own.
      key: key for y.
      mean: the average a before this call; start with 0, and keep it in the training state.
      decay: weight of the new mean length in the average a.

    Returns:
      The penalties `[b]`, non-negative, float32 or wider, and the new a. StyleGAN2 multiplies the mean of the penalties
      by 2.

    References:
      Karras et al., "Analyzing and Improving the Image Quality of StyleGAN", arXiv:1912.04958, 2020, equation 4. The
      authors' code runs it every 4 iterations on half the batch. There the gradient flows through the new a as well,
      which takes decay times the mean of (||J^T y|| - a) from each (||J^T y|| - a) in the gradient. Ports that take one
      norm over layers and d together, or that lose a when they resume, have another target.

    Example:
      >>> w = jnp.ones((2, 3))
      >>> image = lambda w: jnp.sum(w, -1)[:, None, None, None]
      >>> penalty, mean = path_length(image, w, jax.random.key(0), jnp.zeros(()), decay=1.0)
      >>> print(penalty.shape, mean.shape)
      (2,) ()
    """
    image = jax.eval_shape(synthesize, w)
    noise = (jax.random.normal(key, image.shape) / math.sqrt(image.shape[-3] * image.shape[-2])).astype(image.dtype)
    gradient = jax.grad(lambda w: jnp.sum(synthesize(w) * noise))(w)
    gradient = gradient.astype(jnp.promote_types(gradient.dtype, jnp.float32))
    squared = jnp.sum(gradient**2, axis=-1).reshape(gradient.shape[0], -1)
    length = jnp.sqrt(jnp.mean(squared, axis=1) + 1e-12)
    mean = mean + decay * (jnp.mean(jax.lax.stop_gradient(length)).astype(mean.dtype) - mean)
    return (length - mean.astype(length.dtype)) ** 2, mean
