"""The base of most games: a generator, a discriminator, and losses that are sums of terms."""

import functools
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

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
    axes_of,
)

GENERATOR, DISCRIMINATOR = "generator", "discriminator"
_SAME_FAKES = 0x66616B65  # folded into the key of an iteration, whose phases fold in their small numbers
Inputs = Callable[[PRNGKey, Batch, Mapping[str, Any]], tuple[PyTree, ...]]


def standard_game(
    generator: Network,
    discriminator: Network,
    terms: Sequence[Term],
    *,
    inputs: Inputs,
    optimizers: Mapping[str, optax.GradientTransformation],
    functions: Mapping[str, Callable[..., PyTree]] = MappingProxyType({}),
    real: Callable[[Batch], PyTree] = lambda batch: batch["real"],
    fakes: Callable[[PyTree], PyTree] = lambda made: made,
    condition: Callable[[Batch], tuple[PyTree, ...]] = lambda batch: (),
    preprocess: Callable[[PRNGKey, PyTree, GANState], PyTree] = lambda key, x, state: x,
    critic_steps: int = 1,
    discriminator_start: int = 0,
    generator_first: bool = False,
    new_batch: bool = False,
    same_fakes: bool = False,
    hooks: Sequence[Hook] = (),
    hparams: Mapping[str, float] | None = None,
    check: Callable[[Batch], None] = lambda batch: None,
    prior: Prior | None = None,
    num_classes: int | None = None,
) -> Game:
    """Creates a game of a generator and a discriminator whose losses are sums of terms.

    Args:
      generator: generator network, `(*inputs) -> samples`.
      discriminator: discriminator network, `(x, *condition) -> outputs`: logits, or any tree that contains logits.
      terms: terms of both players' losses; see `gan_jax.gans.terms`.
      inputs: `(key, batch, hparams) -> (...)`, returns the generator's inputs: latents, labels, source images.
      optimizers: optimiser of each player, by name.
      functions: functions for `Game.functions`. `sample` is that of `sampler`, unless it is given here.
      real: `batch -> x`, selects the real samples for the discriminator.
      fakes: `outputs -> x`, selects the fake samples, of the same structure and shapes, from the generator's outputs.
      condition: `batch -> (...)`, returns the discriminator's inputs beside the samples: labels, source images.
      preprocess: `(key, x, state) -> x`, applied to all samples before the discriminator, such as augmentation. It must
        keep shapes, because the discriminator is initialised with samples that are not preprocessed.
      critic_steps: discriminator updates per iteration, each with its own batch.
      discriminator_start: first iteration in which the discriminator is updated.
      generator_first: whether the generator is updated first, and then the discriminator, with samples of the updated
        generator and, if it has one critic step, on the same batch.
      new_batch: whether the generator's update draws its own batch; otherwise it reuses the discriminator's last one.
      same_fakes: whether both players' updates in an iteration draw the same inputs and noise for the generator. If the
        discriminator is updated first, on the same batch, the compiler then computes the fakes once for both.
      hooks: functions that run at the end of an iteration.
      hparams: hyperparameters of the game itself, by name.
      check: function that raises `InvalidInputError` for a batch that the game cannot use.
      prior: distribution of the latents; None if the generator maps data.
      num_classes: number of classes of a conditional game; None if unconditional.

    Returns:
      The game, with the players `generator` and `discriminator`; the discriminator is updated first, unless
      `generator_first`.

    Raises:
      InvalidInputError: for invalid or conflicting terms; by the game's `init`, if samples and data differ in shape.
    """
    constants = dict(hparams or {}) | core.term_hparams(terms)
    if twice := sorted(set(hparams or {}) & set(core.term_hparams(terms))):
        raise InvalidInputError(f"hyperparameters {', '.join(twice)} are both the game's and a term's; rename one")
    if critic_steps > 1 and any(term.every > 1 and term.player == DISCRIMINATOR for term in terms):
        raise InvalidInputError(
            f"critic_steps={critic_steps} with a lazy penalty: its weight and Adam's correction assume one critic "
            "step per iteration; set every=1"
        )

    def see(player: str, count: int, lazy: bool) -> core.See:
        """Creates the `see` of one phase, for `core.term_phases`."""

        def look(params: PyTree, state: GANState, batch: Batch, key: PRNGKey) -> tuple[View, list[PRNGKey], PyTree]:
            keys = _keys(player, lazy, key, count)
            if same_fakes:
                keys = keys._replace(fake=jax.random.fold_in(jax.random.fold_in(state.key, state.step), _SAME_FAKES))
            # With the player's parameters replaced by `params`, gradients flow through everything in the view.
            state = state.replace(players={**state.players, player: state.players[player].replace(params=params)})
            made, judge = state.players[GENERATOR], state.players[DISCRIMINATOR]
            input_key, noise_key = jax.random.split(keys.fake)

            def generate(*x: PyTree) -> tuple[PyTree, PyTree]:
                return generator.apply(made.params, made.model_state, *x, train=True, key=noise_key)

            def criticize(key: PRNGKey, x: PyTree) -> tuple[PyTree, PyTree]:
                augment_key, network_key = jax.random.split(key)
                seen = preprocess(augment_key, x, state), *condition(batch)
                return discriminator.apply(judge.params, judge.model_state, *seen, train=True, key=network_key)

            def draw(key: PRNGKey) -> tuple[PyTree, ...]:
                return core.constrain_batch(inputs(key, batch, state.hparams))

            view = View(
                batch, real(batch), draw(input_key), state, generate, functools.partial(criticize, keys.real),
                functools.partial(criticize, keys.fake_critic), draw, fakes,
            )  # fmt: skip
            # A lazy phase reuses a batch that the player's first phase has already recorded in the model state.
            writes = "generated" if player == GENERATOR else "judged"
            return view, keys.terms, None if lazy else getattr(view, writes)[1]

        return look

    def init(key: PRNGKey, batch: Batch) -> GANState:
        check(batch)
        generator_key, discriminator_key = jax.random.split(core.init_key(key))
        first = jax.tree.map(lambda x: x[:1], batch)  # one example is enough to initialise parameters
        drawn = inputs(generator_key, first, constants)
        params, model_state = generator.init(generator_key, *drawn)
        check_shapes(generator, (params, model_state, *drawn), fakes, real(first), key)
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
    reuse = generator_first and critic_steps == 1 and not new_batch
    critic_phases = phases(DISCRIMINATOR, repeat=critic_steps, reuse_batch=reuse, start=discriminator_start)
    generator_phases = phases(GENERATOR, reuse_batch=not new_batch and not generator_first)
    moves = (*generator_phases, *critic_phases) if generator_first else (*critic_phases, *generator_phases)
    shown = tuple(name for hook in hooks for name in hook.shown)
    functions = {"sample": sampler(generator, prior, num_classes, fakes=fakes), **functions}
    return Game(init, moves, tuple(hook.run for hook in hooks), functions, prior, num_classes, shown)


