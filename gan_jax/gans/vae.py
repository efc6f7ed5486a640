"""Variational autoencoders: a game with one player, whose sample, encode, decode and reconstruct are functions."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, PyTree

from gan_jax import core
from gan_jax.core import GANState, Hook
from gan_jax.gans.adversarial import check_labels
from gan_jax.gans.standard import GENERATOR, check_shapes, sampler, sampling_weights
from gan_jax.losses import bernoulli_nll, gaussian_kl, gaussian_nll
from gan_jax.metrics import active_units
from gan_jax.types import Batch, Game, InvalidInputError, Network, PRNGKey, Term, Value, View

VARIANCE = "decoder_variance"  # in `state.aux`: exponentially weighted sum of the variances, and of the weights


class Likelihood(NamedTuple):
    """The distribution p(x | z) that a decoder's outputs are parameters of.

    Attributes:
      nll: `(decoded, images, variance) -> [b]`, the negative log-likelihood in nats.
      images: `(decoded) -> images`, the mean of the distribution, in [-1, 1].
      variance: `(decoded, images) -> scalar`, the variance of maximum likelihood, whose running mean the game keeps for
        evaluation; None if the distribution has none.
    """

    nll: Callable[[Array, Array, Array | None], Array]
    images: Callable[[Array], Array]
    variance: Callable[[Array, Array], Array] | None = None


GAUSSIAN = Likelihood(gaussian_nll, lambda decoded: decoded, lambda decoded, images: jnp.mean((decoded - images) ** 2))
"""Normal distributions around the decoder's images, with the maximum-likelihood variance of the batch
(`losses.gaussian_nll`)."""

BERNOULLI = Likelihood(
    lambda decoded, images, variance: bernoulli_nll(decoded, images), lambda decoded: jnp.tanh(decoded / 2.0)
)
"""Bernoulli variables, for images whose pixels are -1 or 1. The decoder returns their log odds: build it with
`bounded=False`."""


class Autoencoder(NamedTuple):
    """An encoder and a decoder as one player: parameters and model state are dicts with the keys of the two.

    Attributes:
      encoder: network, `images -> (mean, log_variance)`, each `[b, latents]`, such as `nets.DCGANEncoder`.
      decoder: network, `z -> outputs`.
    """

    encoder: Network
    decoder: Network

    def init(self, key: PRNGKey, images: Array) -> tuple[PyTree, PyTree]:
        """Initialises both networks with one batch of images."""
        encoder_key, decoder_key = jax.random.split(key)
        params, model_state = self.encoder.init(encoder_key, images)
        (mean, _), _ = self.encoder.apply(params, model_state, images, train=False)
        decoder_params, decoder_state = self.decoder.init(decoder_key, mean)
        return {"encoder": params, "decoder": decoder_params}, {"encoder": model_state, "decoder": decoder_state}

    def encode(
        self, params: PyTree, model_state: PyTree, images: Array, *, train: bool, key: PRNGKey | None = None
    ) -> tuple[tuple[Array, Array], PyTree]:
        """Returns the posterior's mean and log variance, and the new model state."""
        found, new = self.encoder.apply(params["encoder"], model_state["encoder"], images, train=train, key=key)
        return found, {**model_state, "encoder": new}

    def decode(
        self, params: PyTree, model_state: PyTree, z: Array, *, train: bool, key: PRNGKey | None = None
    ) -> tuple[Array, PyTree]:
        """Returns the decoder's outputs, and the new model state."""
        found, new = self.decoder.apply(params["decoder"], model_state["decoder"], z, train=train, key=key)
        return found, {**model_state, "decoder": new}

    def autoencode(
        self, params: PyTree, model_state: PyTree, images: Array, *, train: bool, key: PRNGKey
    ) -> tuple[dict[str, Array], PyTree]:
        """Encodes images, draws latents from the posteriors, and decodes these."""
        encoder_key, noise_key, decoder_key = jax.random.split(key, 3)
        (mean, log_variance), model_state = self.encode(params, model_state, images, train=train, key=encoder_key)
        z = posterior_sample(noise_key, mean, log_variance)
        decoded, model_state = self.decode(params, model_state, z, train=train, key=decoder_key)
        return {"mean": mean, "log_variance": log_variance, "z": z, "decoded": decoded}, model_state


