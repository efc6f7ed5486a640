"""A game as one pure function: all phases of an iteration, and a scan over iterations, ready for `jax.jit`."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from gan_jax.core.phase import MetricAccumulator
from gan_jax.core.rules import UpdateRule, alternating
from gan_jax.core.state import GANState
from gan_jax.types import Batch, Game, InvalidInputError

Step = Callable[[GANState, Batch], tuple[GANState, MetricAccumulator]]


def _draws(game: Game) -> list[int]:
    """For each phase the index of its first batch, and at the end the number of batches."""
    starts, drawn = [], 0
    for phase in game.phases:
        if phase.every < 1 or phase.repeat < 1 or phase.start < 0:
            raise InvalidInputError(
                f"phase {phase.name!r}: every={phase.every}, repeat={phase.repeat}, start={phase.start}; the first two "
                "count from 1, the start from 0"
            )
        if phase.reuse_batch and (drawn == 0 or phase.repeat > 1):
            raise InvalidInputError(f"phase {phase.name!r}: reuse_batch needs a phase before it, and repeat=1")
        starts.append(drawn - 1 if phase.reuse_batch else drawn)
        drawn += 0 if phase.reuse_batch else phase.repeat
    return [*starts, drawn]


def batches_per_iteration(game: Game, rule: UpdateRule = alternating) -> int:
    """How many batches one iteration takes: one per update that does not reuse the one before, times `rule.passes`."""
    return _draws(game)[-1] * rule.passes


def make_step(game: Game, rule: UpdateRule = alternating) -> Step:
    """One iteration of a game: its phases as the rule has it, then its hooks.

    The key of an update is the root key with step, phase and repetition folded in, so randomness is a function of the
    state alone and a resumed run draws what an uninterrupted one would have.

    Args:
      game: the game.
      rule: how its phases make an iteration; see `gan_jax.core.rules`.

    Returns:
      `(state, batches) -> (state, window)`; `batches` has leaves `[num_draws(game, rule), b, ...]`, and the window
      holds the sum and the count of every metric. Pure; compile it with `jax.jit(step, donate_argnums=0)`. One such
      function is traced once for all programs that it is in, so make it once.

    Raises:
      InvalidInputError: for phases that make no sense, or that the rule cannot do.
    """
    *starts, drawn = _draws(game)
    rule.check(game)

    def step(state: GANState, batches: Batch) -> tuple[GANState, MetricAccumulator]:
        iteration_key = jax.random.fold_in(state.key, state.step)
        passes = [
            [
                jax.tree.map(lambda x, s=start + drawn * i, n=phase.repeat: x[s : s + n], batches)
                for phase, start in zip(game.phases, starts, strict=True)
            ]
            for i in range(rule.passes)
        ]
        state, accumulator = rule.run(game.phases, state, passes, iteration_key)
        for hook in game.after:
            state = hook(state)
        return state.replace(step=state.step + 1), accumulator

    return jax.jit(step, inline=True)


def make_scan(step: Step, fetch: Callable[[PyTree, PyTree, Any], Batch], length: int) -> Callable[..., Any]:
    """Several iterations in one program, with the batches fetched inside it and the metrics summed inside it.

    Args:
      step: one iteration, from `make_step`.
      fetch: `(data, inputs, step) -> batches`, what `step` takes; `data` is constant over
        the run (the data set itself, or a key), `inputs` is what the host sends for one iteration (indices, or the
        batches).
      length: iterations.

    Returns:
      `(state, window, (data, frozen), inputs) -> (state, window)`, where `inputs` has a leading axis of `length`, and
      `frozen` is what `state.frozen` is within the step: it is neither carried nor returned.
    """

    def scan(
        state: GANState, accumulator: MetricAccumulator, constants: tuple[PyTree, dict[str, PyTree]], inputs: PyTree
    ) -> tuple[GANState, MetricAccumulator]:
        data, frozen = constants

        def body(index: Array, carry: tuple[GANState, MetricAccumulator]) -> tuple[GANState, MetricAccumulator]:
            state, accumulator = carry
            batches = fetch(data, jax.tree.map(lambda x: x[index], inputs), state.step)
            state, metrics = step(state.replace(frozen=frozen), batches)
            return state.replace(frozen={}), jax.tree.map(jnp.add, accumulator, metrics)

        # XLA would unroll a loop of one iteration and round otherwise than in a loop of many; it can't see this count.
        count = jax.lax.optimization_barrier(jnp.int32(length))
        return jax.lax.fori_loop(0, count, body, (state, accumulator))

    return scan


def empty_accumulator(step: Step, state: PyTree, batches: PyTree) -> MetricAccumulator:
    """A window of zeros for `make_scan` with this step; the state and the batches may be abstract."""

    def accumulator(state: GANState) -> MetricAccumulator:
        # Zeros made here are of the mesh in force, as the batches in the program are: else the step is traced again.
        return step(state, jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), batches))[1]

    shapes = jax.eval_shape(accumulator, state)
    return {name: jnp.zeros(shape.shape, shape.dtype) for name, shape in shapes.items()}


def accumulator_means(accumulator: MetricAccumulator | dict[str, np.ndarray]) -> dict[str, float]:
    """The mean of every metric in a window, as Python floats; a phase that never ran has no entry."""
    values = jax.device_get(accumulator)
    return {name: float(total / count) for name, (total, count) in values.items() if count > 0}
