"""Tokenizers: autoencoders of images with a bottleneck, whose decoder learns from an adversarial loss too."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, PyTree

from gan_jax import core, losses
from gan_jax.core import GANState, Hook
from gan_jax.gans.adversarial import Augmentation, check_labels
from gan_jax.gans.standard import (
    DISCRIMINATOR,
    GENERATOR,
    check_shapes,
    sampler,
    sampling_weights,
    standard_game,
)
from gan_jax.gans.terms import LOGITS, gan_loss, lecam, r1
from gan_jax.losses import GANLoss
from gan_jax.types import Batch, Game, InvalidInputError, Network, Phase, PRNGKey, Term, Value, View

LastLayer = tuple[Callable[[PyTree], Array], Callable[[Array, Array], Array]]
VQ_WEIGHTS = MappingProxyType({"codebook": 1.0, "commitment": 0.25})
"""Usual weights of a vector quantiser's loss terms; with taming-transformers' `legacy` they are the other way round."""


class FrozenFeatures(NamedTuple):
    """A function of a network that is not trained.

    Attributes:
      name: name of the network in `state.frozen`, so in `Experiment.frozen`.
      apply: for a perceptual loss `(params, images, targets) -> [b]`, a distance such as `feature_networks.lpips`; for
        a discriminator `(params, images) -> features`. Images are in [-1, 1].
    """

    name: str
    apply: Callable[..., PyTree]


class TokenizerRecipe(NamedTuple):
    """The losses, weights and schedule of a tokenizer. All weights and starts become hyperparameters.

    Attributes:
      loss: adversarial loss.
      pixel_loss: distance of reconstructions and images, `losses.l1` or `l2`.
      pixel_weight: weight of the mean distance, for images in [-1, 1].
      perceptual_weight: weight of the perceptual distance.
      adversarial_weight: weight of the generator's adversarial loss.
      adaptive: whether this weight is multiplied by the ratio of gradient norms, `losses.adaptive_weight`.
      patch_mean: whether the generator's loss is that of each image's mean logit, instead of the mean over patches.
      penalties: terms of the discriminator beside the adversarial loss.
      discriminator_start: iteration from which the discriminator learns.
      adversarial_start: iteration from which the generator sees it; not before `discriminator_start`.
      adversarial_ramp: iterations over which its weight grows.
      generator_first: whether the autoencoder is updated first, and then the discriminator with reconstructions of the
        updated one, as in taming-transformers; otherwise the discriminator is first.
      learning_rate: learning rate of both players' Adam.
      b1: its first beta.
      b2: its second beta.
      ema_halflife_images: half-life of the averaged tokenizer, in images; None for no average.
    """

    loss: GANLoss = losses.hinge
    pixel_loss: Callable[[Array, Array], Array] = losses.l1
    pixel_weight: float = 1.0
    perceptual_weight: float = 1.0
    adversarial_weight: float = 0.8
    adaptive: bool = True
    patch_mean: bool = False
    penalties: tuple[Term, ...] = ()
    discriminator_start: int = 0
    adversarial_start: int = 0
    adversarial_ramp: int = 0
    generator_first: bool = True
    learning_rate: float = 1e-4
    b1: float = 0.5
    b2: float = 0.9
    ema_halflife_images: float | None = None


_HINGE_THEN_SOFTPLUS = GANLoss(losses.hinge.discriminator, losses.non_saturating.generator)
TOKENIZER_RECIPES: Mapping[str, TokenizerRecipe] = MappingProxyType(
    {
        "vqgan": TokenizerRecipe(
            discriminator_start=250_001, adversarial_start=250_001, learning_rate=4.5e-6 * 12
        ),
        "maskgit": TokenizerRecipe(
            losses.non_saturating, losses.l2, pixel_weight=0.25, perceptual_weight=0.1, adversarial_weight=0.1,
            adaptive=False, penalties=(r1(80.0),), generator_first=False, b1=0.0, b2=0.99,
            ema_halflife_images=177_000,
        ),
        "open_magvit2": TokenizerRecipe(
            _HINGE_THEN_SOFTPLUS, adversarial_weight=0.1, adaptive=False, patch_mean=True,
            penalties=(lecam(0.1, decay=0.999),), ema_halflife_images=177_000,
        ),
        "titok": TokenizerRecipe(
            pixel_loss=losses.l2, pixel_weight=0.25, perceptual_weight=0.1, adversarial_weight=0.01, adaptive=False,
            penalties=(lecam(0.002, decay=0.999),), discriminator_start=20_000, adversarial_start=20_000, b1=0.9,
            b2=0.999, ema_halflife_images=177_000,
        ),
        "rae": TokenizerRecipe(
            pixel_weight=0.5, adversarial_weight=0.75, discriminator_start=15_012, adversarial_start=20_016,
            learning_rate=2e-4, b1=0.9, b2=0.95, ema_halflife_images=161_000,
        ),
    }
)  # fmt: skip
"""The columns of docs/tokenizers.md: what the authors' code does, converted to our losses and to images in [-1, 1].

