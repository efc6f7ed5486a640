"""Losses that are sums of terms, and the phases of a player that has such a loss."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from gan_jax.core.state import GANState
from gan_jax.types import Batch, InvalidInputError, LossFn, LossOutput, Metrics, Phase, PRNGKey, Scalar, Term, View

# Creates the view that the terms of an update share; see the argument `see` of `sum_of_terms`.
See = Callable[[PyTree, GANState, Batch, PRNGKey], tuple[View, Sequence[PRNGKey], PyTree | None]]


def sum_of_terms(terms: Sequence[Term], see: See) -> LossFn:
    """Creates the loss of a phase: sum over terms of `every` * weight * ramp * mean(loss).

    Args:
      terms: terms of one player.
      see: `(params, state, batch, key) -> (view, keys, model state)`. The view is passed to all terms, and each term
        gets one of the keys. The model state is the player's new one, or None to keep the current one.

    Returns:
      The loss function.
    """

    def loss(params: PyTree, state: GANState, batch: Batch, key: PRNGKey) -> tuple[Scalar, LossOutput]:
        view, keys, model_state = see(params, state, batch, key)
        total, metrics, aux = jnp.zeros((), jnp.float32), Metrics(), dict[str, PyTree]()
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
    """Computes the ramp of a term from the number of images seen before this iteration.

    clip((images - begin) / over, 0, 1); with `over` = 0 a step from 0 to 1 at `begin`.
    """
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
    """Creates the phases of a player: one for all its terms with `every` = 1, then one for each lazy term.

    Args:
      player: name of the player.
      terms: terms of all players.
      see: `(player, number of terms, whether the phase is lazy) -> See`, which makes the `see` of `sum_of_terms`.
      repeat: number of updates of the first phase per iteration.
      reuse_batch: whether the first phase reuses the batch of the previous update. Lazy phases always do.
      start: first iteration in which the player is updated.

    Returns:
      The phases. Their names are `{player}`, and `{player}_{term}` for the lazy ones.
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
    """Collects the weights and other hyperparameters of terms, by their names in `state.hparams`.

    Raises:
      InvalidInputError: for two terms of one player with the same name, two values of one hyperparameter, a negative
        weight, an `every` below 1, or a negative ramp.
    """
    seen: set[tuple[str, str]] = set()
    found: dict[str, float] = {}
    for term in terms:
        name = f"{term.name}_weight"
        if (term.player, term.name) in seen:
            raise InvalidInputError(
                f"terms: {term.name!r} of the {term.player} is given twice; rename one with `_replace(name=...)`"
            )
        seen.add((term.player, term.name))
        if term.every < 1 or min(term.ramp) < 0:
            raise InvalidInputError(
                f"term {term.name!r}: every={term.every}, ramp={term.ramp}: expected every >= 1, and ramp values >= 0"
            )
        own = dict(term.hparams) if term.weight is None else {name: term.weight, **term.hparams}
        if not own.get(name, 0.0) >= 0:
            raise InvalidInputError(f"term {term.name!r}: weight={term.weight}: expected at least 0")
        for key, value in own.items():
            if found.setdefault(key, value) != value:
                raise InvalidInputError(
                    f"terms give {key!r} the values {found[key]} and {value}: they share one hyperparameter"
                )
    return found


def term_aux(terms: Sequence[Term]) -> dict[str, PyTree]:
    """Collects the initial values of the entries that terms keep in `state.aux`.

    Raises:
      InvalidInputError: for two terms that use the same name.
    """
    names = [name for term in terms for name in term.aux]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise InvalidInputError(f"terms: two of them keep {', '.join(twice)} in state.aux; use different names")
    return {name: jax.tree.map(jnp.asarray, value) for term in terms for name, value in term.aux.items()}
