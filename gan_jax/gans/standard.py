"""The assembly behind most games: a generator, a discriminator, and terms."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, PyTree

from gan_jax import core
from gan_jax.core import GANState, Hook
from gan_jax.types import (
    Batch,
    Game,
    InvalidInputError,
    Network,
    Prior,
    PRNGKey,
    Term,
    View,
)

GENERATOR, DISCRIMINATOR = "generator", "discriminator"
Inputs = Callable[[PRNGKey, Batch, Mapping[str, Array]], tuple[PyTree, ...]]


def standard_game(
    generator: Network,
    discriminator: Network,
    terms: Sequence[Term],
    *,
    inputs: Inputs,
    optimizers: Mapping[str, optax.GradientTransformation],
    functions: Mapping[str, Callable[..., PyTree]],
    real: Callable[[Batch], PyTree] = lambda batch: batch["real"],
    condition: Callable[[Batch], tuple[PyTree, ...]] = lambda batch: (),
    preprocess: Callable[[PRNGKey, PyTree, GANState], PyTree] = lambda key, x, state: x,
    critic_steps: int = 1,
    discriminator_start: int = 0,
    new_batch: bool = False,
    hooks: Sequence[Hook] = (),
    hparams: Mapping[str, float] | None = None,
    check: Callable[[Batch], None] = lambda batch: None,
    prior: Prior | None = None,
    num_classes: int | None = None,
) -> Game:
    """A game of two players whose losses are sums of terms.

    Args:
      generator: `(*inputs) -> samples`.
      discriminator: `(x, *condition) -> outputs`: logits, or any tree with logits in it.
      terms: of both players; see `gan_jax.gans.terms`.
      inputs: `(key, batch, hparams) -> (...)`, what the generator maps: latents, labels, source images.
      optimizers: of each player.
      functions: see `Game.functions`.
      real: the part of a batch that is real to the discriminator; the generator makes the like.
      condition: what the discriminator sees beside samples, of the same batch: labels, source images.
      preprocess: `(key, x, state) -> x`, done to all that the discriminator sees: augmentation, concatenation.
      critic_steps: updates of the discriminator in an iteration, each with a batch of its own.
      discriminator_start: iteration from which on the discriminator moves.
      new_batch: whether the generator's update draws a batch, or sees the discriminator's last one.
      hooks: what happens at the end of an iteration.
      hparams: of the game itself.
      check: raises `InvalidInputError` for a batch that the game cannot use.
      prior: see `Game.prior`.
      num_classes: see `Game.num_classes`.

    Returns:
      The game, of the players `generator` and `discriminator`; the discriminator moves first.

    Raises:
      InvalidInputError: for terms that contradict each other; by `init`, where samples and data differ in shape.
    """
    constants = dict(hparams or {}) | core.term_hparams(terms)

    def see(player: str, count: int, lazy: bool) -> core.See:
        def look(params: PyTree, state: GANState, batch: Batch, key: PRNGKey) -> tuple[View, list[PRNGKey], PyTree]:
            keys = _keys(player, lazy, key, count)
            state = state.replace(players={**state.players, player: state.players[player].replace(params=params)})
            made, judge = state.players[GENERATOR], state.players[DISCRIMINATOR]
            input_key, noise_key = jax.random.split(keys.fake)

            def generate(*x: PyTree) -> tuple[PyTree, PyTree]:
                return generator.apply(made.params, made.model_state, *x, train=True, key=noise_key)

            def criticize(key: PRNGKey, x: PyTree) -> tuple[PyTree, PyTree]:
                augment_key, network_key = jax.random.split(key)
                seen = preprocess(augment_key, x, state), *condition(batch)
                return discriminator.apply(judge.params, judge.model_state, *seen, train=True, key=network_key)

            view = View(
                batch, real(batch), core.constrain_batch(inputs(input_key, batch, state.hparams)), state, generate,
                functools.partial(criticize, keys.real), functools.partial(criticize, keys.fake_critic),
            )  # fmt: skip
            writes = "generated" if player == GENERATOR else "judged"
            return view, keys.terms, None if lazy else getattr(view, writes)[1]

        return look

    def init(key: PRNGKey, batch: Batch) -> GANState:
        check(batch)
        generator_key, discriminator_key = jax.random.split(core.init_key(key))
        first = jax.tree.map(lambda x: x[:1], batch)
        drawn = inputs(generator_key, first, constants)
        params, model_state = generator.init(generator_key, *drawn)
        _check_shapes(generator, (params, model_state, *drawn), real(first), key)
        judge = discriminator.init(discriminator_key, real(first), *condition(first))
        players = {
            GENERATOR: core.create_player(params, model_state, optimizers[GENERATOR]),
            DISCRIMINATOR: core.create_player(*judge, optimizers[DISCRIMINATOR]),
        }
        size = jax.tree.leaves(batch)[0].shape[0]
        state = core.create_state(key, players, hparams=constants, aux=core.term_aux(terms))
        for hook in hooks:
            state = hook.begin(state, size)
        return state

    phases = functools.partial(core.term_phases, terms=terms, see=see)
    moves = (
        *phases(DISCRIMINATOR, repeat=critic_steps, start=discriminator_start),
        *phases(GENERATOR, reuse_batch=not new_batch),
    )
    shown = tuple(name for hook in hooks for name in hook.shown)
    return Game(init, moves, tuple(hook.run for hook in hooks), functions, prior, num_classes, shown)


class _Keys(NamedTuple):
    fake: PRNGKey
    real: PRNGKey
    fake_critic: PRNGKey
    terms: list[PRNGKey]


def _keys(player: str, lazy: bool, key: PRNGKey, count: int) -> _Keys:
    """The keys of an update, in the order of the first release, so that runs which began with it end the same."""
    if not lazy:
        a, b, c, *rest = jax.random.split(key, 3 + count)
        others = [jax.random.split(each)[1] for each in rest]
        terms = [*others[-1:], *others[:-1]]  # the first term, the adversarial one, draws nothing: its key is the last
        return _Keys(a, b, c, terms) if player == DISCRIMINATOR else _Keys(a, c, b, terms)
    if player == DISCRIMINATOR:
        fake, rest = jax.random.split(key)
        critic, term = jax.random.split(rest)
        return _Keys(fake, critic, critic, [term])
    return _Keys(*jax.random.split(jax.random.fold_in(key, 0xFFFFFFFF), 3), [key])


def _check_shapes(generator: Network, arguments: tuple[PyTree, ...], real: PyTree, key: PRNGKey) -> None:
    made = jax.eval_shape(lambda: generator.apply(*arguments, train=False, key=key)[0])
    shapes, wanted = (jax.tree.map(jnp.shape, tree) for tree in (made, real))
    if shapes != wanted:
        found, expected = (jax.tree.map(lambda x: x.shape[1:], tree) for tree in (made, real))
        raise InvalidInputError(
            f"the generator makes samples of shape {found}, but the data has {expected}: "
            "change the generator's output shape or resize the data in its source"
        )