def posterior_sample(key: PRNGKey, mean: Float[Array, "b d"], log_variance: Float[Array, "b d"]) -> Float[Array, "b d"]:
    """Draws latents from posteriors: mean + exp(log_variance / 2) * noise, differentiable by both."""
    noise = core.constrain_batch(jax.random.normal(key, mean.shape, mean.dtype))
    return mean + jnp.exp(0.5 * log_variance) * noise


def vae(
    encoder: Network,
    decoder: Network,
    latents: int,
    *,
    likelihood: Likelihood = GAUSSIAN,
    beta: float = 1.0,
    levels: int | None = None,
    learning_rate: float = 1e-3,
    generator_optimizer: optax.GradientTransformation | None = None,
    ema_halflife_images: float | None = None,
    ema_rampup: float = 0.05,
    terms: Sequence[Term] = (),
    hooks: Sequence[Hook] = (),
) -> Game:
    """Creates the game of a variational autoencoder, with a normal posterior and a standard normal prior.

    The one player, `generator`, has the parameters `{'encoder', 'decoder'}`, and minimises, in nats per image,

        E_q[-log p(x | z)] + beta KL(q(z | x) || N(0, 1)).

    The log has the parts `generator/nll` and `generator/kl`, `elbo` (the bound with beta = 1), `mse`, the number of
    `active_units` of the batch (Var mu_i > 0.01), and, with `levels`, `bits_per_dimension`.

    Args:
      encoder: encoder network, `images -> (mean, log_variance)`, such as `nets.MLPEncoder`, `nets.DCGANEncoder`.
      decoder: decoder network, `z -> images`, such as `nets.DCGANGenerator`.
      latents: number of latent variables, that of the encoder.
      likelihood: distribution of images around the decoder's outputs: `GAUSSIAN` or, for binary images, `BERNOULLI`.
      beta: weight of the KL divergence, the hyperparameter `kl_weight`; 1 for the bound of the log-likelihood.
      levels: number of grey levels of the data in [-1, 1], 256 for uint8. Images are then dequantised with uniform
        noise, so that the bound is one of the probability of the images (`bits_per_dimension`). None for data that are
        not quantised, or binary.
      learning_rate: learning rate of Adam.
      generator_optimizer: optimiser; None for Adam.
      ema_halflife_images: half-life in images of the averaged autoencoder that all functions use; None for no average.
      ema_rampup: upper bound of that half-life as a fraction of the images seen so far; see `core.ema`.
      terms: more terms of the loss, of the player `generator`. Their view has `made` with `'mean'`, `'log_variance'`,
        `'z'` and `'decoded'`.
      hooks: additional hooks for the end of an iteration.

    Returns:
      The game. Its functions, besides `sample`: `encode`, `(state, key, images) -> means` `[n, latents]`; `posterior`,
      `-> (mean, log_variance)`; `decode`, `(state, key, z) -> images`; `reconstruct`, `(state, key, images) -> images`,
      from the posteriors' means; and, with `levels`, `bits_per_dimension`, `(state, key, images) -> [n]`, from one
      draw of noise and latents, with the variance of the training data.

    Raises:
      InvalidInputError: for `latents`, `beta` or `levels` out of range; by the game's `init`, for networks whose
        outputs do not fit together or to the data.

    References:
      Kingma and Welling, "Auto-Encoding Variational Bayes", arXiv:1312.6114, 2013; Higgins et al., "beta-VAE", ICLR
      2017 (arXiv:1804.03599 explains it); Rybkin et al., arXiv:2006.13202, 2020 (the decoder's variance); Theis, van
      den Oord and Bethge, "A note on the evaluation of generative models", arXiv:1511.01844, 2015 (dequantisation).
      Burda, Grosse and Salakhutdinov, arXiv:1509.00519, 2015 (active units).
    """
    if not beta >= 0 or (levels is not None and levels < 2):
        raise InvalidInputError(f"beta={beta}, levels={levels}: expected beta of at least 0, and 2 or more levels")
    prior, both = core.normal(latents), Autoencoder(encoder, decoder)
    terms = (*elbo_terms(likelihood, beta, levels), *terms)
    constants = core.term_hparams(terms)
    optimizer = generator_optimizer or core.adam(learning_rate)
    averages = [] if ema_halflife_images is None else [core.averaging(ema_halflife_images, ema_rampup)]

    def see(params: PyTree, state: GANState, batch: Batch, key: PRNGKey) -> tuple[View, Sequence[PRNGKey], PyTree]:
        noise_key, network_key, *keys = jax.random.split(key, 2 + len(terms))
        player = state.players[GENERATOR].replace(params=params)
        state = state.replace(players={**state.players, GENERATOR: player})
        real = dequantized(noise_key, batch["real"], levels)
        apply = functools.partial(both.autoencode, params, player.model_state, train=True, key=network_key)
        view = View(batch, real, (real,), state, apply, _no_critic, _no_critic, lambda key: (real,))
        return view, keys, view.generated[1]

    def init(key: PRNGKey, batch: Batch) -> GANState:
        check_labels(batch, None)
        first = batch["real"][:1]  # one example is enough to initialise parameters
        check_latents(both, first, latents)
        params, model_state = both.init(core.init_key(key), first)
        decode, z = Network(both.init, both.decode), jnp.zeros((1, latents))
        check_shapes(decode, (params, model_state, z), lambda made: made, first, key)
        players = {GENERATOR: core.create_player(params, model_state, optimizer)}
        state = core.create_state(key, players, hparams=constants, aux=core.term_aux(terms))
        for hook in (*averages, *hooks):
            state = hook.begin(state, batch["real"].shape[0])
        return state

    functions = autoencoder_functions(both, likelihood, prior)
    if levels is not None:
        functions["bits_per_dimension"] = _bits(both, likelihood, levels)
    after = (*averages, *hooks)
    shown = tuple(name for hook in after for name in hook.shown)
    phases = core.term_phases(GENERATOR, terms, lambda player, count, lazy: see)
    return Game(init, phases, tuple(hook.run for hook in after), functions, prior, shown=shown)


