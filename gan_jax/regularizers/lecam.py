"""The LeCam regulariser and its running means."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gan_jax.types import check_same_shape

Logits = Float[Array, "b *rest"]


class LeCamState(NamedTuple):
    """Running means of the logits. Keep them in the training state, so that a resumed run continues with them.

    Attributes:
      real: exponential moving average of the mean logit of reals. It starts at 0 and is not corrected for that start.
      fake: the same average of the mean logit of fakes.
      weight: the same average of the constant 1. Dividing the other two by it corrects for their start at 0.
    """

    real: Float[Array, ""]
    fake: Float[Array, ""]
    weight: Float[Array, ""]


def init_lecam() -> LeCamState:
    """Returns the state before the first update.

    Returns:
      A state of zeros.

    Example:
      >>> print(init_lecam().weight)
      0.0
    """
    return LeCamState(*(jnp.zeros((), jnp.float32) for _ in LeCamState._fields))


def lecam(
    real_logits: Logits, fake_logits: Logits, state: LeCamState, *, decay: float | Float[Array, ""] = 0.99
) -> tuple[Float[Array, " b"], LeCamState]:
    """Computes the LeCam regulariser, which keeps the logits of each kind near the running mean of the other kind.

    max(0, r - a_f)^2 + max(0, a_r - f)^2. The anchors a_r and a_f are exponential moving averages of the mean logits: a
    = m_t / (1 - decay^t) with m_t = decay m_(t-1) + (1 - decay) E logits and m_0 = 0. They include this batch. Added to
    the discriminator's loss, times a weight, the term bounds the discriminator when data is scarce.

    Args:
      real_logits: logits of reals, `[b, ...]`. The terms are averaged over all axes but the first.
      fake_logits: logits of fakes, of the same shape.
      state: state from `init_lecam` or from the previous call; no gradient flows through the anchors.
      decay: decay of the moving averages.

    Returns:
      The penalties `[b]`, non-negative, float32 or wider, and the new state. Inside `jax.shard_map` the anchors are
      those of the shard; gather the logits first.

    References:
      Tseng et al., "Regularizing Generative Adversarial Networks under Limited Data", arXiv:2104.03310, 2021. The
      paper's equation has plain squares; its code uses the positive parts, as here. Other code starts the anchors at
      1000 or 7777, starts them at 0 without the correction, or leaves them out of checkpoints. Most code applies the
      regulariser only after some iterations.

    Example:
      >>> penalty, state = lecam(jnp.array([1.0, 3.0]), jnp.array([-1.0, -3.0]), init_lecam())
      >>> print(penalty)
      [18. 50.]
    """
    check_same_shape(real_logits=real_logits, fake_logits=fake_logits)
    wide = jnp.promote_types(real_logits.dtype, jnp.float32)
    real, fake = (x.astype(wide).reshape(x.shape[0], -1) for x in (real_logits, fake_logits))

    real_mean, fake_mean = (jnp.mean(jax.lax.stop_gradient(x)) for x in (real, fake))
    means = LeCamState(real_mean, fake_mean, jnp.ones(()))
    state = jax.tree.map(lambda old, new: (decay * old + (1.0 - decay) * new).astype(old.dtype), state, means)
    weight = jnp.maximum(state.weight, jnp.finfo(jnp.float32).tiny)  # avoids 0 / 0 if decay is 1 from the first call
    real_anchor, fake_anchor = state.real / weight, state.fake / weight
    penalty = jax.nn.relu(real - fake_anchor) ** 2 + jax.nn.relu(real_anchor - fake) ** 2
    return jnp.mean(penalty, axis=1), state
