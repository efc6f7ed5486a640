"""The training state of a game: all of its arrays in one pytree."""

from collections.abc import Mapping, Sequence

import flax.struct
import jax
import jax.numpy as jnp
import optax
from flax.training.train_state import TrainState
from jaxtyping import Array, Float, Int, PyTree

from gan_jax.types import PRNGKey


class PlayerState(TrainState):
    """State of one player: parameters, optimiser state, and the network's model state.

    `apply_fn` is None, because the `Network` of the player has the apply function. `tx` is a static field, and two
    builds of the same optimiser compare unequal. So build a game once and use it throughout: the states of two builds
    have different tree structures.

    Attributes:
      model_state: the network's variables that are not trained: batch statistics, spectral-norm vectors.
    """

    model_state: PyTree = None


class GANState(flax.struct.PyTreeNode):
    """State of a game: everything that is needed to resume a run.

    Attributes:
      step: number of completed iterations, int32.
      key: root key; every key of an iteration is derived from it and the step. Only a rollback after a divergence
        changes it.
      players: a `PlayerState` for each player, by name.
      ema: averaged `{'params', 'model_state'}`. The key is the player's name, or `player/name` for a named average.
      aux: other arrays that are updated during training (image pools, controllers).
      hparams: scalars that can change without recompilation. The optimisers' hyperparameters are in the optimiser
        states instead; `get_hparams` returns both.
      frozen: networks that are never trained, by name. They are present only within a step and while the game's
        functions run. Training does not carry them, and checkpoints store only their names.
    """

    step: Int[Array, ""]
    key: PRNGKey
    players: dict[str, PlayerState]
    ema: dict[str, PyTree]
    aux: dict[str, PyTree]
    hparams: dict[str, Float[Array, ""]]
    frozen: dict[str, PyTree] = flax.struct.field(default_factory=dict)


def create_player(params: PyTree, model_state: PyTree, optimizer: optax.GradientTransformation) -> PlayerState:
    """Creates the initial state of a player. `step` is an int32 array, so that it can be scanned over and donated."""
    return PlayerState(
        step=jnp.zeros((), jnp.int32),
        apply_fn=None,  # type: ignore[arg-type]  # the `Network` has it
        params=params,
        tx=optimizer,
        opt_state=optimizer.init(params),
        model_state=model_state,
    )


def create_state(
    key: PRNGKey,
    players: dict[str, PlayerState],
    *,
    averaged: Sequence[str] | Mapping[str, str] = (),
    aux: dict[str, PyTree] | None = None,
    hparams: dict[str, float] | None = None,
) -> GANState:
    """Creates the state at step 0.

    Draw the players' parameters with `init_key(key)`: no iteration uses that key.

    Args:
      key: root key of the run.
      players: states of the players, from `create_player`.
      averaged: names of the players that have an EMA, or a mapping from the name of each average to its player.
      aux: arrays for `state.aux`, updated during training.
      hparams: hyperparameters by name, stored as float32.

    Returns:
      The state.
    """
    averages = averaged if isinstance(averaged, Mapping) else {name: name for name in averaged}
    return GANState(
        step=jnp.zeros((), jnp.int32),
        key=key,
        players=players,
        ema={name: copied(players[player]) for name, player in averages.items()},
        aux=dict(aux or {}),
        hparams={name: jnp.asarray(value, jnp.float32) for name, value in (hparams or {}).items()},
    )


def copied(player: PlayerState) -> PyTree:
    """Copies a player's parameters and model state, to initialise an average: one buffer cannot be donated twice."""
    return jax.tree.map(jnp.copy, {"params": player.params, "model_state": player.model_state})


def init_key(key: PRNGKey) -> PRNGKey:
    """Returns the key that initialises networks. Steps are int32, so no iteration folds in the number used here."""
    return jax.random.fold_in(key, 0xFFFFFFFF)
