"""VAE-GAN: an autoencoder whose images are compared by the features of a discriminator, and judged by it."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, PyTree

from gan_jax import core
from gan_jax.core import GANState, Hook
from gan_jax.gans.adversarial import check_labels
from gan_jax.gans.standard import DISCRIMINATOR, GENERATOR, standard_game
from gan_jax.gans.terms import FEATURES, LOGITS, logit_metrics
from gan_jax.gans.vae import GAUSSIAN, Autoencoder, autoencoder_functions, check_latents
from gan_jax.losses import GANLoss, gaussian_kl, non_saturating, steer
from gan_jax.metrics import active_units
from gan_jax.types import Batch, Game, InvalidInputError, LossOutput, Network, Phase, PRNGKey, Term, Value, View

_EPSILON = 1e-3  # inside the logarithms of the authors' code


def _smoothed(logits: Array, real: bool) -> Array:
    return jnp.log(jax.nn.sigmoid(logits if real else -logits) + _EPSILON)


AUTHORS_LOSS = GANLoss(
    lambda real, fake: -_smoothed(real, True) - _smoothed(fake, False),
    lambda real, fake: _smoothed(fake, False) + 0.0 * real,
)
"""The loss of the authors' code: minimax, the decoder minimises log(1 - D + 0.001), with that number in all three."""

VAE_GAN_AUTHORS: Mapping[str, Any] = {"loss": AUTHORS_LOSS, "gamma": 5e-5, "margin": 0.35}
"""Arguments of `vae_gan` for the loss of the authors' code. Their optimiser is RMSProp of all three networks, with the
learning rate 0.02 divided by the batch size of 64 and gradients that are sums over the batch; and all gradients are
taken before any of the updates: `core.simultaneous`."""


def vae_gan(
    encoder: Network,
    decoder: Network,
    discriminator: Network,
    latents: int,
    *,
    loss: GANLoss = non_saturating,
    gamma: float = 0.01,
    beta: float = 1.0,
    penalties: Sequence[Term] = (),
    judge_reconstructions: bool = True,
    margin: float | None = None,
    learning_rate: float = 3e-4,
    generator_optimizer: optax.GradientTransformation | None = None,
    discriminator_optimizer: optax.GradientTransformation | None = None,
    ema_halflife_images: float | None = None,
    ema_rampup: float = 0.05,
    terms: Sequence[Term] = (),
    hooks: Sequence[Hook] = (),
    **options: Any,
) -> Game:
    """Creates the game of VAE-GAN.

    With z ~ q(z | x), the reconstruction x~ = G(z), a sample x_p = G(z_p) of the prior, and features D_l:

        encoder:        beta KL + S, with S = 1/2 sum (D_l(x) - D_l(x~))^2 over the features of an image
        decoder:        gamma S + (1 - gamma) (L_G(x_p) + L_G(x~))
        discriminator:  (L_D(x, x_p) + L_D(x, x~)) / 2

    No adversarial gradient reaches the encoder, and no gradient of S the discriminator. S is the negative
    log-likelihood of the features under normal distributions of variance 1. As a sum over all features it is large, so
    gamma is small; what is right depends on the number of features.

    Args:
      encoder: encoder network, `images -> (mean, log_variance)`.
      decoder: decoder network, `z -> images` in [-1, 1].
      discriminator: discriminator network that returns `{'logits', 'features'}`, such as `nets.DCGANDiscriminator` with
        `feature_layer`.
      latents: number of latent variables, that of the encoder.
      loss: adversarial loss, any pair of `gan_jax.losses`.
      gamma: weight of S in the decoder's loss, from 0 to 1; a hyperparameter.
      beta: weight of the KL divergence, the hyperparameter `kl_weight`; 1 in the paper.
      penalties: terms of the discriminator's loss, such as `r1`.
      judge_reconstructions: whether the discriminator sees reconstructions beside samples of the prior.
      margin: with it, the discriminator is not updated where one of its cross-entropies, of reals and of fakes, is
        below 0.68 - margin, and the decoder is not where one is above 0.68 + margin; if both would rest, both are
        updated. The encoder always is. None to update all.
      learning_rate: learning rate of both players' Adam, beta1 0.5.
      generator_optimizer: optimiser of encoder and decoder; None for that Adam.
      discriminator_optimizer: optimiser of the discriminator; None for that Adam.
      ema_halflife_images: half-life in images of the averaged autoencoder that all functions use; None for no average.
      ema_rampup: upper bound of that half-life as a fraction of the images seen so far; see `core.ema`.
      terms: more terms of either player's loss. The view's `made` has `'sampled'`, `'reconstructed'`, `'mean'`,
        `'log_variance'` and, if the discriminator sees reconstructions, `'judged'`.
      hooks: additional hooks for the end of an iteration.
      **options: arguments of `standard_game`, such as `preprocess`.

    Returns:
      The game, with the players `generator` (`{'encoder', 'decoder'}`) and `discriminator`. Its functions are those of
      `vae` without bits per dimension, because the features have no density of images; and `logits`.

    Raises:
      InvalidInputError: for a gamma, beta or margin out of range; by the game's `init`, for networks whose outputs do
        not fit together or to the data.

    References:
      Larsen et al., "Autoencoding beyond pixels using a learned similarity metric", arXiv:1512.09300, 2015. The paper
      gives all of the encoder's and decoder's terms, and gamma only where the decoder's are combined. In the authors'
      code (`VAE_GAN_AUTHORS`), gamma is 5e-5 (1e-5 for CelebA), the decoder's adversarial loss is the saturating one,
      and the updates skip steps by `margin`. For CelebA reals have 0.66 of the discriminator's weight there, not 1/2.
      The default is not theirs: the non-saturating loss; add R1 with `penalties=(r1(...),)`.
    """
    if not (0 <= gamma <= 1 and beta >= 0) or not (margin is None or 0 < margin < 0.68):
        raise InvalidInputError(
            f"gamma={gamma}, beta={beta}, margin={margin}: expected gamma from 0 to 1, beta of at least 0, and "
            "a margin above 0 and below 0.68, or None"
        )
    prior, both = core.normal(latents), Autoencoder(encoder, decoder)
    optimizers = {
        GENERATOR: generator_optimizer or core.adam(learning_rate, 0.5),
        DISCRIMINATOR: discriminator_optimizer or core.adam(learning_rate, 0.5),
    }
    if margin is not None:
        optimizers = {
            GENERATOR: resting(optimizers[GENERATOR], ("encoder", "decoder")),
            DISCRIMINATOR: resting(optimizers[DISCRIMINATOR]),
        }
    averages = [] if ema_halflife_images is None else [core.averaging(ema_halflife_images, ema_rampup)]

    def judge(state: GANState, samples: Array, label: Array | None = None) -> Array:
        player = state.players[DISCRIMINATOR]
        return LOGITS(discriminator.apply(player.params, player.model_state, samples, train=False)[0])

    def check(batch: Batch) -> None:
        check_labels(batch, None)
        check_latents(both, batch["real"][:1], latents)

    game = standard_game(
        _network(both, judge_reconstructions), discriminator,
        (*_terms(loss, beta, judge_reconstructions), *penalties, *terms),
        inputs=lambda key, batch, hparams: (prior.sample(key, len(batch["real"])), batch["real"], hparams["gamma"]),
        fakes=lambda made: made["sampled"], optimizers=optimizers, hparams={"gamma": gamma},
        hooks=(*averages, *hooks), check=check, prior=prior,
        functions={**autoencoder_functions(both, GAUSSIAN, prior), "logits": judge}, **options,
    )  # fmt: skip
    if margin is None:
        return game
    return game._replace(phases=tuple(_gated(phase, margin) for phase in game.phases))


