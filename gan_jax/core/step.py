"""The train step of a game as one pure function, and a loop over iterations in one program, both for `jax.jit`."""

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
    """Returns the index of each phase's first batch, followed by the number of batches in one pass."""
    starts, drawn = [], 0
    for phase in game.phases:
        if phase.every < 1 or phase.repeat < 1 or phase.start < 0:
            raise InvalidInputError(
                f"phase {phase.name!r}: every={phase.every}, repeat={phase.repeat}, start={phase.start}: expected "
                "every >= 1, repeat >= 1 and start >= 0"
            )
        if phase.reuse_batch and (drawn == 0 or phase.repeat > 1):
            raise InvalidInputError(f"phase {phase.name!r}: reuse_batch needs an earlier phase, and repeat=1")
        starts.append(drawn - 1 if phase.reuse_batch else drawn)
        drawn += 0 if phase.reuse_batch else phase.repeat
    return [*starts, drawn]


def batches_per_iteration(game: Game, rule: UpdateRule = alternating) -> int:
    """Returns the number of batches per iteration: one for each update that does not reuse one, times `rule.passes`."""
    return _draws(game)[-1] * rule.passes


def make_step(game: Game, rule: UpdateRule = alternating) -> Step:
    """Creates the function that runs one iteration of a game: its phases under the update rule, then its hooks.

    The key of an update is the root key with step, phase and repetition folded in. Randomness is thus a function of the
    state alone, and a resumed run draws the same numbers as an uninterrupted one.

    Args:
      game: the game to train.
      rule: update rule, which runs the phases; see `gan_jax.core.rules`.

    Returns:
      `(state, batches) -> (state, accumulator)`. The leaves of `batches` are `[batches_per_iteration(game, rule), b,
      ...]`; the accumulator holds the sum and the count of every metric. The function is pure; compile it with
      `jax.jit(step, donate_argnums=0)`. Create it once and share it: its trace is cached, so all programs that contain
      the same function trace it only once.

    Raises:
      InvalidInputError: for phases with invalid arguments, or that the rule does not support.
    """
    *starts, drawn = _draws(game)
    rule.check(game)

    def step(state: GANState, batches: Batch) -> tuple[GANState, MetricAccumulator]:
        # Pass i of the rule takes the i-th block of `drawn` batches; a phase takes `repeat` of them from its start.
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
    """Creates the function that runs several iterations in one program.

    The program fetches the batches and adds up the metrics itself.

    Args:
      step: function for one iteration, from `make_step`.
      fetch: `(data, inputs, step) -> batches`, where `batches` is the second argument of `step`. `data` is constant
        over the run (the data set itself, or a key). `inputs` is what the host sends for one iteration (indices, or
        the batches themselves).
      length: number of iterations.

    Returns:
      `(state, accumulator, (data, frozen), inputs) -> (state, accumulator)`. `inputs` has a leading axis of `length`.
      `frozen` becomes `state.frozen` within the step; the loop does not carry it, and it is not returned.
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

        # XLA would unroll a loop of one iteration, and its results would be rounded differently from those of a longer
        # loop. The barrier hides the count from XLA, so that results do not depend on `length`.
        count = jax.lax.optimization_barrier(jnp.int32(length))
        return jax.lax.fori_loop(0, count, body, (state, accumulator))

    return scan


def empty_accumulator(step: Step, state: PyTree, batches: PyTree) -> MetricAccumulator:
    """Creates the accumulator of zeros that `make_scan` starts from; the state and the batches may be abstract."""

    def accumulator(state: GANState) -> MetricAccumulator:
        # Created here, the zeros belong to the current mesh, as the batches of the program do; otherwise the step would
        # be traced a second time.
        return step(state, jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), batches))[1]

    shapes = jax.eval_shape(accumulator, state)
    return {name: jnp.zeros(shape.shape, shape.dtype) for name, shape in shapes.items()}


def accumulator_means(accumulator: MetricAccumulator | dict[str, np.ndarray]) -> dict[str, float]:
    """Computes the mean of every accumulated metric, as Python floats; a phase that never ran has no entry."""
    values = jax.device_get(accumulator)
    return {name: float(total / count) for name, (total, count) in values.items() if count > 0}
