"""CUT and FastCUT: translation learned from unpaired images by one generator and a contrastive loss of patches."""

import functools
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, PyTree

from gan_jax import core, losses
from gan_jax.core import Hook
from gan_jax.gans.decay import decay_hooks
from gan_jax.gans.standard import DISCRIMINATOR, GENERATOR, sampler, standard_game
from gan_jax.gans.terms import gan_loss
from gan_jax.gans.translation import check_pair, translate
from gan_jax.losses import GANLoss, least_squares
from gan_jax.types import Batch, Game, InvalidInputError, Network, PRNGKey, Term, Value, View

FASTCUT: Mapping[str, Any] = MappingProxyType({"nce_weight": 5.0, "identity_weight": None, "flip": True})
"""Arguments of `cut` that make it FastCUT. Its authors' weight of 10 is 5 beside `losses.least_squares`."""

Features = dict[str, Array]


def cut(
    generator: Network,
    discriminator: Network,
    projector: Network,
    *,
    loss: GANLoss = least_squares,
    nce_weight: float = 0.25,
    identity_weight: float | None = 0.25,
    patches: int = 256,
    temperature: float = 0.07,
    flip: bool = False,
    learning_rate: float = 2e-4,
    decay: tuple[float, float] | None = None,
    terms: Sequence[Term] = (),
    hooks: Sequence[Hook] = (),
    generator_optimizer: optax.GradientTransformation | None = None,
    discriminator_optimizer: optax.GradientTransformation | None = None,
) -> Game:
    """Creates the game of CUT: translation from images `'a'` to the domain of images `'b'`, with no way back.

    The generator minimises L(D(G(a))) + nce_weight NCE(a, G(a)) + identity_weight NCE(b, G(b)). NCE(x, y) is
    `losses.patch_nce` of the generator's own features of y and of x at `patches` random places, after the projector;
    its mean over images, places and layers. So each patch of the output keeps what distinguishes the patch of the input
    at its place from others. `cut(..., **gans.FASTCUT)` is FastCUT.

    Args:
      generator: generator network, `images -> {'image': ..., 'features': {name: [b, h', w', c]}}`, such as
        `nets.TranslationResNet(..., antialias=True, features=nets.CUT_FEATURES)`.
      discriminator: discriminator network, `images -> logits`, such as `nets.PatchDiscriminator(antialias=True)`.
      projector: network from features at places, `{name: [b, n, c]}`, to vectors of unit length,
        `{name: [b, n, d]}`, such as `nets.PatchProjector`. It is trained with the generator, as a part of that player.
      loss: adversarial loss L, any pair of `gan_jax.losses`.
      nce_weight: weight of the contrastive loss. The paper's total of 1 for both losses, each counted half, is 0.25 for
        each here, because `least_squares` contains a factor 1/2 that the authors' adversarial term lacks.
      identity_weight: weight of the contrastive loss of images of b, which the generator should keep; None for none.
      patches: number of places; if a layer has fewer, all of them. They are the same for all images of the batch.
      temperature: temperature of the contrastive loss.
      flip: whether half of the sources are mirrored before the generator, and their features mirrored back before they
        are compared with those of the sources as they are.
      learning_rate: learning rate of both players' Adam, betas 0.5 and 0.999.
      decay: `(constant, falling)` in images of a: the learning rate is constant, then falls to 0; see `linear_decay`.
        The paper's is 200 epochs each, FastCUT's 150 and 50. None for a constant one.
      terms: additional terms of either player.
      hooks: additional hooks, such as `core.averaging`, after the schedule.
      generator_optimizer: optimiser of generator and projector; None for that Adam. `decay` does not apply to one given
        here.
      discriminator_optimizer: optimiser of the discriminator; None for that Adam.

    Returns:
      The game, with the players `generator` (parameters `'translator'` and `'projector'`) and `discriminator`; the
      discriminator is updated first. `sample` needs `inputs`, images of domain a; `translate` is
      `(state, key, images) -> images`.

    Raises:
      InvalidInputError: for invalid weights or fewer than 2 patches; by the game's `init`, for a batch other than `'a'`
        and `'b'` of one height and width, and for a generator without features.

    References:
      Park et al., "Contrastive Learning for Unpaired Image-to-Image Translation", arXiv:2007.15651, 2020. The authors'
      code mirrors a whole batch or nothing; their batches have one image.
    """
    if patches < 2:
        raise InvalidInputError(f"patches={patches}: expected at least 2, since the others are the negatives")
    given = {GENERATOR: generator_optimizer, DISCRIMINATOR: discriminator_optimizer}
    player = _player(generator, projector)
    contrast = functools.partial(_contrast, projector, patches, temperature)
    compared = [_nce_term(contrast, nce_weight, flip)]
    compared += [] if identity_weight is None else [_identity_term(contrast, identity_weight)]

    def inputs(key: PRNGKey, batch: Batch, hparams: Any) -> tuple[PyTree, ...]:
        if not flip:
            return (batch["a"],)
        mirrored = jax.random.bernoulli(key, 0.5, (batch["a"].shape[0],))
        return _mirrored(batch["a"], mirrored), mirrored

    sample = sampler(player, fakes=lambda made: made["image"])
    return standard_game(
        player,
        discriminator,
        (*gan_loss(loss), *compared, *terms),
        inputs=inputs,
        real=lambda batch: batch["b"],
        fakes=lambda made: made["image"],
        same_fakes=True,
        optimizers={name: optimizer or core.adam(learning_rate, 0.5) for name, optimizer in given.items()},
        functions={"sample": sample, "translate": translate(sample)},
        hooks=(*decay_hooks(decay, learning_rate, given), *hooks),
        check=check_pair("CUT"),
    )