def _network(both: Autoencoder, judge_reconstructions: bool) -> Network:
    """Makes the generator of the game: latents of the prior, images and gamma to samples and reconstructions."""

    def init(key: PRNGKey, z: Array, images: Array, gamma: Any) -> tuple[PyTree, PyTree]:
        return both.init(key, images)

    def apply(
        params: PyTree, model_state: PyTree, z: Array, images: Array, gamma: Any, *, train: bool, key: PRNGKey
    ) -> tuple[dict[str, Array], PyTree]:
        keys = jax.random.split(key, 3)
        # In the reconstruction that is compared, the gradient of the decoder's parameters is gamma times itself; that
        # of the encoder's passes through as it is.
        scaled = {**params, "decoder": jax.tree.map(lambda x: _scaled(x, gamma), params["decoder"])}
        found, new_state = both.autoencode(scaled, model_state, images, train=train, key=keys[0])
        sampled, new_state = both.decode(params, new_state, z, train=train, key=keys[1])
        made = {"mean": found["mean"], "log_variance": found["log_variance"]}
        made |= {"sampled": sampled, "reconstructed": found["decoded"]}
        if judge_reconstructions:
            z = jax.lax.stop_gradient(found["z"])
            made["judged"] = both.decode(params, model_state, z, train=train, key=keys[2])[0]
        return made, new_state

    return Network(init, apply)


def _scaled(x: Array, factor: Any) -> Array:
    """Returns x itself, with its gradient multiplied by a factor."""
    still = jax.lax.stop_gradient(x)
    return still + jnp.asarray(factor, x.dtype) * (x - still)


