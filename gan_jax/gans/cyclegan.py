"""CycleGAN: translation between two image domains, trained on unpaired images."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PyTree

from gan_jax import core
from gan_jax.core import GANState, Hook
from gan_jax.gans.decay import decay_hooks
from gan_jax.gans.standard import DISCRIMINATOR, GENERATOR, sampler, sampling_weights, standard_game
from gan_jax.gans.terms import LOGITS, logit_metrics, over_scales
from gan_jax.losses import GANLoss, cycle_consistency, identity_mapping, least_squares
from gan_jax.types import Batch, Game, InvalidInputError, Metrics, Network, Phase, PRNGKey, Term, Value, View

Pool = dict[str, Array]
Pair = dict[str, Array]
_OTHER = {"a": "b", "b": "a"}
_FAKES = "fakes"  # what the generators of an iteration have made, in `aux` until the discriminators have seen it


def cyclegan(
    generator: Network,
    discriminator: Network,
    *,
    loss: GANLoss = least_squares,
    cycle_weight: float = 5.0,
    identity_weight: float | None = 2.5,
    pool_size: int = 50,
    learning_rate: float = 2e-4,
    decay: tuple[float, float] | None = None,
    terms: Sequence[Term] = (),
    hooks: Sequence[Hook] = (),
    generator_optimizer: optax.GradientTransformation | None = None,
    discriminator_optimizer: optax.GradientTransformation | None = None,
) -> Game:
    """Creates the game of CycleGAN, with two generators in one player and two discriminators in the other.

    The batch has the images `'a'` and `'b'`, `[b, h, w, c]`. G_a translates to domain a, G_b to domain b. The
    generators minimise

        L(D_b(G_b(a))) + L(D_a(G_a(b))) + cycle_weight (|G_a(G_b(a)) - a| + |G_b(G_a(b)) - b|)
        + identity_weight (|G_b(b) - b| + |G_a(a) - a|),

    where |.| is the mean absolute value. Each discriminator sees fakes that are drawn from a pool of earlier ones
    (`query_pool`) and the new ones: as in the authors' code, those that the generators were just updated with.

    To a term, real and fake samples are pairs `{'a': ..., 'b': ...}`, and so are the discriminators' outputs. The
    generator takes such a pair and translates both to the other domain: `view.generate(view.fake)` is the cycle.

    Args:
      generator: generator network, `images -> images`, such as `nets.TranslationResNet`. It is used twice: with the
        parameters `'a'` (to domain a) and `'b'` (to domain b).
      discriminator: discriminator network, `images -> logits` of any shape, such as
        `nets.PatchDiscriminator(norm="instance")`. It is used twice: with the parameters `'a'` and `'b'` (of images of
        that domain).
      loss: adversarial loss L, any pair of `gan_jax.losses`.
      cycle_weight: weight of the cycle-consistency term. The paper's 10 is 5 here, because `least_squares` contains a
        factor 1/2 that the paper's adversarial term of the generators lacks.
      identity_weight: weight of the identity term; the paper's code uses half the cycle weight. None for no such term,
        for domains whose colours differ.
      pool_size: number of earlier fakes kept for each discriminator, rounded up to a multiple of the batch size.
      learning_rate: learning rate of both players' Adam, betas 0.5 and 0.999.
      decay: `(constant, falling)` in images of one domain: the learning rate is constant, then falls to 0; see
        `linear_decay`. The paper's is 100 epochs each. None for a constant one.
      terms: additional terms of either player.
      hooks: additional hooks, such as `core.averaging`, after the schedule.
      generator_optimizer: optimiser of the generators; None for that Adam. `decay` does not apply to one given here.
      discriminator_optimizer: optimiser of the discriminators; None for that Adam.

    Returns:
      The game, with the players `generator` and `discriminator`; the generators are updated first. `sample` needs
      `inputs`, images of domain a, and returns their translations to b. `translate` does the same; `translate_back`
      translates images of b to a.

    Raises:
      InvalidInputError: for a `pool_size` below 1; by the game's `init`, for a batch other than `'a'` and `'b'` of one
        shape.

    References:
      Zhu et al., "Unpaired Image-to-Image Translation using Cycle-Consistent Adversarial Networks", arXiv:1703.10593,
      2017. The authors' code halves the discriminator's loss. `losses.least_squares` contains the factor 1/2, for the
      generator too: all of the generators' loss is half of theirs, which Adam does not notice. Their pool is one list.
      Here each position in the batch has its own share of the pool, so that devices do not exchange images.
    """
    if pool_size < 1:
        raise InvalidInputError(f"pool_size={pool_size}: expected at least 1")
    given = {GENERATOR: generator_optimizer, DISCRIMINATOR: discriminator_optimizer}

    identity = () if identity_weight is None else (_identity(identity_weight),)

    def to_b(params: PyTree, model_state: PyTree, images: Array, **options: Any) -> tuple[Array, PyTree]:
        return generator.apply(params["b"], model_state["b"], images, **options)

    game = standard_game(
        _twice(generator, _OTHER),
        _twice(discriminator, {"a": "a", "b": "b"}),
        (*_adversarial(loss), _cycle(cycle_weight), *identity, *terms),
        inputs=lambda key, batch, hparams: ({"a": batch["a"], "b": batch["b"]},),
        real=lambda batch: {"a": batch["a"], "b": batch["b"]},
        optimizers={player: optimizer or core.adam(learning_rate, 0.5) for player, optimizer in given.items()},
        functions={
            "sample": sampler(Network(generator.init, to_b)),
            "translate": _translation(generator, "b"),
            "translate_back": _translation(generator, "a"),
        },
        hooks=(*decay_hooks(decay, learning_rate, given), *hooks),
        check=_check,
    )

    def init(key: PRNGKey, batch: Batch) -> GANState:
        state = game.init(key, batch)
        pools = {f"pool_{domain}": empty_pool(batch[domain], pool_size) for domain in ("a", "b")}
        return state.replace(aux={**state.aux, **pools})

    return game._replace(init=init, phases=_generator_first(game.phases), after=(_forget_fakes, *game.after))


def _twice(network: Network, reads: dict[str, str]) -> Network:
    """Makes one network of pairs out of two with their own parameters; output `name` is of the input `reads[name]`."""

    def init(key: PRNGKey, pair: Pair) -> tuple[PyTree, PyTree]:
        made = {
            name: network.init(own, pair[reads[name]])
            for name, own in zip(("a", "b"), jax.random.split(key), strict=True)
        }
        return {name: params for name, (params, _) in made.items()}, {name: state for name, (_, state) in made.items()}

    def apply(
        params: PyTree, model_state: PyTree, pair: Pair, *, train: bool, key: PRNGKey | None = None
    ) -> tuple[PyTree, PyTree]:
        keys = {"a": None, "b": None} if key is None else dict(zip("ab", jax.random.split(key), strict=True))
        made = {
            name: network.apply(params[name], model_state[name], pair[reads[name]], train=train, key=keys[name])
            for name in ("a", "b")
        }
        return {name: out for name, (out, _) in made.items()}, {name: state for name, (_, state) in made.items()}

    return Network(init, apply)


def _adversarial(loss: GANLoss) -> tuple[Term, Term]:
    """Creates the adversarial terms of both players, summed over the domains; the discriminators see pooled fakes."""

    def discriminator(view: View, key: PRNGKey) -> Value:
        pools, seen = {}, {}
        # Those that the generators were updated with; an update rule that moves all players at once has none yet.
        made = view.state.aux.get(_FAKES)
        fakes = view.fake if made is None else made
        for domain, own in zip(("a", "b"), jax.random.split(key), strict=True):
            pool = view.state.aux[f"pool_{domain}"]
            seen[domain], pools[f"pool_{domain}"] = query_pool(pool, fakes[domain], own)
        judged, total, metrics = view.fake_critic(seen), jnp.zeros((), jnp.float32), Metrics()
        for domain in ("a", "b"):
            real, fake = LOGITS(view.real_out[domain]), LOGITS(judged[domain])
            total += jnp.mean(over_scales(loss.discriminator, real, fake))
            metrics |= {f"{name}_{domain}": x for name, x in logit_metrics(loss, real, fake).items()}
        return Value(total, metrics, pools)

    def generator(view: View, key: PRNGKey) -> Value:
        each = {
            domain: jnp.mean(over_scales(loss.generator, LOGITS(view.real_out[domain]), LOGITS(view.fake_out[domain])))
            for domain in ("a", "b")
        }
        return _summed("adversarial", each)._replace(aux={_FAKES: view.fake})

    return (
        Term("adversarial", DISCRIMINATOR, None, discriminator),
        Term("adversarial", GENERATOR, None, generator),
    )


def _cycle(weight: float) -> Term:
    """Creates the term that a translation there and back should end where it began."""

    def value(view: View, key: PRNGKey) -> Value:
        cycled = view.generate(view.fake)
        return _summed("cycle", {name: jnp.mean(cycle_consistency(view.real[name], cycled[name])) for name in "ab"})

    return Term("cycle", GENERATOR, weight, value)


def _identity(weight: float) -> Term:
    """Creates the term that images of the target's domain should stay as they are."""

    def value(view: View, key: PRNGKey) -> Value:
        same = view.generate({name: view.real[_OTHER[name]] for name in "ab"})
        return _summed("identity", {name: jnp.mean(identity_mapping(view.real[name], same[name])) for name in "ab"})

    return Term("identity", GENERATOR, weight, value)


