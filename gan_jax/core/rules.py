"""How the phases of a game make an iteration: in alternation, at once, or with a look ahead.

A rule works on any game; it is an argument where the step is compiled (`make_step`, `make_scan`,
`runtime.Experiment`). Optimistic gradient descent is no rule of its own: it is `simultaneous` with optax's
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

Batches = Sequence[Batch]  # for each phase its batches, [repeat, b, ...]


class UpdateRule(NamedTuple):
    """How the phases of an iteration are run.

    Attributes:
      run: `(phases, state, passes, key) -> (state, window)`, with the batches of every phase for each of the passes.
      check: raises `InvalidInputError` for a game that the rule cannot do.
      passes: how many batches it takes where the game by itself takes one.
    """

    run: Callable[[Sequence[Phase], GANState, Sequence[Batches], PRNGKey], tuple[GANState, MetricAccumulator]]
    check: Callable[[Game], None] = lambda game: None
    passes: int = 1


def _in_turn(
    phases: Sequence[Phase], state: GANState, passes: Sequence[Batches], key: PRNGKey
) -> tuple[GANState, MetricAccumulator]:
    accumulator: MetricAccumulator = {}
    for index, (phase, batches) in enumerate(zip(phases, passes[0], strict=True)):
        state, metrics = run_phase(phase, state, batches, jax.random.fold_in(key, index))
        accumulator.update(metrics)
    return state, accumulator


alternating = UpdateRule(_in_turn)
"""Each phase sees what those before it in the iteration have made of the players: the rule of the first GAN paper."""


def _at_once(
    phases: Sequence[Phase], state: GANState, batches: Batches, key: PRNGKey, at: GANState
) -> tuple[GANState, MetricAccumulator]:
    """Moves all players of `state` by their gradients in the state `at`."""
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
    for phase in game.phases:
        if phase.repeat > 1:
            raise InvalidInputError(
                f"phase {phase.name!r} has repeat={phase.repeat}: this update rule moves all players at once, so every "
                "phase has one update (critic_steps=1)"
            )


simultaneous = UpdateRule(
    lambda phases, state, passes, key: _at_once(phases, state, passes[0], key, at=state), _one_update_each
)
"""All gradients are taken in the state at the start of the iteration (Mescheder et al., arXiv:1705.10461, 2017)."""


def _extragradient(
    phases: Sequence[Phase], state: GANState, passes: Sequence[Batches], key: PRNGKey
) -> tuple[GANState, MetricAccumulator]:
    ahead, _ = _at_once(phases, state, passes[0], jax.random.fold_in(key, len(phases)), at=state)

    def mix(field: str) -> GANState:
        """The state at the start, with one field of the players from the step ahead."""
        players = {
            name: player.replace(**{field: getattr(ahead.players[name], field)})
            for name, player in state.players.items()
        }
        return state.replace(players=players)

    return _at_once(phases, mix("opt_state"), passes[1], key, at=mix("params"))


extragradient = UpdateRule(_extragradient, _one_update_each, passes=2)
"""Extragradient: all players step ahead, and then move from where they were by the gradients found there.

w' = w - opt(F(w)), w <- w - opt(F(w')), each with a batch of its own, F the gradients of all players. Where the
optimiser has moments, both steps update them, as in ExtraAdam; a schedule inside the optimiser counts both. Of the step
ahead nothing else is kept: batch statistics, image pools and controllers see one batch in an iteration.

References: Korpelevich, "The extragradient method for finding saddle points and other problems", 1976; Gidel et al., "A
Variational Inequality Perspective on Generative Adversarial Networks", arXiv:1802.10551, 2019, algorithm 4.
"""


def consensus(weight: float) -> UpdateRule:
    """Consensus optimisation: every player also minimises the squared length of all gradients.

    w <- w - opt(F(w) + weight grad_w ||F(w)||^2 / 2), with F the gradients of all players, on one batch.

    Args:
      weight: gamma of the paper, at least 0; 10 there for most games. It is a constant of the compiled program.

    Returns:
      The rule. It takes second derivatives of every loss, third ones of penalties.

    Raises:
      InvalidInputError: for a negative weight, and, where it is used, for a game with several critic steps, lazy
        penalties, or two phases of one player.

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
            players = {name: state.players[name].replace(params=value) for name, value in params.items()}
            at = state.replace(players=players)
            return [
                gradient(phase, at, jax.tree.map(lambda x: x[0], batch), jax.random.fold_in(key, index))
                for index, (phase, batch) in enumerate(zip(phases, passes[0], strict=True))
            ]

        def length(params: dict[str, PyTree]) -> tuple[jax.Array, list[Gradient]]:
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
    """Unrolled GAN: the generator's gradient foresees the next updates of the discriminator.

    In alternation, but the player's loss is taken where the opponent will be after so many more of its updates on the
    same batch, and differentiated through them. The opponent itself is not moved by that.

    Args:
      steps: updates to foresee; 0 is `alternating`.
      player: who looks ahead.
      opponent: whose updates are foreseen.

    Returns:
      The rule. Its updates are differentiated, so give the opponent an optimiser whose update has a derivative where
      the gradient is 0: SGD, or `core.adam(..., eps_root=1e-8)`.

    Raises:
      InvalidInputError: for a negative number of steps, and, where it is used, for a game without these players.

    References:
      Metz et al., "Unrolled Generative Adversarial Networks", arXiv:1611.02163, 2017, equations 5 to 8 (5 or 10 steps).
      There both gradients are taken before either player moves; here, in alternation, the opponent has moved first.
    """
    if steps < 0:
        raise InvalidInputError(f"steps={steps}: expected at least 0 updates to foresee")

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
            def loss(params: PyTree, state: GANState, batch: Batch, key: PRNGKey) -> tuple[Scalar, LossOutput]:
                own = state.players[player].replace(params=params)
                ahead = state.replace(players={**state.players, player: own})
                for step in range(steps):
                    step_key = jax.random.fold_in(key, step)
                    for rival, batches in rivals:
                        ahead, _ = run_phase(rival, ahead, batches, step_key)
                    ahead = ahead.replace(players={**ahead.players, player: own}, aux=state.aux)
                return phase.loss(params, ahead, batch, key)

            return phase._replace(loss=loss)

        seen = [foreseeing(phase) if phase.player == player else phase for phase in phases]
        return _in_turn(seen, state, passes, key)

    return UpdateRule(run, check)
