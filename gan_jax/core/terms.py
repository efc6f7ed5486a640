"""A player's loss as a sum of terms, and the phases that such a sum makes."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from gan_jax.core.state import GANState
from gan_jax.types import Batch, InvalidInputError, LossFn, LossOutput, Metrics, Phase, PRNGKey, Scalar, Term, View

See = Callable[[PyTree, GANState, Batch, PRNGKey], tuple[View, Sequence[PRNGKey], PyTree | None]]


def sum_of_terms(terms: Sequence[Term], see: See) -> LossFn:
    """The loss of a phase: sum over terms of every x weight x ramp x mean(loss).

    Args:
      terms: of one player.
      see: `(params, state, batch, key) -> (view, keys, model state)`: what the terms see, a key for each of them, and
        the player's new model state, None to keep the one it has.

    Returns:
      The loss.
    """

    def loss(params: PyTree, state: GANState, batch: Batch, key: PRNGKey) -> tuple[Scalar, LossOutput]:
        view, keys, model_state = see(params, state, batch, key)
        total, metrics, aux = jnp.zeros(()), Metrics(), dict[str, PyTree]()
        for term, term_key in zip(terms, keys, strict=True):
            found = term.value(view, term_key)
            value = jnp.mean(found.loss)
            weight = 1.0 if term.weight is None else state.hparams[f"{term.name}_weight"]
            grown = term.every * weight * value
            total += grown if term.ramp == (0, 0) else ramp(term, state, batch) * grown
            metrics |= found.metrics | ({} if term.weight is None else {term.name: value})
            aux |= found.aux
        return total, LossOutput(metrics, model_state, aux)

    return loss


def ramp(term: Term, state: GANState, batch: Batch) -> Scalar:
    """How far a term has grown: clip((images - begin) / over, 0, 1), of the images before this iteration."""
    begin, over = term.ramp
    images = state.step.astype(jnp.float32) * jax.tree.leaves(batch)[0].shape[0]
    return jnp.clip((images - begin) / over, 0.0, 1.0) if over else (images >= begin).astype(jnp.float32)


def term_phases(
    player: str,
    terms: Sequence[Term],
    see: Callable[[str, int, bool], See],
    *,
    repeat: int = 1,
    reuse_batch: bool = False,
    start: int = 0,
) -> tuple[Phase, ...]:
    """The phases of a player: one for all terms of every iteration, then one for each lazy term.

    Args:
      player: whose.
      terms: of all players.
      see: `(player, number of terms, whether the phase is lazy) -> See`.
      repeat: updates of the first phase in an iteration.
      reuse_batch: whether the first phase sees the batch of the update before.
      start: iteration from which on the player moves.

    Returns:
      Phases named `player`, and `player_term` for the lazy ones.
    """
    own = [term for term in terms if term.player == player]
    eager = [term for term in own if term.every == 1]
    first = Phase(
        player, player, sum_of_terms(eager, see(player, len(eager), False)),
        repeat=repeat, reuse_batch=reuse_batch, start=start,
    )  # fmt: skip
    lazy = [
        Phase(
            f"{player}_{term.name}", player, sum_of_terms([term], see(player, 1, True)),
            every=term.every, reuse_batch=True, start=start,
        )
        for term in own
        if term.every > 1
    ]  # fmt: skip
    return first, *lazy


def term_hparams(terms: Sequence[Term]) -> dict[str, float]:
    """The weights of terms, and what other hyperparameters they have, by their names in `state.hparams`.

    Raises:
      InvalidInputError: for terms of one player with one name, terms of one name with two weights, a negative weight,
        or an interval or a ramp that makes no sense.
    """
    seen: set[tuple[str, str]] = set()
    found: dict[str, float] = {}
    for term in terms:
        name = f"{term.name}_weight"
        if (term.player, term.name) in seen:
            raise InvalidInputError(
                f"terms: {term.name!r} of the {term.player} is given twice; its weight goes by its name"
            )
        seen.add((term.player, term.name))
        if term.every < 1 or min(term.ramp) < 0:
            raise InvalidInputError(
                f"term {term.name!r}: every={term.every}, ramp={term.ramp}: expected at least 1, and at least 0"
            )
        own = dict(term.hparams) if term.weight is None else {name: term.weight, **term.hparams}
        if not own.get(name, 0.0) >= 0:
            raise InvalidInputError(f"term {term.name!r}: weight={term.weight}: expected at least 0")
        for key, value in own.items():
            if found.setdefault(key, value) != value:
                raise InvalidInputError(f"terms give {key!r} the values {found[key]} and {value}: they share one")
    return found


def term_aux(terms: Sequence[Term]) -> dict[str, PyTree]:
    """Collects what terms remember, as it is at the start.

    Raises:
      InvalidInputError: for two terms that remember something under one name.
    """
    names = [name for term in terms for name in term.aux]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise InvalidInputError(f"terms: {', '.join(twice)} is remembered by two of them")
    return {name: jax.tree.map(jnp.asarray, value) for term in terms for name, value in term.aux.items()}