def _summed(name: str, each: dict[str, Array]) -> Value:
    return Value(sum(each.values()), {f"{name}_{domain}": x for domain, x in each.items()})  # type: ignore[arg-type]


def _forget_fakes(state: GANState) -> GANState:
    """Drops the fakes of an iteration from the state, at its end."""
    return state.replace(aux={name: value for name, value in state.aux.items() if name != _FAKES})


def _generator_first(phases: Sequence[Phase]) -> tuple[Phase, ...]:
    """Puts the generator's phases before the discriminator's; all of them use the batch that the first one draws."""
    ordered = sorted(phases, key=lambda phase: phase.player != GENERATOR)
    return tuple(phase._replace(reuse_batch=index > 0) for index, phase in enumerate(ordered))


def _check(batch: Batch) -> None:
    if set(batch) != {"a", "b"} or batch["a"].shape != batch["b"].shape:
        shapes = {name: value.shape for name, value in batch.items()}
        raise InvalidInputError(f"batch={shapes}: CycleGAN takes 'a' and 'b', images of one shape, and nothing else")


def _translation(generator: Network, domain: str) -> Callable[[GANState, PRNGKey, Array], Array]:
    def translate(state: GANState, key: PRNGKey, inputs: Array) -> Array:
        params, model_state = sampling_weights(state)
        return generator.apply(params[domain], model_state[domain], inputs, train=False, key=key)[0]

    return translate