def sampler(
    generator: Network,
    prior: Prior | None = None,
    num_classes: int | None = None,
    *,
    fakes: Callable[[PyTree], PyTree] = lambda made: made,
    latents: Callable[[Array, Mapping[str, Array]], Array] = lambda z, hparams: z,
    train: bool = False,
) -> Callable[..., PyTree]:
    """Creates the function `sample` of a game: it maps latents to samples, or data if there is no prior.

    Args:
      generator: generator network, `(inputs) -> outputs`, or `(inputs, label) -> outputs` if conditional.
      prior: distribution of the latents; None if the generator maps data.
      num_classes: number of classes of a conditional game; None if unconditional.
      fakes: `outputs -> samples`, selects the samples from the generator's outputs.
      latents: `(z, hparams) -> z`, transforms the latents before they are passed to the generator.
      train: whether the generator samples as it is trained, with dropout and the statistics of the batch.

    Returns:
      `(state, key, n, label=None, *, inputs=None, truncation=None) -> samples`. It uses the averaged generator if there
      is one. Labels that are not given are drawn uniformly.
    """

    def sample(
        state: GANState,
        key: PRNGKey,
        n: int,
        label: Array | None = None,
        *,
        inputs: PyTree = None,
        truncation: float | None = None,
    ) -> PyTree:
        latent_key, label_key, network_key = jax.random.split(key, 3)
        if prior is not None:
            z = prior.sample(latent_key, n, truncation) if inputs is None else inputs
            given = latents(z, state.hparams)
        elif inputs is None or truncation is not None:
            raise InvalidInputError("this game has no prior, its generator maps data: pass inputs=, and no truncation")
        else:
            given = jax.tree.map(lambda x: x[:n], inputs)
        labels = sampled_labels(label, label_key, jax.tree.leaves(given)[0].shape[0], num_classes)
        params, model_state = sampling_weights(state, GENERATOR)
        return fakes(generator.apply(params, model_state, given, *labels, train=train, key=network_key)[0])

    return sample


