"""Phases of an iteration: gradient and optimiser update of one player, `repeat` times, in every k-th iteration."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, PyTree

from gan_jax.core.sharding import gather, scatter
from gan_jax.core.state import GANState
from gan_jax.types import Batch, LossOutput, Metrics, Phase, PRNGKey

MetricAccumulator = dict[str, Array]  # metric name -> [2]: the sum of its values, and their number


Gradient = tuple[PyTree, LossOutput, Array]  # the gradient, the auxiliary output of the loss, the value of the loss


def gradient(phase: Phase, state: GANState, batch: Batch, key: PRNGKey) -> Gradient:
    """Computes the gradient of a phase's loss with respect to its player's parameters, at the given state."""
    # With an `fsdp` axis, parameters are gathered for the loss, and the gradient is split again for the optimiser.
    whole = {name: player.replace(params=gather(player.params)) for name, player in state.players.items()}
    state = state.replace(players=whole, frozen=gather(state.frozen))
    (loss, out), gradient = jax.value_and_grad(phase.loss, has_aux=True)(whole[phase.player].params, state, batch, key)
    return scatter(gradient), out, loss


def apply_gradient(phase: Phase, state: GANState, gradient: Gradient) -> tuple[GANState, Metrics]:
    """Applies one optimiser step to the player of a phase.

    Args:
      phase: the phase, which names the player.
      state: state of the game.
      gradient: result of `gradient`, for this state or for another one.

    Returns:
      The new state and the metrics. In the state, only this player and the `aux` entries that the loss returned have
      changed. The metrics are those of the loss, the value of the loss, and the norm of the gradient.
    """
    direction, out, loss = gradient
    player = state.players[phase.player]
    updates, opt_state = player.tx.update(direction, player.opt_state, player.params)
    player = player.replace(
        step=player.step + 1,
        params=optax.apply_updates(player.params, updates),
        opt_state=opt_state,
        model_state=player.model_state if out.model_state is None else out.model_state,
    )
    metrics = {**out.metrics, "loss": loss, "gradient_norm": optax.tree_utils.tree_norm(direction)}
    state = state.replace(players={**state.players, phase.player: player}, aux={**state.aux, **out.aux})
    return state, {f"{phase.name}/{name}": value.astype(jnp.float32) for name, value in metrics.items()}


def run_phase(
    phase: Phase,
    state: GANState,
    batches: Batch,
    key: PRNGKey,
    *,
    direction: Callable[[Phase, GANState, Batch, PRNGKey], Gradient] = gradient,
) -> tuple[GANState, MetricAccumulator]:
    """Runs all updates of a phase in one iteration.

    Args:
      phase: the phase to run.
      state: state of the game.
      batches: data, `[repeat, b, ...]`, one batch for each update.
      key: key of this phase in this iteration; update i folds i into it.
      direction: function that computes the direction for the optimiser; by default the gradient of the phase's loss at
        the current state.

    Returns:
      The new state, and the sum and count of each metric; both are zero if the phase does not run in this iteration.
    """

    def run(state: GANState, batches: Batch, key: PRNGKey) -> tuple[GANState, MetricAccumulator]:
        def one(state: GANState, inputs: tuple[Batch, Array]) -> tuple[GANState, Metrics]:
            batch, index = inputs
            return apply_gradient(phase, state, direction(phase, state, batch, jax.random.fold_in(key, index)))

        if phase.repeat == 1:
            state, metrics = one(state, (jax.tree.map(lambda x: x[0], batches), jnp.zeros((), jnp.int32)))
            return state, {name: jnp.stack([value, jnp.ones_like(value)]) for name, value in metrics.items()}
        state, metrics = jax.lax.scan(one, state, (batches, jnp.arange(phase.repeat)))
        return state, {name: jnp.stack([jnp.sum(v), jnp.float32(phase.repeat)]) for name, v in metrics.items()}

    with jax.named_scope(phase.name):  # the name is in profiles, and in the text of the compiled program
        return _when_due(phase, run, state, batches, key)


def _when_due(
    phase: Phase, run: Callable[..., tuple[GANState, MetricAccumulator]], state: GANState, batches: Batch, key: PRNGKey
) -> tuple[GANState, MetricAccumulator]:
    """Runs a phase in the iterations in which it is due; in the others it leaves the state as it is."""
    if phase.every == 1 and phase.start == 0:
        return run(state, batches, key)
    run_once = jax.jit(run, inline=True)  # jit caches the trace, which `eval_shape` and `cond` below then share

    def skip(*args: PyTree) -> tuple[GANState, MetricAccumulator]:
        return args[0], jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(run_once, *args)[1])

    due = state.step % phase.every == 0
    due = due & (state.step >= phase.start) if phase.start else due
    return jax.lax.cond(due, run_once, skip, state, batches, key)
