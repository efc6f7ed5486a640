"""The controller of adaptive discriminator augmentation (ADA), which sets the probability of augmentation."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Scalar = Float[Array, ""]
Number = int | float | Scalar


class AdaState(NamedTuple):
    """State of the controller; it is part of the training state, so that a resumed run has it.

    Attributes:
      p: probability of augmentation, in [0, 1].
      sign_sum: sum of the signs of the logits of reals since the last call of `control`.
      seen: number of logits in that sum.
    """

    p: Scalar
    sign_sum: Scalar
    seen: Scalar


def init_ada(p: float = 0.0) -> AdaState:
    """Returns the state before the first iteration.

    Args:
      p: initial probability of augmentation.

    Returns:
      The state.

    Example:
      >>> print(init_ada().p)
      0.0
    """
    return AdaState(jnp.float32(p), jnp.float32(0), jnp.float32(0))


def observe(state: AdaState, real_logits: Float[Array, "*logits"]) -> AdaState:
    """Adds the signs of the discriminator's logits for (augmented) reals to the counts.

    Args:
      state: state of the controller.
      real_logits: logits D(x) of reals, of any shape.

    Returns:
      The new state. No gradient flows through it.

    References:
      Karras et al., "Training Generative Adversarial Networks with Limited Data", arXiv:2006.06676, 2020, section 3.1:
      the heuristic r_t = E sign(D(real)), which is 0 without overfitting and 1 with complete overfitting.

    Example:
      >>> state = observe(init_ada(), jnp.array([2.0, 1.0, -3.0]))
      >>> print(state.sign_sum, state.seen)
      1.0 3.0
    """
    signs = jnp.sign(jax.lax.stop_gradient(real_logits)).astype(jnp.float32)
    return AdaState(state.p, state.sign_sum + jnp.sum(signs), state.seen + signs.size)


def control(state: AdaState, images: Number, *, target: Number = 0.6, speed_images: Number = 500_000.0) -> AdaState:
    """Adjusts p so that the mean sign of D(real) approaches `target`, and resets the counts.

    p <- clip(p + sign(r_t - target) images / speed_images, 0, 1), with r_t the mean sign since the last call.

    Args:
      state: state of the controller.
      images: number of reals shown to the discriminator since the last call: batch size times iterations.
      target: desired r_t; above it the discriminator overfits.
      speed_images: number of images in which p can go from 0 to 1.

    Returns:
      The new state; p does not change if nothing was observed.

    References:
      Karras et al., arXiv:2006.06676, 2020 (target 0.6, every 4 iterations, 500 thousand images). The paper's step has
      a fixed size, as here. Most ports lose p and the counts on resume.

    Example:
      >>> state = observe(init_ada(), jnp.ones(64))
      >>> print(control(state, 5_000).p.round(4))
      0.01
    """
    mean_sign = state.sign_sum / jnp.maximum(state.seen, 1.0)
    step = jnp.where(state.seen > 0, jnp.sign(mean_sign - target), 0.0) * images / speed_images
    return init_ada()._replace(p=jnp.clip(state.p + step, 0.0, 1.0))