def _terms(loss: GANLoss, beta: float, judge_reconstructions: bool) -> tuple[Term, ...]:
    def judged(view: View) -> list[Array]:
        """Returns the logits of samples and, if the discriminator sees them, of reconstructions."""
        found = [LOGITS(view.fake_out)]
        return [*found, LOGITS(view.fake_critic(view.made["judged"]))] if judge_reconstructions else found

    def of_discriminator(view: View, key: PRNGKey) -> Value:
        real, fakes = LOGITS(view.real_out), judged(view)
        lost = jnp.mean(jnp.stack([loss.discriminator(real, fake) for fake in fakes]), axis=0)
        return Value(lost, logit_metrics(loss, real, fakes[0]) | _costs(real, fakes))

    def of_decoder(view: View, key: PRNGKey) -> Value:
        real, fakes = LOGITS(view.real_out), judged(view)
        lost = jnp.sum(jnp.stack([loss.generator(real, fake) for fake in fakes]), axis=0)
        metrics = {"adversarial": jnp.mean(lost), "active_units": active_units(view.made["mean"]).astype(jnp.float32)}
        return Value((1.0 - view.state.hparams["gamma"]) * lost, metrics | _costs(real, fakes))

    def similarity(view: View, key: PRNGKey) -> Value:
        real, made = FEATURES(view.real_out), FEATURES(view.fake_critic(view.made["reconstructed"]))
        squares = jax.tree.leaves(jax.tree.map(lambda a, b: (b - a) ** 2, real, made))
        lost = 0.5 * functools.reduce(jnp.add, [jnp.sum(x.reshape(x.shape[0], -1), axis=1) for x in squares])
        mse = jnp.mean((view.made["reconstructed"] - view.real) ** 2)
        return Value(lost, {"similarity": jnp.mean(lost), "mse": mse})

    def kl(view: View, key: PRNGKey) -> Value:
        return Value(gaussian_kl(view.made["mean"], view.made["log_variance"]))

    return (
        Term("adversarial", DISCRIMINATOR, None, of_discriminator),
        Term("adversarial", GENERATOR, None, of_decoder),
        Term("similarity", GENERATOR, None, similarity),
        Term("kl", GENERATOR, beta, kl),
    )


def _costs(real: Array, fakes: Sequence[Array]) -> dict[str, Array]:
    """Returns the discriminator's mean cross-entropies of reals and of fakes: log 2 where it cannot tell them apart."""
    of_fakes = jnp.mean(jnp.stack([jax.nn.softplus(fake) for fake in fakes]))
    costs = {"real_cost": jnp.mean(jax.nn.softplus(-real)), "fake_cost": of_fakes}
    return jax.lax.stop_gradient(costs)


def _gated(phase: Phase, margin: float) -> Phase:
    """Takes the gradient away from the player that rests in this step; from the generator, the decoder's alone.

    Whether it rests depends on what the loss computes, so the gradient is computed first, and steered afterwards.
    """

    def gated(params: PyTree, state: GANState, batch: Batch, key: PRNGKey) -> tuple[Array, LossOutput]:
        (value, out), gradient = jax.value_and_grad(phase.loss, has_aux=True)(params, state, batch, key)
        costs = jnp.stack([out.metrics["real_cost"], out.metrics["fake_cost"]])
        discriminates = ~jnp.any(costs < 0.68 - margin)
        decodes = ~jnp.any(costs > 0.68 + margin)
        neither = ~(discriminates | decodes)
        moves = (discriminates if phase.player == DISCRIMINATOR else decodes) | neither
        if phase.player == GENERATOR:
            gradient = {**gradient, "decoder": _where(moves, gradient["decoder"])}
        else:
            gradient = _where(moves, gradient)
        steered = steer(params, gradient)
        metrics = out.metrics | {"moves": moves.astype(jnp.float32)}
        return jax.lax.stop_gradient(value - steered) + steered, out._replace(metrics=metrics)

    # a lazy penalty's phase does not compute the costs; it runs in any case
    return phase._replace(loss=gated) if phase.name == phase.player else phase


def _where(moves: Array, gradient: PyTree) -> PyTree:
    return jax.tree.map(lambda x: jnp.where(moves, x, jnp.zeros_like(x)), gradient)


def _nonzero(gradient: PyTree) -> Array:
    return jnp.any(jnp.stack([jnp.any(x != 0) for x in jax.tree.leaves(gradient)]))


def resting(optimizer: optax.GradientTransformation, groups: Sequence[str] = ()) -> optax.GradientTransformation:
    """Makes an optimiser that lets parameters rest whose gradient is 0 throughout, and what it remembers of them too.

    An optimiser would otherwise move them by its momentum, and forget the size of their gradients.

    Args:
      optimizer: the optimiser.
      groups: keys of the parameters' groups; none if all parameters are one group. Counters of steps go on.

    Returns:
      The optimiser.
    """

    def update(gradient: PyTree, state: PyTree, params: PyTree = None) -> tuple[PyTree, PyTree]:
        moves = {group: _nonzero(gradient[group] if group else gradient) for group in groups or ("",)}
        updates, new = optimizer.update(gradient, state, params)

        def chosen(path: Any, new: Array, old: Array) -> Array:
            names = [getattr(step, "key", None) for step in path]
            mine = [moves[group] for group in moves if group in names or not group]
            return jnp.where(mine[0], new, old) if mine else new

        kept = jax.tree_util.tree_map_with_path(chosen, new, state)
        return jax.tree_util.tree_map_with_path(lambda path, x: chosen(path, x, jnp.zeros_like(x)), updates), kept

    return optax.GradientTransformation(optimizer.init, update)