def _player(generator: Network, projector: Network) -> Network:
    """Joins generator and projector to one network, which applies the generator; the terms apply the projector."""

    def init(key: PRNGKey, x: Array, *mirrored: Array) -> tuple[PyTree, PyTree]:
        del mirrored
        keys = jax.random.split(key)
        params, model_state = generator.init(keys[0], x)
        # Not as in training, in which microbatches would have to divide this one example.
        made = jax.eval_shape(lambda: generator.apply(params, model_state, x, train=False, key=key)[0])
        if not isinstance(made, dict) or set(made) != {"image", "features"} or not made["features"]:
            raise InvalidInputError(
                "the generator returns no features: CUT needs a dict of 'image' and 'features', such as that of "
                "nets.TranslationResNet(..., features=nets.CUT_FEATURES)"
            )
        features = {name: jnp.zeros((1, 1, y.shape[-1]), jnp.float32) for name, y in made["features"].items()}
        own, own_state = projector.init(keys[1], features)
        return {"translator": params, "projector": own}, {"translator": model_state, "projector": own_state}

    def apply(params: PyTree, model_state: PyTree, x: Array, *mirrored: Array, **options: Any) -> tuple[PyTree, PyTree]:
        made, after = generator.apply(params["translator"], model_state["translator"], x, **options)
        return made, {**model_state, "translator": after}

    return Network(init, apply)


def _mirrored(x: Float[Array, "b h w c"], which: Bool[Array, " b"]) -> Float[Array, "b h w c"]:
    return jnp.where(which[:, None, None, None], x[:, :, ::-1], x)


def _contrast(
    projector: Network, patches: int, temperature: float, view: View, key: PRNGKey, query: Features, positive: Features
) -> Array:
    """Compares features at random places, the same in all images; returns the mean loss per image, `[b]`."""
    player = view.state.players[GENERATOR]

    def vectors(features: Features) -> Features:
        found = {}
        for index, (name, y) in enumerate(features.items()):
            places = jax.random.permutation(jax.random.fold_in(key, index), y.shape[1] * y.shape[2])[:patches]
            found[name] = y.reshape(y.shape[0], -1, y.shape[-1])[:, places]
        params, model_state = player.params["projector"], player.model_state["projector"]
        return projector.apply(params, model_state, found, train=True)[0]

    q, k = vectors(query), vectors(positive)
    each = [jnp.mean(losses.patch_nce(q[name], k[name], temperature=temperature), axis=1) for name in q]
    return sum(each) / len(each)  # type: ignore[return-value]


def _nce_term(contrast: Callable[..., Array], weight: float, flip: bool) -> Term:
    """Creates the contrastive term of the sources and their translations."""

    def value(view: View, key: PRNGKey) -> Value:
        query = view.generator(view.fake)[0]["features"]
        if not flip:  # the pass that made the fakes has the features of the sources
            return Value(contrast(view, key, query, view.made["features"]))
        back = {name: _mirrored(y, view.inputs[1]) for name, y in query.items()}
        return Value(contrast(view, key, back, view.generator(view.batch["a"])[0]["features"]))

    return Term("nce", GENERATOR, weight, value)


def _identity_term(contrast: Callable[..., Array], weight: float) -> Term:
    """Creates the contrastive term of images that are in the target's domain already."""

    def value(view: View, key: PRNGKey) -> Value:
        kept = view.generator(view.real)[0]
        query = view.generator(kept["image"])[0]["features"]
        return Value(contrast(view, key, query, kept["features"]))

    return Term("identity", GENERATOR, weight, value)
