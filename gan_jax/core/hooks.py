"""Hooks: functions that run once at the end of an iteration, with the entries of the state that they use."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gan_jax.core.state import GANState, copied
from gan_jax.types import InvalidInputError


class Hook(NamedTuple):
    """A function that runs at the end of an iteration, and the initialisation of the state for it.

    Attributes:
      run: `(state) -> state`, for `Game.after`.
      begin: `(state, batch size) -> state`, adds the entries that `run` reads to the state at step 0.
      shown: names of the hyperparameters that the hook changes; their values are logged.
    """

    run: Callable[[GANState], GANState]
    begin: Callable[[GANState, int], GANState] = lambda state, batch_size: state
    shown: tuple[str, ...] = ()


def with_batch_size(state: GANState, batch_size: int) -> GANState:
    """Returns the state with `aux['batch_size']`, from which hooks compute the number of images seen."""
    return state.replace(aux={**state.aux, "batch_size": jnp.float32(batch_size)})


def with_hparams(state: GANState, values: Mapping[str, float | int]) -> GANState:
    """Returns the state with additional hyperparameters, stored as float32.

    Raises:
      InvalidInputError: for a name that the state has already.
    """
    if twice := sorted(set(values) & set(state.hparams)):
        raise InvalidInputError(
            f"hyperparameters {', '.join(twice)} are defined twice: two parts of the game use one name; rename one"
        )
    added = {name: jnp.asarray(value, jnp.float32) for name, value in values.items()}
    return state.replace(hparams={**state.hparams, **added})


def averaging(
    halflife_images: float | int, rampup: float | int = 0.05, *, player: str = "generator", name: str = ""
) -> Hook:
    """Creates the hook that keeps an exponential moving average of a player; see `ema` for the equations.

    It adds the average to `state.ema`, and its half-life and ramp-up to `state.hparams`.

    Args:
      halflife_images: half-life in images: after this many images a value counts half as much in the average.
      rampup: upper bound of the half-life as a fraction of the images seen so far; 0 for a constant half-life.
      player: name of the player to average.
      name: name of the average, if the player has several; see `ema` for the names in the state.

    Returns:
      A hook for a game's `hooks`. Its `begin` raises `InvalidInputError` if the state has this average already.
    """
    prefix = _prefix(player, name)
    values = {f"{prefix}ema_halflife_images": halflife_images, f"{prefix}ema_rampup": rampup}

    def begin(state: GANState, batch_size: int) -> GANState:
        if _average(player, name) in state.ema:
            raise InvalidInputError(f"averaging: {_average(player, name)!r} is averaged already: pass another name=")
        state = with_hparams(with_batch_size(state, batch_size), values)
        return state.replace(ema={**state.ema, _average(player, name): copied(state.players[player])})

    return Hook(ema(player, name=name), begin)


def _prefix(player: str, name: str) -> str:
    """Returns the prefix of an average's hyperparameters; it is empty for the generator's unnamed average."""
    return f"{'' if player == 'generator' else f'{player}_'}{f'{name}_' if name else ''}"


def _average(player: str, name: str) -> str:
    """Returns the key of an average in `state.ema`."""
    return f"{player}/{name}" if name else player


def ema(player: str = "generator", *, name: str = "") -> Callable[[GANState], GANState]:
    """Creates the update of an exponential moving average of a player's parameters and model state.

    average <- beta average + (1 - beta) value, beta = 0.5 ** (batch_size / halflife),
    halflife = min(ema_halflife_images, ema_rampup * images seen); with a rampup of 0 the half-life is constant.
    Reads `ema_halflife_images` and `ema_rampup` from `state.hparams` and `batch_size` from `state.aux`. Integers in the
    model state are copied, not averaged.

    Args:
      player: name of the player to average.
      name: name of the average, if the player has several. The average is then `state.ema['player/name']`, which must
        exist, and its hyperparameters are `{name}_ema_halflife_images` and `{name}_ema_rampup`. Without a name the
        average is `state.ema[player]`. For players other than the generator, the names of the hyperparameters begin
        with `{player}_`.

    Returns:
      The function `(state) -> state` for `Game.after`.

    References:
      Karras et al., "Analyzing and Improving the Image Quality of StyleGAN", arXiv:1912.04958, 2020, and its public
      code (half-life in images, ramp-up 0.05). Other codebases fix beta per step, so that the half-life in images
      depends on the batch size, and average only the parameters, not the batch statistics.
    """
    average, prefix = _average(player, name), _prefix(player, name)

    def hook(state: GANState) -> GANState:
        batch_size = state.aux["batch_size"]
        longest, rampup = state.hparams[f"{prefix}ema_halflife_images"], state.hparams[f"{prefix}ema_rampup"]
        # Hooks run before the step counter is incremented: + 1 counts the images of this iteration.
        images = (state.step.astype(jnp.float32) + 1.0) * batch_size
        ramped = jnp.minimum(longest, rampup * images)
        halflife = jnp.where(rampup > 0, ramped, longest)
        # A half-life of 0 gives beta = 0: the average is then the current value.
        beta = 0.5 ** (batch_size / jnp.maximum(halflife, 1e-8))

        def mix(old: jax.Array, new: jax.Array) -> jax.Array:
            if not jnp.issubdtype(new.dtype, jnp.floating):
                return new
            return (new + beta.astype(new.dtype) * (old - new)).astype(new.dtype)

        source = state.players[player]
        averaged = jax.tree.map(mix, state.ema[average], {"params": source.params, "model_state": source.model_state})
        return state.replace(ema={**state.ema, average: averaged})

    return hook