def elbo_terms(likelihood: Likelihood, beta: float, levels: int | None) -> tuple[Term, Term]:
    """Creates the two terms of the bound, in nats per image; the first one's metrics describe both.

    Args:
      likelihood: distribution of the decoder.
      beta: weight of the KL divergence.
      levels: grey levels of dequantised data; None to log no bits per dimension.

    Returns:
      The terms `nll`, with the weight 1, and `kl`.
    """

    def nll(view: View, key: PRNGKey) -> Value:
        made, x = view.made, view.real
        lost = likelihood.nll(made["decoded"], x, None)
        bound = jnp.mean(lost) + jnp.mean(gaussian_kl(made["mean"], made["log_variance"]))
        metrics = {
            "nll": jnp.mean(lost),
            "elbo": -bound,
            "mse": jnp.mean((likelihood.images(made["decoded"]) - x) ** 2),
            "active_units": active_units(made["mean"]).astype(jnp.float32),
        }
        if levels is not None:
            metrics["bits_per_dimension"] = _to_bits(bound, x[0].size, levels)
        aux = {}
        if likelihood.variance is not None:
            found = likelihood.variance(made["decoded"], x)
            aux[VARIANCE] = 0.99 * view.state.aux[VARIANCE] + jnp.stack([found, jnp.ones_like(found)])
        return Value(lost, jax.lax.stop_gradient(metrics), jax.lax.stop_gradient(aux))

    def kl(view: View, key: PRNGKey) -> Value:
        return Value(gaussian_kl(view.made["mean"], view.made["log_variance"]))

    memory = {} if likelihood.variance is None else {VARIANCE: np.zeros(2, np.float32)}
    return Term("nll", GENERATOR, None, nll, memory), Term("kl", GENERATOR, beta, kl)


