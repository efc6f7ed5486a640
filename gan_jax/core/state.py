"""The state of a game: arrays, all of them, in one tree."""

from collections.abc import Mapping, Sequence

import flax.struct
import jax
import jax.numpy as jnp
import optax
from flax.training.train_state import TrainState
from jaxtyping import Array, Float, Int, PyTree

from gan_jax.types import PRNGKey


class PlayerState(TrainState):
    """One player: parameters, optimiser state, and what the network carries beside its parameters.

    `apply_fn` is None: how to apply a network is in its `Network`. `tx` is static, so a game must be built once and
    that one game used throughout: two builds of the same optimiser give unequal tree structures.

    Attributes:
      model_state: batch statistics, spectral-norm vectors and the like.
    """

    model_state: PyTree = None


class GANState(flax.struct.PyTreeNode):
    """Everything that a resume needs.

    Attributes:
      step: iterations done, int32.
      key: the root key, into which every draw folds the step; only a rollback after a divergence changes it.
      players: `PlayerState` by name.
      ema: averaged `{'params', 'model_state'}` by the name of the player, or `player/name` where it has several.
      aux: other arrays that training carries (image pools, controllers).
      hparams: scalars that may vary between runs of one compiled program; those of the optimisers are in their states
        (see `get_hparams`).
      frozen: networks that nothing trains, by name. They are here within a step and while the game's functions run,
        and nowhere else: training does not carry them, and checkpoints only name them.
    """

    step: Int[Array, ""]
    key: PRNGKey
    players: dict[str, PlayerState]
    ema: dict[str, PyTree]
    aux: dict[str, PyTree]
    hparams: dict[str, Float[Array, ""]]
    frozen: dict[str, PyTree] = flax.struct.field(default_factory=dict)


def create_player(params: PyTree, model_state: PyTree, optimizer: optax.GradientTransformation) -> PlayerState:
    """A player at its start; `step` is an int32 array, so that it can be scanned over and donated."""
    return PlayerState(
        step=jnp.zeros((), jnp.int32),
        apply_fn=None,  # type: ignore[arg-type]  # apply is in the Network
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
    """A state at step 0; draw the parameters with `init_key(key)`, which no iteration uses.

    Args:
      key: the root key of the run.
      players: as from `create_player`.
      averaged: the players that have an EMA, or the player of each EMA by the name of the average.
      aux: arrays that training carries beside the players.
      hparams: scalars, stored as float32.

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
    """Copies parameters and model state, to begin an average: one buffer cannot be donated twice."""
    return jax.tree.map(jnp.copy, {"params": player.params, "model_state": player.model_state})


def init_key(key: PRNGKey) -> PRNGKey:
    """The key for initialising networks: no iteration folds this number into the root key, since steps are int32."""
    return jax.random.fold_in(key, 0xFFFFFFFF)
