"""Hooks that run once at the end of an iteration, with what they need in the state."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gan_jax.core.state import GANState, copied
from gan_jax.types import InvalidInputError


class Hook(NamedTuple):
    """What happens at the end of an iteration, and what it needs in the state.

    Attributes:
      run: `(state) -> state`, for `Game.after`.
      begin: `(state, batch size) -> state`, adds what `run` reads to the state at step 0.
      shown: the hyperparameters that it moves; the log has their values.
    """

    run: Callable[[GANState], GANState]
    begin: Callable[[GANState, int], GANState] = lambda state, batch_size: state
    shown: tuple[str, ...] = ()


def with_batch_size(state: GANState, batch_size: int) -> GANState:
    """The state with `aux['batch_size']`, by which hooks count images."""
    return state.replace(aux={**state.aux, "batch_size": jnp.float32(batch_size)})


def with_hparams(state: GANState, values: Mapping[str, float | int]) -> GANState:
    """The state with more hyperparameters.

    Raises:
      InvalidInputError: for a name that is there already.
    """
    if twice := sorted(set(values) & set(state.hparams)):
        raise InvalidInputError(
            f"hyperparameters {', '.join(twice)} are there already: two parts of the game name them"
        )
    added = {name: jnp.asarray(value, jnp.float32) for name, value in values.items()}
    return state.replace(hparams={**state.hparams, **added})


def averaging(
    halflife_images: float | int, rampup: float | int = 0.05, *, player: str = "generator", name: str = ""
) -> Hook:
    """`ema` with its place in the state: the average, its half-life and ramp-up as hyperparameters.

    Args:
      halflife_images: images after which half of an average is of what came since.
      rampup: the half-life is at most that share of the images seen so far; 0 for a constant half-life.
      player: see `ema`.
      name: see `ema`.

    Returns:
      A hook for a game's `hooks`. Its `begin` raises `InvalidInputError` for an average that is there already.
    """
    prefix = _prefix(player, name)
    values = {f"{prefix}ema_halflife_images": halflife_images, f"{prefix}ema_rampup": rampup}

    def begin(state: GANState, batch_size: int) -> GANState:
        if _average(player, name) in state.ema:
            raise InvalidInputError(f"averaging: {_average(player, name)!r} is averaged already: give it another name")
        state = with_hparams(with_batch_size(state, batch_size), values)
        return state.replace(ema={**state.ema, _average(player, name): copied(state.players[player])})

    return Hook(ema(player, name=name), begin)


def _prefix(player: str, name: str) -> str:
    """Makes the prefix of an average's hyperparameters; the generator's unnamed average has none."""
    return f"{'' if player == 'generator' else f'{player}_'}{f'{name}_' if name else ''}"


def _average(player: str, name: str) -> str:
    return f"{player}/{name}" if name else player


def ema(player: str = "generator", *, name: str = "") -> Callable[[GANState], GANState]:
    """An exponential moving average of a player's parameters and model state, counted in images.

    average <- beta average + (1 - beta) value, beta = 0.5 ** (batch_size / halflife),
    halflife = min(ema_halflife_images, ema_rampup * images seen); with a rampup of 0 the half-life is constant.
    Reads `ema_halflife_images` and `ema_rampup` from `state.hparams` and `batch_size` from `state.aux`.

    Args:
      player: whose average to keep.
      name: of the average, where a player has several: `state.ema['player/name']` must exist, and the hyperparameters
        are `{name}_ema_halflife_images` and `{name}_ema_rampup`, with the player's name before where it is not the
        generator. By default `state.ema[player]`, without the name.

    Returns:
      A hook for `Game.after`.

    References:
      Karras et al., "Analyzing and Improving the Image Quality of StyleGAN", arXiv:1912.04958, 2020, and its public
      code (half-life in images, ramp-up 0.05). Other codebases fix beta per step, which then depends on the batch size,
      and average parameters only, leaving batch statistics behind.
    """
    average, prefix = _average(player, name), _prefix(player, name)

    def hook(state: GANState) -> GANState:
        batch_size = state.aux["batch_size"]
        longest, rampup = state.hparams[f"{prefix}ema_halflife_images"], state.hparams[f"{prefix}ema_rampup"]
        images = (state.step.astype(jnp.float32) + 1.0) * batch_size
        ramped = jnp.minimum(longest, rampup * images)
        halflife = jnp.where(rampup > 0, ramped, longest)
        beta = 0.5 ** (batch_size / jnp.maximum(halflife, 1e-8))

        def mix(old: jax.Array, new: jax.Array) -> jax.Array:
            if not jnp.issubdtype(new.dtype, jnp.floating):
                return new
            return (new + beta.astype(new.dtype) * (old - new)).astype(new.dtype)

        source = state.players[player]
        averaged = jax.tree.map(mix, state.ema[average], {"params": source.params, "model_state": source.model_state})
        return state.replace(ema={**state.ema, average: averaged})

    return hook