Their hinge and logistic losses of the discriminator have a factor 1/2, ours have none: weights of penalties beside them
are doubled. Of images in [0, 1], absolute errors are 1/2, squared ones 1/4, and R1 is 4 times what it is in [-1, 1].
Networks, perceptual features, batch sizes, learning rate schedules and augmentations are not part of a recipe; the page
lists them. Change a recipe with `_replace`: starts that suit ImageNet never come in a short run.
"""


def tokenizer(
    network: Network,
    discriminator: Network | None,
    recipe: TokenizerRecipe,
    *,
    bottleneck: Mapping[str, float] = MappingProxyType({}),
    perceptual: FrozenFeatures | None = None,
    features: FrozenFeatures | None = None,
    last_layer: LastLayer | None = None,
    augment: Augmentation | None = None,
    num_codes: int | None = None,
    epoch_images: int = 50_000,
    terms: Sequence[Term] = (),
    hooks: Sequence[Hook] = (),
    generator_optimizer: optax.GradientTransformation | None = None,
    discriminator_optimizer: optax.GradientTransformation | None = None,
) -> Game:
    """Creates the game of a tokenizer: it reconstructs images through codes, and a discriminator judges the result.

    The player `generator` is the whole autoencoder. It minimises

        pixel_weight |y - x| + perceptual_weight P(y, x) + f adversarial_weight a L(D(y)) + bottleneck terms

    where f is 0 until `adversarial_start` and then grows to 1, and a is the adaptive weight: the ratio of the norms of
    the gradients of reconstruction and adversarial loss, either at the kernel of the last layer or, without
    `last_layer`, at the image y. Each of the losses is differentiated at y only once; their sum goes back through the
    decoder once (`losses.output_gradients`, `steer`).

    Args:
      network: autoencoder, such as `nets.Tokenizer`. It maps images to a dict of `'images'`, `'codes'`, `'losses'` (by
        name), and, if there are such, `'ids'` and `'hidden'` (input of the last layer). Called with `(None, codes)` or
        `(None, None, ids)` it returns at least `'images'`.
      discriminator: discriminator network, `x -> logits` of any shape; None for an autoencoder alone.
      recipe: losses, weights and schedule; one of `TOKENIZER_RECIPES`, or of your own.
      bottleneck: weights of the bottleneck's loss terms, exactly those that the network returns: `VQ_WEIGHTS`, with
        `'entropy': 0.1` if there is an entropy term; without `'codebook'` for running codes and LFQ; none for FSQ;
        `{'kl': 1e-6 / (h w c)}` for a Gaussian and images of h x w x c numbers.
      perceptual: distance for the perceptual term; None for no such term.
      features: features that the discriminator judges instead of the images, such as `feature_networks.vit_levels`.
      last_layer: `(params -> kernel, (kernel, hidden) -> images)`, the decoder's last layer, for the adaptive weight:
        `nets.TOKENIZER_LAST_LAYER`. None compares the gradients at the image.
      augment: augmentation of all images that the discriminator sees, before its features.
      num_codes: number of codes; with it the log has the fraction of codes that were used in the last epoch, and their
        perplexity. None for a Gaussian.
      epoch_images: number of images of such an epoch.
      terms: more terms of either player.
      hooks: more hooks for the end of an iteration.
      generator_optimizer: optimiser of the autoencoder; None for the recipe's Adam.
      discriminator_optimizer: optimiser of the discriminator; None for the recipe's Adam.

    Returns:
      The game. Its functions: `encode`, `(state, key, images) -> ids`, or codes if there are no ids; `codes`,
      `(state, key, images) -> codes`; `decode`, `(state, key, ids or codes) -> images`; `reconstruct`, `(state, key,
      images) -> images`; `sample`, which needs `inputs=`, and reconstructs them. Images are clipped to [-1, 1].

    Raises:
      InvalidInputError: for an adversarial start before that of the discriminator, `epoch_images` below 1; by the
        game's `init`, for a batch that is not `'real'` alone, weights for other loss terms than the network returns, or
        a network that changes the images' shape.

    References:
      Esser, Rombach and Ommer, "Taming Transformers for High-Resolution Image Synthesis" (VQGAN), arXiv:2012.09841,
      2021; Chang et al., "MaskGIT", arXiv:2202.04200, 2022; Luo et al., "Open-MAGVIT2", arXiv:2409.04410, 2024; Yu et
      al., "An Image is Worth 32 Tokens" (TiTok), arXiv:2406.07550, 2024; Zheng et al., "Diffusion Transformers with
      Representation Autoencoders" (RAE), arXiv:2510.11690, 2025. The authors' codes compute the adaptive weight with
      one more backward pass for each loss.
    """
    _check(recipe, epoch_images, discriminator)
    image_term = _images(recipe, discriminator is not None, perceptual, last_layer)
    own = [image_term, *(_bottleneck(name, weight, tuple(bottleneck)) for name, weight in bottleneck.items())]
    own += [] if num_codes is None else [_code_usage(num_codes, epoch_images)]
    adam = lambda given: given or core.adam(recipe.learning_rate, recipe.b1, recipe.b2)  # noqa: E731
    optimizers = {GENERATOR: adam(generator_optimizer), DISCRIMINATOR: adam(discriminator_optimizer)}
    average = [] if recipe.ema_halflife_images is None else [core.averaging(recipe.ema_halflife_images)]
    hooks = [*([] if augment is None else [augment.hook(1)]), *average, *hooks]
    functions = _functions(network)

    def check(batch: Batch) -> None:
        check_labels(batch, None)
        _check_losses(network, batch["real"][:1], bottleneck)

    if discriminator is None:
        return _alone(network, (*own, *terms), optimizers, functions, check, hooks)

    def judged(key: PRNGKey, x: Array, state: GANState) -> PyTree:
        x = x if augment is None else augment(key, x, state)
        return x if features is None else features.apply(state.frozen[features.name], x)

    critic_terms = [gan_loss(recipe.loss)[0], *recipe.penalties]
    if augment is not None and augment.target is not None:
        critic_terms.append(augment.observer(LOGITS))
    return standard_game(
        network, discriminator, (*critic_terms, *own, *terms),
        inputs=lambda key, batch, hparams: (batch["real"],), fakes=lambda made: made["images"], preprocess=judged,
        optimizers=optimizers, functions=functions, check=check, hooks=hooks,
        discriminator_start=recipe.discriminator_start, generator_first=recipe.generator_first,
    )  # fmt: skip


def _check(recipe: TokenizerRecipe, epoch_images: int, discriminator: Network | None) -> None:
    if epoch_images < 1 or recipe.adversarial_ramp < 0:
        raise InvalidInputError(
            f"epoch_images={epoch_images}, adversarial_ramp={recipe.adversarial_ramp}: expected at least 1 and 0"
        )
    if discriminator is not None and recipe.adversarial_start < recipe.discriminator_start:
        raise InvalidInputError(
            f"adversarial_start={recipe.adversarial_start}, discriminator_start={recipe.discriminator_start}: the "
            "generator would learn from a discriminator that has not begun to; start it later"
        )


def _check_losses(network: Network, images: Array, bottleneck: Mapping[str, float]) -> None:
    """Refuses weights for other loss terms than the network returns; nothing is computed."""

    def made(images: Array) -> PyTree:
        params, model_state = network.init(jax.random.key(0), images)
        return network.apply(params, model_state, images, train=False)[0]

    found = jax.eval_shape(made, images)
    names = set(found["losses"]) if isinstance(found, Mapping) and "losses" in found else None
    if names != set(bottleneck):
        told = "no dict with 'losses'" if names is None else f"the loss terms {', '.join(sorted(names)) or '(none)'}"
        raise InvalidInputError(
            f"bottleneck={dict(bottleneck)}: the network returns {told}; expected a weight for each of its terms"
        )


def _images(
    recipe: TokenizerRecipe, adversarial: bool, perceptual: FrozenFeatures | None, last_layer: LastLayer | None
) -> Term:
    """Creates the term of all losses at the image, whose gradients are computed there and go back once."""
    weights = {"pixels_weight": recipe.pixel_weight}
    weights |= {} if perceptual is None else {"perceptual_weight": recipe.perceptual_weight}
    starts = {"adversarial_start": recipe.adversarial_start, "adversarial_ramp": recipe.adversarial_ramp}
    constants = weights | ({"adversarial_weight": recipe.adversarial_weight, **starts} if adversarial else {})

    def value(view: View, key: PRNGKey) -> Value:
        y, x, hparams = view.fake, view.real, view.state.hparams
        parts: dict[str, Callable[[Array], Array]] = {"pixels": lambda y: recipe.pixel_loss(y, x)}
        if perceptual is not None:
            params = view.state.frozen[perceptual.name]
            parts["perceptual"] = lambda y: perceptual.apply(params, y, x)
        if adversarial:
            parts["adversarial"] = lambda y: _generator_loss(recipe, view, y)
        values, gradients = losses.output_gradients(parts, y)
        values = {name: jnp.mean(found) for name, found in values.items()}
        factors = {name.removesuffix("_weight"): hparams[name] for name in weights}
        metrics = dict(values)
        if adversarial:
            target = _weighted(gradients, factors)
            scale = _adaptive(recipe, view, last_layer, target, gradients["adversarial"])
            started = losses.ramp(view.state.step, hparams["adversarial_start"], hparams["adversarial_ramp"])
            factors["adversarial"] = started * hparams["adversarial_weight"] * scale
            metrics |= {"adaptive_weight": scale, "adversarial_factor": factors["adversarial"]}
        steered = losses.steer(y, _weighted(gradients, factors))
        total = sum((factors[name] * values[name] for name in factors), start=jnp.zeros(()))
        # the value is that of the losses, the gradient that of `steer`
        return Value(jax.lax.stop_gradient(total - steered) + steered, metrics)

    return Term("images", GENERATOR, None, value, hparams=constants)


def _generator_loss(recipe: TokenizerRecipe, view: View, y: Array) -> Array:
    """Computes the generator's adversarial loss of images, one value for each logit or image."""
    real, fake = LOGITS(view.real_out), LOGITS(view.fake_critic(y))
    if recipe.patch_mean:
        real, fake = (jnp.mean(x.reshape(x.shape[0], -1), axis=1) for x in (real, fake))
    return recipe.loss.generator(real, fake)