def sampled_labels(label: Array | None, key: PRNGKey, n: int, num_classes: int | None) -> tuple[Array, ...]:
    """Returns the generator's inputs after the latents: none, the given labels, or labels drawn uniformly."""
    if num_classes is None:
        if label is not None:
            raise InvalidInputError("label was given, but this game is unconditional: leave it out")
        return ()
    if label is None:
        return (jax.random.randint(key, (n,), 0, num_classes),)
    return (jnp.broadcast_to(jnp.asarray(label, jnp.int32), (n,)),)


def sampling_weights(state: GANState, player: str = GENERATOR) -> tuple[PyTree, PyTree]:
    """Returns the parameters and model state for sampling: the averaged ones if the game keeps an average."""
    averaged = state.ema.get(player)
    if averaged is None:
        return state.players[player].params, state.players[player].model_state
    return averaged["params"], averaged["model_state"]


class _Keys(NamedTuple):
    """Random keys of one update.

    Attributes:
      fake: key of the generator's inputs and noise.
      real: key of augmentation and discriminator on reals.
      fake_critic: key of augmentation and discriminator on fakes.
      terms: one key for each term.
    """

    fake: PRNGKey
    real: PRNGKey
    fake_critic: PRNGKey
    terms: list[PRNGKey]


def _keys(player: str, lazy: bool, key: PRNGKey, count: int) -> _Keys:
    """Derives the keys of an update as the first release did, so that runs started with it resume identically."""
    if not lazy:
        a, b, c, *rest = jax.random.split(key, 3 + count)
        others = [jax.random.split(each)[1] for each in rest]
        terms = [*others[-1:], *others[:-1]]  # the first term (adversarial) draws nothing, so it gets the last key
        return _Keys(a, b, c, terms) if player == DISCRIMINATOR else _Keys(a, c, b, terms)
    if player == DISCRIMINATOR:
        fake, rest = jax.random.split(key)
        critic, term = jax.random.split(rest)
        return _Keys(fake, critic, critic, [term])
    fake, real, fake_critic = jax.random.split(jax.random.fold_in(key, 0xFFFFFFFF), 3)
    return _Keys(fake, real, fake_critic, [key])


def check_shapes(
    generator: Network,
    arguments: tuple[PyTree, ...],
    fakes: Callable[[PyTree], PyTree],
    real: PyTree,
    key: PRNGKey,
) -> None:
    """Refuses a generator whose samples differ in shape from the data; nothing is computed."""
    made = jax.eval_shape(lambda: fakes(generator.apply(*arguments, train=False, key=key)[0]))
    shapes, wanted = (jax.tree.map(jnp.shape, tree) for tree in (made, real))
    if shapes != wanted:
        found, expected = (jax.tree.map(lambda x: x.shape[1:], tree) for tree in (made, real))
        looks, other = ([axes_of(x.shape[1:]) for x in jax.tree.leaves(tree)] for tree in (real, made))
        advice = "change the generator's output shape or resize the data in its source"
        if looks != other and any(looks):
            advice = f"an example of the data looks like {next(filter(None, looks))}"
        raise InvalidInputError(f"the generator makes samples of shape {found}, but the data has {expected}: {advice}")