def empty_pool(images: Float[Array, "b h w c"], size: int) -> Pool:
    """Creates an empty pool: m = ceil(size / b) images for each position in the batch.

    Args:
      images: a batch, for its shape and dtype.
      size: requested number of images in the pool.

    Returns:
      `'images'`, `[m, b, h, w, c]`, zeros; and `'filled'`, how many of the m entries per position are in use, 0.
    """
    per_place = -(-size // images.shape[0])
    return {
        "images": core.constrain_batch(jnp.zeros((per_place, *images.shape), images.dtype), axis=1),
        "filled": jnp.zeros((), jnp.int32),
    }


def query_pool(pool: Pool, images: Float[Array, "b h w c"], key: PRNGKey) -> tuple[Float[Array, "b h w c"], Pool]:
    """Draws the discriminator's fakes: for each image either the image itself or an earlier one from the pool.

    Until the pool is full, each image is stored in the next free entry and returned. After that, with probability 1/2
    it replaces a random stored image of its position, which is returned; otherwise it is returned and not stored.

    Args:
      pool: the pool, from `empty_pool` or the previous call.
      images: new fakes.
      key: random key of the choices.

    Returns:
      The images for the discriminator, and the updated pool.

    References:
      Shrivastava et al., "Learning from Simulated and Unsupervised Images through Adversarial Training",
      arXiv:1612.07828, 2017.
    """
    stored, filled = pool["images"], pool["filled"]
    size, local_indices = stored.shape[:2]
    swap_key, index_key = jax.random.split(key)
    filling = filled < size
    index: Int[Array, " b"] = jnp.where(filling, filled, jax.random.randint(index_key, (local_indices,), 0, size))
    swap = jax.random.bernoulli(swap_key, 0.5, (local_indices,))
    # Masks instead of indexing: all operations are elementwise along the batch axis, so no image changes device.
    chosen = jnp.arange(size)[:, None] == index
    old = jnp.sum(jnp.where(chosen[..., None, None, None], stored, 0), axis=0)
    write = chosen & (filling | swap)
    stored = core.constrain_batch(jnp.where(write[..., None, None, None], images, stored), axis=1)
    returned = jnp.where((swap & ~filling)[:, None, None, None], old, images)
    return returned, {"images": stored, "filled": jnp.minimum(filled + 1, size)}
