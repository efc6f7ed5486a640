"""One phase of an iteration: gradients for one player, one optimiser update, `repeat` times, every k-th iteration."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, PyTree

from gan_jax.core.sharding import gather, scatter
from gan_jax.core.state import GANState
from gan_jax.types import Batch, LossOutput, Metrics, Phase, PRNGKey

MetricAccumulator = dict[str, Array]  # metric -> [2]: the sum, and how many values it is of


Gradient = tuple[PyTree, LossOutput, Array]  # the gradient, what the loss reports, its value


def gradient(phase: Phase, state: GANState, batch: Batch, key: PRNGKey) -> Gradient:
    """The gradient of a phase's loss with respect to its player's parameters, everything else as in the state."""
    whole = {name: player.replace(params=gather(player.params)) for name, player in state.players.items()}
    state = state.replace(players=whole, frozen=gather(state.frozen))
    (loss, out), gradient = jax.value_and_grad(phase.loss, has_aux=True)(whole[phase.player].params, state, batch, key)
    return scatter(gradient), out, loss


def apply_gradient(phase: Phase, state: GANState, gradient: Gradient) -> tuple[GANState, Metrics]:
    """One step of the optimiser of the phase's player.

    Args:
      phase: whose player.
      state: the state of the game.
      gradient: from `gradient`, of this state or of another.

    Returns:
      The state, in which only this player, and the `aux` entries that the loss names, have changed; and the metrics of
      the loss with its value and the norm of the gradient.
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
    """All updates of a phase in one iteration.

    Args:
      phase: the phase.
      state: the state of the game.
      batches: `[repeat, b, ...]`, one batch for each update.
      key: of this phase in this iteration; update i folds i into it.
      direction: what to give the optimiser: the gradient, in this state, of the phase's loss if nothing else is said.

    Returns:
      The state, and for each metric its sum and count (zero in an iteration in which the phase does not run).
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

    if phase.every == 1 and phase.start == 0:
        return run(state, batches, key)
    run_once = jax.jit(run, inline=True)  # traced once for its shapes and the condition

    def skip(*args: PyTree) -> tuple[GANState, MetricAccumulator]:
        return args[0], jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(run_once, *args)[1])

    due = state.step % phase.every == 0
    due = due & (state.step >= phase.start) if phase.start else due
    return jax.lax.cond(due, run_once, skip, state, batches, key)
