"""Update rules: run the phases of an iteration in alternation, simultaneously, or with lookahead.

A rule is independent of the game. It is an argument of the functions that build the train step (`make_step`,
`runtime.Experiment`). There is no rule for optimistic gradient descent: use `simultaneous`, with optax's
`optimistic_gradient_descent` or `optimistic_adam_v2` as the players' optimisers.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import PyTree

from gan_jax.core.phase import Gradient, MetricAccumulator, apply_gradient, gradient, run_phase
from gan_jax.core.state import GANState
from gan_jax.types import Batch, Game, InvalidInputError, LossOutput, Phase, PRNGKey, Scalar

Batches = Sequence[Batch]  # one entry per phase: its batches, [repeat, b, ...]


class UpdateRule(NamedTuple):
    """A rule that runs the phases of one iteration.

    Attributes:
      run: `(phases, state, passes, key) -> (state, accumulator)`; `passes[i]` holds the batches of every phase in
        pass i.
      check: raises `InvalidInputError` for a game that the rule does not support.
      passes: number of passes over the phases, each with its own batches; the rule draws this many times the batches
        that the game asks for.
    """

    run: Callable[[Sequence[Phase], GANState, Sequence[Batches], PRNGKey], tuple[GANState, MetricAccumulator]]
    check: Callable[[Game], None] = lambda game: None
    passes: int = 1


def _in_turn(
    phases: Sequence[Phase], state: GANState, passes: Sequence[Batches], key: PRNGKey
) -> tuple[GANState, MetricAccumulator]:
    """Runs the phases one after another, each on the state that the previous one returned."""
    accumulator: MetricAccumulator = {}
    for index, (phase, batches) in enumerate(zip(phases, passes[0], strict=True)):
        state, metrics = run_phase(phase, state, batches, jax.random.fold_in(key, index))
        accumulator.update(metrics)
    return state, accumulator


alternating = UpdateRule(_in_turn)
"""Alternating updates: each phase sees the players as updated by the phases before it, as in the first GAN paper."""


def _at_once(
    phases: Sequence[Phase], state: GANState, batches: Batches, key: PRNGKey, at: GANState
) -> tuple[GANState, MetricAccumulator]:
    """Updates all players of `state` with gradients that are taken at the state `at`."""
    accumulator: MetricAccumulator = {}
    for index, (phase, drawn) in enumerate(zip(phases, batches, strict=True)):
        state, metrics = run_phase(
            phase,
            state,
            drawn,
            jax.random.fold_in(key, index),
            direction=lambda phase, _, batch, key: gradient(phase, at, batch, key),
        )
        accumulator.update(metrics)
    return state, accumulator


def _one_update_each(game: Game) -> None:
    """Raises `InvalidInputError` for a phase with several updates per iteration."""
    for phase in game.phases:
        if phase.repeat > 1:
            raise InvalidInputError(
                f"phase {phase.name!r} has repeat={phase.repeat}: this update rule updates all players simultaneously, "
                "so every phase must have one update: set critic_steps=1"
            )


simultaneous = UpdateRule(
    lambda phases, state, passes, key: _at_once(phases, state, passes[0], key, at=state), _one_update_each
)
"""Simultaneous updates: all gradients are taken at the start of the iteration (Mescheder et al., arXiv:1705.10461,
2017)."""


def _extragradient(
    phases: Sequence[Phase], state: GANState, passes: Sequence[Batches], key: PRNGKey
) -> tuple[GANState, MetricAccumulator]:
    """Takes the lookahead step, then updates the players of `state` with the gradients found there."""
    # The phases of the second pass fold 0 to len(phases) - 1 into `key`, so this number gives the first its own key.
    ahead, _ = _at_once(phases, state, passes[0], jax.random.fold_in(key, len(phases)), at=state)

    def mix(field: str) -> GANState:
        """Returns the initial state with one field of the players taken from the lookahead step."""
        players = {
            name: player.replace(**{field: getattr(ahead.players[name], field)})
            for name, player in state.players.items()
        }
        return state.replace(players=players)

    return _at_once(phases, mix("opt_state"), passes[1], key, at=mix("params"))


extragradient = UpdateRule(_extragradient, _one_update_each, passes=2)
"""Extragradient: a lookahead step of all players, then an update from the start with the gradients found there.

w' = w - opt(F(w)), w <- w - opt(F(w')), where F is the gradients of all players. Each of the two steps has its own
batch. Both update the moments of the optimiser, as in ExtraAdam, and a schedule inside the optimiser counts both.
Nothing else of the lookahead step is kept, so batch statistics, image pools and controllers see one batch per
iteration.

