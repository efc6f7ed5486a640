"""Hyperparameters as data: one flat view of every scalar that may vary without a recompile."""

from typing import Any

import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from gan_jax.core.state import GANState
from gan_jax.types import InvalidInputError


def _injected(opt_state: Any) -> dict[str, Array]:
    """The hyperparameters that `optax.inject_hyperparams` keeps anywhere inside an optimiser state."""
    found = optax.tree_utils.tree_get_all_with_path(
        opt_state, "hyperparams", filtering=lambda path, value: isinstance(value, dict)
    )
    return {name: value for _, hyperparams in found for name, value in hyperparams.items()}


def get_hparams(state: GANState) -> dict[str, Float[Array, "*members"]]:
    """Every runtime hyperparameter: `state.hparams`, and the optimisers' as `player/name`.

    Args:
      state: the state of a game, or of a population.

    Returns:
      A flat dict of scalars, such as `{'r1_weight': ..., 'generator/learning_rate': ...}`; of a population, arrays of
      one for each member.
    """
    optimizers = {
        f"{player}/{name}": value
        for player, player_state in state.players.items()
        for name, value in _injected(player_state.opt_state).items()
    }
    return {**state.hparams, **optimizers}


def set_hparams(state: GANState, values: dict[str, Any]) -> GANState:
    """A state with other hyperparameters; shapes and structure stay, so nothing recompiles.

    Args:
      state: the state of a game.
      values: new values by the names of `get_hparams`.

    Returns:
      The changed state.

    Raises:
      InvalidInputError: for a name that the game does not have.
    """
    known = get_hparams(state)
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise InvalidInputError(f"unknown hyperparameters {unknown}: this game has {sorted(known)}")
    for name, value in values.items():
        new = jnp.asarray(value, jnp.float32)
        if name in state.hparams:
            state = state.replace(hparams={**state.hparams, name: new})
            continue
        player, field = name.split("/", 1)
        opt_state = optax.tree_utils.tree_set(state.players[player].opt_state, **{field: new})
        state = state.replace(players={**state.players, player: state.players[player].replace(opt_state=opt_state)})
    return state
