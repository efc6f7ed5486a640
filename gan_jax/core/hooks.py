"""Hooks that run once at the end of an iteration."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from gan_jax.core.state import GANState


def ema(player: str = "generator") -> Callable[[GANState], GANState]:
    """An exponential moving average of a player's parameters and model state, counted in images.

    average <- beta average + (1 - beta) value, beta = 0.5 ** (batch_size / halflife),
    halflife = min(ema_halflife_images, ema_rampup * images seen); with a rampup of 0 the half-life is constant.
    Reads `ema_halflife_images` and `ema_rampup` from `state.hparams` and `batch_size` from `state.aux`.

    Args:
      player: whose average to keep; `state.ema[player]` must exist.

    Returns:
      A hook for `Game.after`.

    References:
      Karras et al., "Analyzing and Improving the Image Quality of StyleGAN", arXiv:1912.04958, 2020, and its public
      code (half-life in images, ramp-up 0.05). Other codebases fix beta per step, which then depends on the batch size,
      and average parameters only, leaving batch statistics behind.
    """

    def hook(state: GANState) -> GANState:
        hparams, batch_size = state.hparams, state.aux["batch_size"]
        images = (state.step.astype(jnp.float32) + 1.0) * batch_size
        ramped = jnp.minimum(hparams["ema_halflife_images"], hparams["ema_rampup"] * images)
        halflife = jnp.where(hparams["ema_rampup"] > 0, ramped, hparams["ema_halflife_images"])
        beta = 0.5 ** (batch_size / jnp.maximum(halflife, 1e-8))

        def average(old: jax.Array, new: jax.Array) -> jax.Array:
            if not jnp.issubdtype(new.dtype, jnp.floating):
                return new
            return (new + beta.astype(new.dtype) * (old - new)).astype(new.dtype)

        source = state.players[player]
        averaged = jax.tree.map(
            average, state.ema[player], {"params": source.params, "model_state": source.model_state}
        )
        return state.replace(ema={**state.ema, player: averaged})

    return hook
