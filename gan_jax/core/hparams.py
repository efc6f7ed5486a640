"""Runtime hyperparameters: a flat dict of every scalar that can change without recompilation."""

from typing import Any

import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from gan_jax.core.state import GANState
from gan_jax.types import InvalidInputError


def _injected(opt_state: Any) -> dict[str, Array]:
    """Finds the hyperparameters that `optax.inject_hyperparams` keeps, at any depth of an optimiser state."""
    found = optax.tree_utils.tree_get_all_with_path(
        opt_state, "hyperparams", filtering=lambda path, value: isinstance(value, dict)
    )
    return {name: value for _, hyperparams in found for name, value in hyperparams.items()}


def get_hparams(state: GANState) -> dict[str, Float[Array, "*members"]]:
    """Returns all runtime hyperparameters: `state.hparams`, and those of the optimisers as `player/name`.

    Args:
      state: state of a game or of a population.

    Returns:
      A flat dict of scalars, such as `{'r1_weight': ..., 'generator/learning_rate': ...}`; for a population, arrays
      with one value per member.
    """
    optimizers = {
        f"{player}/{name}": value
        for player, player_state in state.players.items()
        for name, value in _injected(player_state.opt_state).items()
    }
    return {**state.hparams, **optimizers}


def set_hparams(state: GANState, values: dict[str, Any]) -> GANState:
    """Returns the state with new hyperparameter values; shapes and tree structure stay, so nothing is recompiled.

    Args:
      state: state of a game.
      values: new values by name; the names are those of `get_hparams`.

    Returns:
      The updated state.

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