def autoencoder_functions(both: Autoencoder, likelihood: Likelihood, prior: Any) -> dict[str, Callable[..., PyTree]]:
    """Creates the functions of a game that has an autoencoder as its player `generator`.

    Args:
      both: the networks.
      likelihood: distribution of the decoder, for its mean.
      prior: distribution of the latents.

    Returns:
      `sample`, `posterior`, `encode`, `decode` and `reconstruct`; see `vae`.
    """

    def posterior(state: GANState, key: PRNGKey, inputs: Array) -> tuple[Array, Array]:
        return both.encode(*sampling_weights(state), inputs, train=False, key=key)[0]

    def encode(state: GANState, key: PRNGKey, inputs: Array) -> Array:
        return posterior(state, key, inputs)[0]

    def decode(state: GANState, key: PRNGKey, inputs: Array) -> Array:
        return likelihood.images(both.decode(*sampling_weights(state), inputs, train=False, key=key)[0])

    def reconstruct(state: GANState, key: PRNGKey, inputs: Array) -> Array:
        encoder_key, decoder_key = jax.random.split(key)
        return decode(state, decoder_key, encode(state, encoder_key, inputs))

    sample = sampler(Network(both.init, both.decode), prior, fakes=likelihood.images)
    return {"sample": sample, "encode": encode, "posterior": posterior, "decode": decode, "reconstruct": reconstruct}


def dequantized(key: PRNGKey, images: Array, levels: int | None) -> Array:
    """Adds uniform noise of the width of a grey level, centred at 0, to quantised images; None changes nothing."""
    if levels is None:
        return images
    noise = core.constrain_batch(jax.random.uniform(key, images.shape, images.dtype, -0.5, 0.5))
    return images + noise * (2.0 / (levels - 1))


def _to_bits(nats: Array, dimensions: int, levels: int) -> Array:
    """Converts the negative log density of dequantised images in nats to bits per value of the quantised images.

    The probability of a grey level is at least the mean density over its width of 2 / (levels - 1), times that width.
    """
    return nats / (dimensions * jnp.log(2.0)) + jnp.log2((levels - 1) / 2.0)


def running_variance(state: GANState) -> Float[Array, ""]:
    """Returns the mean of the decoder's variance over the last hundred steps or so; 1 before the first step."""
    total, weight = state.aux[VARIANCE]
    return jnp.where(weight > 0, total / jnp.maximum(weight, 1e-8), 1.0)


def _bits(both: Autoencoder, likelihood: Likelihood, levels: int) -> Callable[[GANState, PRNGKey, Array], Array]:
    def bits_per_dimension(state: GANState, key: PRNGKey, inputs: Array) -> Float[Array, " n"]:
        noise_key, network_key = jax.random.split(key)
        x = dequantized(noise_key, inputs, levels)
        made, _ = both.autoencode(*sampling_weights(state), x, train=False, key=network_key)
        variance = None if likelihood.variance is None else running_variance(state)
        nll = likelihood.nll(made["decoded"], x, variance)
        return _to_bits(nll + gaussian_kl(made["mean"], made["log_variance"]), x[0].size, levels)

    return bits_per_dimension


def check_latents(both: Autoencoder, images: Array, latents: int) -> None:
    """Refuses an encoder whose outputs are not the mean and log variance of `latents` variables; computes nothing."""
    key = jax.random.key(0)
    encoder = jax.eval_shape(both.encoder.init, key, images)
    (mean, log_variance), _ = jax.eval_shape(functools.partial(both.encoder.apply, train=False), *encoder, images)
    if not mean.shape == log_variance.shape == (len(images), latents):
        raise InvalidInputError(
            f"latents={latents}, but the encoder returns a mean {mean.shape[1:]} and a log variance "
            f"{log_variance.shape[1:]} for an image: expected ({latents},) twice"
        )


def _no_critic(x: PyTree) -> tuple[PyTree, PyTree]:
    raise InvalidInputError("a term asks for a discriminator, which a VAE does not have: use `gans.vae_gan`")