References: Korpelevich, "The extragradient method for finding saddle points and other problems", 1976; Gidel et al., "A
Variational Inequality Perspective on Generative Adversarial Networks", arXiv:1802.10551, 2019, algorithm 4.
"""


def consensus(weight: float) -> UpdateRule:
    """Creates the rule of consensus optimisation: every player also minimises the squared norm of all gradients.

    w <- w - opt(F(w) + weight grad_w ||F(w)||^2 / 2), where F is the gradients of all players, all on one batch.

    Args:
      weight: weight of the squared norm (gamma in the paper, where it is 10 for most games), at least 0. It is a
        constant of the compiled program, not a runtime hyperparameter.

    Returns:
      The rule. It needs second derivatives of every loss, so third derivatives of networks under a gradient penalty.

    Raises:
      InvalidInputError: for a negative weight; also, when the step is built, for a game with several critic steps,
        lazy penalties, or several phases of one player.

    References:
      Mescheder, Nowozin and Geiger, "The Numerics of GANs", arXiv:1705.10461, 2017, algorithm 2.
    """
    if not weight >= 0:
        raise InvalidInputError(f"weight={weight}: consensus optimisation takes a weight of at least 0")

    def check(game: Game) -> None:
        _one_update_each(game)
        players = [phase.player for phase in game.phases]
        if len(set(players)) < len(players) or any(phase.every > 1 for phase in game.phases):
            raise InvalidInputError(
                "consensus optimisation needs one phase per player, in every iteration: give penalties every=1"
            )

    def run(
        phases: Sequence[Phase], state: GANState, passes: Sequence[Batches], key: PRNGKey
    ) -> tuple[GANState, MetricAccumulator]:
        def field(params: dict[str, PyTree]) -> list[Gradient]:
            """Computes F: the gradients of all phases, at these parameters of all players."""
            players = {name: state.players[name].replace(params=value) for name, value in params.items()}
            at = state.replace(players=players)
            return [
                gradient(phase, at, jax.tree.map(lambda x: x[0], batch), jax.random.fold_in(key, index))
                for index, (phase, batch) in enumerate(zip(phases, passes[0], strict=True))
            ]

        def length(params: dict[str, PyTree]) -> tuple[jax.Array, list[Gradient]]:
            """Computes ||F||^2 / 2, and F."""
            found = field(params)
            return 0.5 * sum(optax.tree_utils.tree_norm(g, squared=True) for g, _, _ in found), found

        params = {name: player.params for name, player in state.players.items()}
        (value, found), correction = jax.value_and_grad(length, has_aux=True)(params)
        accumulator: MetricAccumulator = {"consensus/penalty": jnp.stack([value, jnp.ones_like(value)])}
        for phase, (direction, out, loss) in zip(phases, found, strict=True):
            direction = jax.tree.map(lambda g, c: g + weight * c, direction, correction[phase.player])
            state, metrics = apply_gradient(phase, state, (direction, out, loss))
            accumulator |= {name: jnp.stack([v, jnp.ones_like(v)]) for name, v in metrics.items()}
        return state, accumulator

    return UpdateRule(run, check)


def unrolled(steps: int, *, player: str = "generator", opponent: str = "discriminator") -> UpdateRule:
    """Creates the rule of the unrolled GAN: the generator anticipates the next updates of the discriminator.

    It is the alternating rule with one change: the player's loss is evaluated after further updates of the opponent on
    its batches of this iteration, and it is differentiated through these updates. They serve only this loss and are
    not kept.

    Args:
      steps: number of times that the opponent's phase is unrolled, with all of its critic steps; 0 is the same as
        `alternating`.
      player: name of the player whose loss looks ahead.
      opponent: name of the player whose updates are unrolled; its lazy phases are not.

    Returns:
      The rule. It differentiates through the opponent's optimiser. Give the opponent one whose update is
      differentiable where the gradient is 0: SGD, or `core.adam(..., eps_root=1e-8)`.

    Raises:
      InvalidInputError: for a negative number of steps; also, when the step is built, for a game without these
        players.

    References:
      Metz et al., "Unrolled Generative Adversarial Networks", arXiv:1611.02163, 2017, equations 5 to 8 (5 or 10 steps).
      There both gradients are taken before either player moves. Here the phases alternate, so a discriminator whose
      phase comes first has moved already.
    """
    if steps < 0:
        raise InvalidInputError(f"steps={steps}: expected at least 0 unrolled updates")

    def check(game: Game) -> None:
        names = {phase.player for phase in game.phases}
        if not {player, opponent} <= names:
            raise InvalidInputError(f"unrolling {opponent!r} for {player!r}: the game has the players {sorted(names)}")

    def run(
        phases: Sequence[Phase], state: GANState, passes: Sequence[Batches], key: PRNGKey
    ) -> tuple[GANState, MetricAccumulator]:
        rivals = [
            (phase, batch)
            for phase, batch in zip(phases, passes[0], strict=True)
            if phase.player == opponent and phase.every == 1
        ]

        def foreseeing(phase: Phase) -> Phase:
            """Returns the phase with its loss evaluated after the unrolled updates."""

            def loss(params: PyTree, state: GANState, batch: Batch, key: PRNGKey) -> tuple[Scalar, LossOutput]:
                own = state.players[player].replace(params=params)
                ahead = state.replace(players={**state.players, player: own})
                for step in range(steps):
                    step_key = jax.random.fold_in(key, step)
                    for rival, batches in rivals:
                        ahead, _ = run_phase(rival, ahead, batches, step_key)
                    # Unrolled updates must not count in `aux` (controllers, running means).
                    ahead = ahead.replace(players={**ahead.players, player: own}, aux=state.aux)
                return phase.loss(params, ahead, batch, key)

            return phase._replace(loss=loss)

        seen = [foreseeing(phase) if phase.player == player else phase for phase in phases]
        return _in_turn(seen, state, passes, key)

    return UpdateRule(run, check)
