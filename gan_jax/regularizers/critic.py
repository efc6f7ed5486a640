"""Critics changed by their own gradient: normalised, or asked how to improve a latent."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gan_jax.types import InvalidInputError

Input = Float[Array, "b *d"]
Score = Float[Array, " b"]


def gradient_normalized(critic: Callable[[Input], Score]) -> Callable[[Input], Score]:
    """Gradient normalisation: a critic wrapped so that it is bounded and 1-Lipschitz where it is piecewise linear.

    D(x) / (||grad_x D(x)|| + |D(x)|), with ||g|| = sqrt(sum g^2 + 1e-12) over all axes of one example.

    Args:
      critic: `x -> logits`, `[b, ...] -> [b]`, one logit per example, each from its own example alone.

    Returns:
      A critic with values in (-1, 1). Its gradient takes a second derivative of the critic, and a penalty on it a
      third.

    References:
      Wu et al., "Gradient Normalization for Generative Adversarial Networks", arXiv:2109.02235, 2021. The authors' code
      has no epsilon under the root, and differentiates through |D| as here.

    Example:
      >>> w = jnp.array([3.0, 4.0])
      >>> print(gradient_normalized(lambda x: x @ w)(jnp.array([[1.0, 0.5]])))
      [0.5]
    """

    def normalized(x: Input) -> Score:
        def total(x: Input) -> tuple[Array, Score]:
            logits = critic(x)
            return jnp.sum(logits), logits

        gradient, logits = jax.grad(total, has_aux=True)(x)
        wide = jnp.promote_types(x.dtype, jnp.float32)
        squared = jnp.sum(gradient.reshape(gradient.shape[0], -1).astype(wide) ** 2, axis=1)
        logits_wide = logits.astype(wide)
        return (logits_wide / (jnp.sqrt(squared + 1e-12) + jnp.abs(logits_wide))).astype(logits.dtype)

    return normalized


def latent_optimization(
    critic_of_z: Callable[[Float[Array, "b d"]], Score],
    z: Float[Array, "b d"],
    *,
    step: float | Float[Array, ""] = 0.9,
    damping: float | Float[Array, ""] = 5.0,
) -> Float[Array, "b d"]:
    """One natural-gradient step of the latents towards a higher score, as in LOGAN.

    g = grad_z D(G(z)), dz = step g / (damping + ||g||^2), z' = clip(z + dz, -1, 1): the natural gradient with the
    Fisher matrix of one example, g g^T + damping I, inverted in closed form.

    Args:
      critic_of_z: `z -> D(G(z))`, with both networks' parameters and the labels bound.
      z: `[b, d]`, in [-1, 1].
      step: length.
      damping: the larger, the nearer to plain gradient ascent.

    Returns:
      `[b, d]` in [-1, 1]. Gradients flow through the step, second derivatives included, as the paper wants for both
      players; `jax.lax.stop_gradient` it for the cheaper variant.

    Raises:
      InvalidInputError: for a damping that is not above 0 (if it is not traced).

    References:
      Wu et al., "LOGAN: Latent Optimisation for Generative Adversarial Networks", arXiv:1912.00953, 2019, equation 11
      (step 0.9, damping 5). The paper uses z ~ N(0, I) truncated by the clip and regularises the size of dz, which is
      the caller's to add. One codebase returns inside its loop over steps and always does one.

    Example:
      >>> w = jnp.array([0.0, 2.0])
      >>> print(latent_optimization(lambda z: z @ w, jnp.zeros((1, 2)), step=1.0, damping=4.0))
      [[0.   0.25]]
    """
    if isinstance(damping, int | float) and not damping > 0:
        raise InvalidInputError(f"damping={damping}: expected a number above 0; without it a flat critic divides by 0")
    gradient = jax.grad(lambda z: jnp.sum(critic_of_z(z)))(z)
    squared = jnp.sum(gradient**2, axis=-1, keepdims=True)
    moved = z + (step * gradient / (damping + squared)).astype(z.dtype)
    return jnp.clip(moved, -1.0, 1.0)