def _weighted(gradients: Mapping[str, Array], factors: Mapping[str, Array]) -> Array:
    """Returns the weighted sum of gradients, of those that have a factor."""
    parts = [factors[name] * gradients[name] for name in factors]
    return sum(parts[1:], start=parts[0])


def _adaptive(
    recipe: TokenizerRecipe, view: View, last_layer: LastLayer | None, target: Array, adversarial: Array
) -> Array:
    """Returns the adaptive weight at the kernel of the last layer, or at the image; 1 if there is none."""
    if not recipe.adaptive:
        return jnp.ones(())
    at: list[PyTree] = [target, adversarial]
    if last_layer is not None:
        select, apply = last_layer
        hidden = jax.lax.stop_gradient(view.made["hidden"])
        _, back = jax.vjp(lambda kernel: apply(kernel, hidden), select(view.state.players[GENERATOR].params))
        at = [back(gradient.astype(hidden.dtype))[0] for gradient in at]
    return losses.adaptive_weight(at[0], at[1], epsilon=1e-4)


def _bottleneck(name: str, weight: float, names: Sequence[str]) -> Term:
    """Creates the term of one of the bottleneck's losses."""
    return Term(name, GENERATOR, weight, lambda view, key: Value(view.made["losses"][name]))


def _code_usage(num_codes: int, epoch_images: int) -> Term:
    """Creates the term that counts codes; it adds nothing to the loss.

    It logs `codes_used`, the fraction of the codes that occurred in the last complete epoch, and `code_perplexity`,
    their perplexity there; during the first epoch, those of the images so far.
    """

    def value(view: View, key: PRNGKey) -> Value:
        ids, memory = view.made["ids"], view.state.aux["codes"]
        seen = view.state.step.astype(jnp.float32) * ids.shape[0]
        begins = jnp.floor(seen / epoch_images) > jnp.floor((seen - ids.shape[0]) / epoch_images)
        counts = jnp.where(begins, 0.0, memory["counts"])
        last = jnp.where(begins & (seen > 0), memory["counts"], memory["last"])
        counts = counts.at[ids.reshape(-1)].add(1.0)
        shown = jnp.where(jnp.sum(last) > 0, last, counts)
        p = shown / jnp.sum(shown)
        metrics = {
            "codes_used": jnp.mean((shown > 0).astype(jnp.float32)),
            "code_perplexity": jnp.exp(-jnp.sum(p * jnp.log(jnp.maximum(p, 1e-20)))),
        }
        return Value(jnp.zeros(()), metrics, {"codes": {"counts": counts, "last": last}})

    zeros = jnp.zeros(num_codes, jnp.float32)
    return Term("code_usage", GENERATOR, None, value, {"codes": {"counts": zeros, "last": zeros}})


