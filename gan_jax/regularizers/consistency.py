"""Consistency regularisation."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from gan_jax.types import check_same_shape


def consistency(logits: Float[Array, "b *rest"], augmented_logits: Float[Array, "b *rest"]) -> Float[Array, " b"]:
    """Computes the consistency term: the squared difference of two outputs that should be equal.

    ||a - b||^2, summed over each example. The inputs, and the player whose loss the term is added to, determine the
    regulariser:

    | regulariser | a, b | player, sign |
    |---|---|---|
    | CR | D(x), D(T(x)), T an augmentation | D, + |
    | bCR | the same, and D(G(z)), D(T(G(z))) | D, + |
    | zCR, discriminator | D(G(z)), D(G(z + noise)) | D, + |
    | zCR, generator | G(z), G(z + noise) | G, - |

    Args:
      logits: the outputs a, `[b, ...]`: logits, or images for the generator's part of zCR.
      augmented_logits: the outputs b, of the same shape.

    Returns:
      `[b]`, non-negative, float32 or wider.

    References:
      Zhang et al., "Consistency Regularization for Generative Adversarial Networks", arXiv:1910.12027, 2020 (weight
      10); Zhao et al., "Improved Consistency Regularization for GANs", arXiv:2002.04724, 2021 (bCR, zCR; noise of
      standard deviation 0.03 or 0.07, weights 10, 10, 5 and 0.5). Code that takes the mean over an image's pixels
      effectively has another weight in the generator's part.

    Example:
      >>> print(consistency(jnp.array([1.0, 2.0]), jnp.array([1.0, 4.0])))
      [0. 4.]
    """
    check_same_shape(logits=logits, augmented_logits=augmented_logits)
    wide = jnp.promote_types(logits.dtype, jnp.float32)
    difference = logits.astype(wide) - augmented_logits.astype(wide)
    return jnp.sum(difference.reshape(difference.shape[0], -1) ** 2, axis=1)
