"""GAN inversion: the latents whose samples are nearest to given images, found by optimisation."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from gan_jax.core import GANState
from gan_jax.types import Game, InvalidInputError, PRNGKey


def invert(
    game: Game,
    state: GANState,
    images: Float[Array, "n ..."],
    key: PRNGKey,
    *,
    steps: int = 500,
    learning_rate: float = 0.05,
    restarts: int = 1,
    label: Array | None = None,
) -> tuple[Float[Array, "n ..."], Float[Array, " n"]]:
    """Searches latents z that minimise the mean squared error of G(z) and each image, with Adam.

    z_i = argmin mean((G(z) - x_i)^2), from `restarts` draws of the prior, of which the best result of each image is
    returned. It is how near the generator comes to images that it was not given, which an autoencoder shows by its
    reconstructions. The function can be compiled with `jax.jit`; game, steps and restarts are then constants.

    Args:
      game: game with a prior; its function `sample` is differentiated, with one key for all steps.
      state: state of the game.
      images: images in [-1, 1], of the shape of the samples.
      key: key of the start and of the generator's noise.
      steps: steps of Adam.
      learning_rate: learning rate of Adam, in units of the latents.
      restarts: starts per image.
      label: labels of the images `[n]`, for a conditional game.

    Returns:
      The latents, and the mean squared error of each image, `[n]`, at these latents.

    Raises:
      InvalidInputError: for a game without a prior, fewer than one start or step, or images of another shape.

    References:
      Zhu et al., "Generative Visual Manipulation on the Natural Image Manifold", arXiv:1609.03552, 2016; Creswell and
      Bharath, "Inverting The Generator Of A Generative Adversarial Network", arXiv:1611.05644, 2016; Bora et al.,
      "Compressed Sensing using Generative Models", arXiv:1703.03208, 2017, which restarts ten times. Only the distance
      is minimised here, without a prior on z.
    """
    if game.prior is None or steps < 1 or restarts < 1:
        raise InvalidInputError(
            f"steps={steps}, restarts={restarts}, a game {'without' if game.prior is None else 'with'} a prior: "
            "expected at least 1 of each, and a game with a prior"
        )
    prior, sample = game.prior, game.sample
    options: dict[str, Any] = {} if label is None else {"label": label}
    start_key, noise_key = jax.random.split(key)
    adam = optax.adam(learning_rate)

    def errors(z: Array) -> Float[Array, " n"]:
        made = sample(state, noise_key, len(images), inputs=z, **options)
        if made.shape != images.shape:
            raise InvalidInputError(f"images {images.shape}: this game's samples have the shape {made.shape}")
        return jnp.mean((made - images).reshape(len(images), -1) ** 2, axis=1)

    # The images are independent of each other: the gradient of the sum has that of each image in its own row.
    slope = jax.grad(lambda z: jnp.sum(errors(z)))

    def descend(key: PRNGKey) -> tuple[Array, Float[Array, " n"]]:
        z = prior.sample(key, len(images))

        def step(_: int, carry: tuple[Array, Any]) -> tuple[Array, Any]:
            z, memory = carry
            updates, memory = adam.update(slope(z), memory, z)
            return optax.apply_updates(z, updates), memory

        z, _ = jax.lax.fori_loop(0, steps, step, (z, adam.init(z)))
        return z, errors(z)

    found, lost = jax.lax.map(descend, jax.random.split(start_key, restarts))
    best = jnp.argmin(lost, axis=0)
    rows = jnp.arange(len(images))
    return found[best, rows], lost[best, rows]
