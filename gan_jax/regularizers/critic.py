"""Methods that use the gradient of a critic: gradient normalisation and latent optimisation."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gan_jax.types import InvalidInputError

Input = Float[Array, "b *d"]
Score = Float[Array, " b"]


def gradient_normalized(critic: Callable[[Input], Score]) -> Callable[[Input], Score]:
    """Returns the critic with gradient normalisation: bounded, and 1-Lipschitz where `critic` is piecewise linear.

    D(x) / (||grad_x D(x)|| + |D(x)|), with ||g|| = sqrt(sum g^2 + 1e-12) over all axes of one example.

    Args:
      critic: `x -> logits`, `[b, ...] -> [b]`: one logit per example, which depends on that example alone.

    Returns:
      A critic with values in (-1, 1). Its gradient takes second derivatives of `critic`, and a gradient penalty on it
      takes third derivatives.

    References:
      Wu et al., "Gradient Normalization for Generative Adversarial Networks", arXiv:2109.02235, 2021. The authors' code
      has no epsilon under the root. It differentiates through |D|, as here.

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
    """Moves latents by one natural-gradient step towards a higher score, as in LOGAN.

    g = grad_z D(G(z)), dz = step g / (damping + ||g||^2), z' = clip(z + dz, -1, 1). dz is the natural gradient with the
    Fisher matrix of one example, g g^T + damping I, inverted in closed form.

    Args:
      critic_of_z: `z -> D(G(z))`, with the parameters of both networks and the labels bound.
      z: latents, `[b, d]`, in [-1, 1].
      step: step size.
      damping: damping, above 0; larger values are closer to plain gradient ascent.

    Returns:
      Latents, `[b, d]`, in [-1, 1]. Gradients flow through the step, including second derivatives, as the paper
      requires for both players. For the cheaper variant apply `jax.lax.stop_gradient` to the result.

    Raises:
      InvalidInputError: if the damping is not above 0; a traced damping is not checked.

    References:
      Wu et al., "LOGAN: Latent Optimisation for Generative Adversarial Networks", arXiv:1912.00953, 2019, equation 11
      (step 0.9, damping 5). The paper uses z ~ N(0, I), truncated by the clip. It also regularises the size of dz; the
      caller has to add that term. One codebase returns inside its loop over steps, so it always takes one step.

    Example:
      >>> w = jnp.array([0.0, 2.0])
      >>> print(latent_optimization(lambda z: z @ w, jnp.zeros((1, 2)), step=1.0, damping=4.0))
      [[0.   0.25]]
    """
    if isinstance(damping, int | float) and not damping > 0:
        raise InvalidInputError(f"damping={damping}: expected a number above 0; with 0 a flat critic would divide by 0")
    gradient = jax.grad(lambda z: jnp.sum(critic_of_z(z)))(z)
    squared = jnp.sum(gradient**2, axis=-1, keepdims=True)
    moved = z + (step * gradient / (damping + squared)).astype(z.dtype)
    return jnp.clip(moved, -1.0, 1.0)
