"""Augmentation of clips: every frame of a clip alike."""

from collections.abc import Callable

import jax
from jaxtyping import Array, Float, Key

Augment = Callable[[Key[Array, ""], Float[Array, "b ..."], Float[Array, ""]], Float[Array, "b ..."]]


def per_clip(function: Augment) -> Augment:
    """Makes an augmentation of clips `[b, t, h, w, c]` from one of images: it draws once for a clip.

    All frames of a clip are moved, coloured and cut alike, so that its motion stays what it was, as in StyleGAN-V.

    Args:
      function: `(key, images, p) -> images`, such as `diff_augment()` or `ada_pipeline()`.

    Returns:
      `(key, clips, p) -> clips`.

    References:
      Skorokhodov, Tulyakov and Elhoseiny, "StyleGAN-V", arXiv:2112.14683, 2021.

    Example:
      >>> import jax.numpy as jnp
      >>> from gan_jax import augment
      >>> clips = jnp.ones((2, 3, 4, 4, 1))
      >>> made = augment.per_clip(augment.diff_augment(["color"]))(jax.random.key(0), clips, jnp.ones(()))
      >>> bool((made[:, 0] == made[:, 2]).all())
      True
    """
    return jax.vmap(function, in_axes=(None, 1, None), out_axes=1)