def _alone(
    network: Network,
    terms: Sequence[Term],
    optimizers: Mapping[str, optax.GradientTransformation],
    functions: Mapping[str, Callable[..., PyTree]],
    check: Callable[[Batch], None],
    hooks: Sequence[Hook],
) -> Game:
    """Creates the game of an autoencoder without a discriminator."""
    if others := [term.name for term in terms if term.player != GENERATOR]:
        raise InvalidInputError(f"terms {', '.join(others)} are the discriminator's, and there is none")

    def no_critic(x: PyTree) -> tuple[PyTree, PyTree]:
        raise InvalidInputError("a term asks for the discriminator, and discriminator=None: give one, or drop the term")

    def see(params: PyTree, state: GANState, batch: Batch, key: PRNGKey) -> tuple[View, Sequence[PRNGKey], PyTree]:
        network_key, *keys = jax.random.split(key, 1 + len(terms))
        player = state.players[GENERATOR].replace(params=params)
        state = state.replace(players={**state.players, GENERATOR: player})

        def apply(images: Array) -> tuple[PyTree, PyTree]:
            return network.apply(params, player.model_state, images, train=True, key=network_key)

        real = batch["real"]
        view = View(
            batch, real, (real,), state, apply, no_critic, no_critic, lambda key: (real,), lambda made: made["images"]
        )
        return view, keys, view.generated[1]

    def init(key: PRNGKey, batch: Batch) -> GANState:
        check(batch)
        first = batch["real"][:1]
        params, model_state = network.init(core.init_key(key), first)
        check_shapes(network, (params, model_state, first), lambda made: made["images"], first, key)
        players = {GENERATOR: core.create_player(params, model_state, optimizers[GENERATOR])}
        state = core.create_state(key, players, hparams=core.term_hparams(terms), aux=core.term_aux(terms))
        for hook in hooks:
            state = hook.begin(state, batch["real"].shape[0])
        return state

    phases: tuple[Phase, ...] = core.term_phases(GENERATOR, terms, lambda player, count, lazy: see)
    shown = tuple(name for hook in hooks for name in hook.shown)
    return Game(init, phases, tuple(hook.run for hook in hooks), functions, shown=shown)


def _functions(network: Network) -> dict[str, Callable[..., PyTree]]:
    """Creates the functions of a tokenizer."""

    def apply(state: GANState, key: PRNGKey, *inputs: Any) -> Mapping[str, Any]:
        return network.apply(*sampling_weights(state), *inputs, train=False, key=key)[0]

    def encode(state: GANState, key: PRNGKey, inputs: Array) -> Array:
        made = apply(state, key, inputs)
        return made["ids"] if "ids" in made else made["codes"]

    def decode(state: GANState, key: PRNGKey, inputs: Array) -> Array:
        ids = jnp.issubdtype(jnp.asarray(inputs).dtype, jnp.integer)
        return _clipped(apply(state, key, None, None, inputs) if ids else apply(state, key, None, inputs))

    return {
        "sample": sampler(network, fakes=_clipped),
        "encode": encode,
        "codes": lambda state, key, inputs: apply(state, key, inputs)["codes"],
        "decode": decode,
        "reconstruct": lambda state, key, inputs: _clipped(apply(state, key, inputs)),
    }


def _clipped(made: Mapping[str, Array]) -> Array:
    return jnp.clip(made["images"], -1.0, 1.0)
