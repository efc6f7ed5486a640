"""Weights for losses: top-k weights of examples, and a weight that balances an adversarial term with another term."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Num, PyTree

from gan_jax.types import InvalidInputError


def top_k(fake_logits: Float[Array, " b"], k: Num[Array, ""] | int | float) -> Float[Array, " b"]:
    """Returns weights for the generator's losses that keep the k fakes with the highest logits.

    The weights are b / k for those fakes and 0 for the others, so the mean of weights times losses is the mean over the
    k fakes. `k` may be traced: annealing it then needs no recompilation. No gradient flows through the weights.

    Args:
      fake_logits: logits of fakes, `[b]`; take the mean of each example's patch logits first.
      k: number of fakes to keep, from 1 to b, rounded down; a traced k is clipped to this range. The paper starts at b,
        multiplies by 0.99 every epoch, and ends at b / 2.

    Returns:
      `[b]`. Among equal logits the first are kept, so that exactly k fakes are kept.

    Raises:
      InvalidInputError: if the logits are not `[b]`, or if k is outside 1 to b and not traced.

    References:
      Sinha et al., "Top-k Training of GANs: Improving GAN Performance by Throwing Away Bad Samples", arXiv:2002.06224,
      2020.

    Example:
      >>> print(top_k(jnp.array([0.0, 3.0, 1.0, 2.0]), 2))
      [0. 2. 0. 2.]
    """
    if fake_logits.ndim != 1:
        raise InvalidInputError(f"fake_logits has the shape {fake_logits.shape}: expected one logit per example, [b]")
    size = fake_logits.shape[0]
    if isinstance(k, int | float) and not 1 <= k <= size:
        raise InvalidInputError(f"k={k}: expected 1 to {size}, the size of the batch")
    # The argsort of an argsort is the rank. Both are stable, so no two fakes share a rank and ties keep their order.
    rank = jnp.argsort(jnp.argsort(jax.lax.stop_gradient(-fake_logits)))
    k = jnp.clip(jnp.floor(k), 1, size)
    scale = jnp.asarray(size / k, fake_logits.dtype)
    return jnp.where(rank < k, scale, jnp.zeros_like(scale))


def adaptive_weight(
    reconstruction_gradient: PyTree, adversarial_gradient: PyTree, *, epsilon: float = 1e-6, maximum: float = 1e4
) -> Float[Array, ""]:
    """Returns VQGAN's weight of the adversarial term, which balances it with the reconstruction loss.

    min(||g_reconstruction|| / (||g_adversarial|| + epsilon), maximum), a constant for differentiation. With this weight
    both gradients are equally long at the decoder's last layer.

    Args:
      reconstruction_gradient: gradient of the reconstruction loss with respect to the last layer's parameters; any
        tree.
      adversarial_gradient: gradient of the generator's adversarial loss with respect to the same parameters.
      epsilon: constant added to the denominator.
      maximum: upper bound of the weight.

    Returns:
      A non-negative scalar in float32 or wider.

    References:
      Esser, Rombach and Ommer, "Taming Transformers for High-Resolution Image Synthesis", arXiv:2012.09841, 2021,
      equation 7 (epsilon 1e-6). The authors' code uses 1e-4 and multiplies the result by 0.8 or another constant.

    Example:
      >>> print(adaptive_weight(jnp.array([3.0, 4.0]), jnp.array([0.0, 2.0]), epsilon=0.5))
      2.0
    """

    def norm(gradient: PyTree) -> Array:
        leaves = [x.astype(jnp.promote_types(x.dtype, jnp.float32)) for x in jax.tree.leaves(gradient)]
        return jnp.sqrt(sum((jnp.sum(x**2) for x in leaves), start=jnp.zeros((), jnp.float32)))

    weight = norm(reconstruction_gradient) / (norm(adversarial_gradient) + epsilon)
    return jax.lax.stop_gradient(jnp.minimum(weight, maximum))
