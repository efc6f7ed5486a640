"""StyleGAN2: the standard game with a mapping and a synthesis network, and path-length regularisation."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from gan_jax import core
from gan_jax.core import GANState
from gan_jax.gans.adversarial import adversarial, with_adam
from gan_jax.gans.standard import sampled_labels, sampling_weights
from gan_jax.gans.terms import r1
from gan_jax.losses import GANLoss, non_saturating
from gan_jax.regularizers import path_length
from gan_jax.types import Game, InvalidInputError, Network, Prior, PRNGKey, Term, Value, View

Styles = Float[Array, "b layers d"]


def stylegan2(
    mapping: Network,
    synthesis: Network,
    discriminator: Network,
    prior: Prior,
    *,
    loss: GANLoss = non_saturating,
    r1_gamma: float = 10.0,
    r1_every: int = 16,
    path_length_weight: float | None = 2.0,
    path_length_every: int = 4,
    path_length_shrink: int = 2,
    style_mixing: float = 0.9,
    w_average_decay: float = 0.995,
    learning_rate: float = 2e-3,
    num_classes: int | None = None,
    ema_halflife_images: float | None = 10_000,
    **options: Any,
) -> Game:
    """Creates the game of StyleGAN2: style mixing, lazy R1, lazy path-length regularisation, truncation in w.

    It is `adversarial` with the generator z -> mapping -> style mixing -> synthesis. The generator has an additional
    lazy phase with the loss

        path_length_every path_length_weight mean(path_length(synthesis, w)),

    on a fraction of the batch. The target length is `state.aux['path_length_mean']`; the weight, and the decay of the
    target, are hyperparameters. `nets.StyleGAN2Generator.parts()` gives the mapping and the synthesis network.

    Args:
      mapping: mapping network, `z -> w`, or `(z, label) -> w` if conditional; w is `[b, layers, d]`, one style for each
        layer.
      synthesis: synthesis network, `w -> images`.
      discriminator: discriminator network, `x -> logits`, or `(x, label) -> logits` if conditional.
      prior: distribution of the latents; the paper's is `core.normal(512)`.
      loss: adversarial loss, any pair of `gan_jax.losses`.
      r1_gamma: gamma of R1, whose weight is gamma / 2. The paper's best value depends on the data; it is about 0.0002
        times the pixels of an image / batch size.
      r1_every: interval of the R1 updates, in iterations.
      path_length_weight: weight of path-length regularisation; None to leave it out.
      path_length_every: interval of the path-length updates, in iterations.
      path_length_shrink: divisor of the batch size for the path-length updates.
      style_mixing: probability that an example mixes the styles of two latents; the second applies from a random layer
        on.
      w_average_decay: decay of the average of w over latents, towards which truncation moves w.
      learning_rate: learning rate of both players' Adam, betas 0 and 0.99. Both are corrected for the player's lazy
        phases.
      num_classes: number of classes of a conditional game; None if unconditional.
      ema_halflife_images: half-life of the averaged generator in images; None for no average.
      **options: arguments of `adversarial`.

    Returns:
      The game, with the players `generator`, whose parameters are `'mapping'` and `'synthesis'`, and `discriminator`.
      Samples are clipped to [-1, 1]. The argument `truncation` of `sample` is psi: w becomes average + psi (w -
      average), so that 1 changes nothing and 0 gives a single image. The latents are not truncated.

    Raises:
      InvalidInputError: for arguments out of range; when the step is traced, for a batch that `path_length_shrink` does
        not divide on every device.

    References:
      Karras et al., "Analyzing and Improving the Image Quality of StyleGAN", arXiv:1912.04958, 2020; style mixing and
      truncation from Karras et al., "A Style-Based Generator Architecture for Generative Adversarial Networks",
      arXiv:1812.04948, 2019. The authors' code differs in five ways. It draws one crossover layer for the whole batch;
      here each example has its own. It updates the average of w whenever G runs in training (decay 0.995, later 0.998);
      here once per update of G, and `sample` uses that average as averaged by the EMA of the generator. It updates the
      discriminator last in an iteration; here first. Its EMA has a ramp-up (`ema_rampup`) only in the code of the ADA
      paper. With a path-length weight of 0 it still corrects the generator's Adam for that phase; here None leaves out
      the correction too.
    """
    _check_arguments(path_length_weight, path_length_every, path_length_shrink, style_mixing, w_average_decay)
    # `truncation` is psi in this game, so the prior must ignore it.
    latents = prior._replace(sample=lambda key, n, truncation=None: prior.sample(key, n))
    styles = with_styles(mapping, latents, mixing=style_mixing, average_decay=w_average_decay)
    lengths = path_lengths(
        styles, synthesis, latents, path_length_weight, path_length_every, path_length_shrink, num_classes
    )
    options = {"penalties": (r1(r1_gamma, r1_every),)} | options
    options["terms"] = (*options.get("terms", ()), *lengths)
    options = with_adam(options, learning_rate, 0.0, 0.99)

    def sample(
        state: GANState,
        key: PRNGKey,
        n: int,
        label: Array | None = None,
        *,
        inputs: Array | None = None,
        truncation: float | None = None,
    ) -> Array:
        latent_key, label_key, style_key, synthesis_key = jax.random.split(key, 4)
        z = latents.sample(latent_key, n) if inputs is None else inputs
        conditions = sampled_labels(label, label_key, z.shape[0], num_classes)
        params, model_state = sampling_weights(state, "generator")
        w, _ = styles.apply(params["mapping"], model_state["mapping"], z, *conditions, train=False, key=style_key)
        if truncation is not None:
            w = truncate(w, model_state["mapping"]["w_average"], truncation)
        images, _ = synthesis.apply(params["synthesis"], model_state["synthesis"], w, train=False, key=synthesis_key)
        return jnp.clip(images, -1.0, 1.0)

    game = adversarial(
        in_turn(styles, synthesis), discriminator, latents,
        loss=loss, num_classes=num_classes, ema_halflife_images=ema_halflife_images, **options,
    )  # fmt: skip
    return game._replace(functions={**game.functions, "sample": sample})


def path_lengths(
    styles: Network,
    synthesis: Network,
    prior: Prior,
    weight: float | None,
    every: int,
    shrink: int,
    num_classes: int | None = None,
) -> tuple[Term, ...]:
    """Creates the path-length term of StyleGAN2's generator, which draws its own latents (`regularizers.path_length`).

    Args:
      styles: mapping network with style mixing, from `with_styles`.
      synthesis: synthesis network, `w -> images`.
      prior: distribution of the latents.
      weight: weight of the term; None for no term.
      every: interval of the term, in iterations.
      shrink: divisor of the batch size that gives the number of latents.
      num_classes: number of classes of a conditional game; None if unconditional.

    Returns:
      The term, or nothing. Its target length is `state.aux['path_length_mean']`.
    """

    def value(view: View, key: PRNGKey) -> Value:
        latent_key, style_key, synthesis_key, length_key = jax.random.split(key, 4)
        n = _shrunk(view.batch["real"].shape[0], shrink)
        # Every `shrink`-th label, not the first n: each device then takes its labels from its own share of the batch.
        label = () if num_classes is None else (view.batch["label"].reshape(n, shrink)[:, 0],)
        z = core.constrain_batch(prior.sample(latent_key, n))
        player, hparams = view.state.players["generator"], view.state.hparams
        params, model_state = player.params, player.model_state
        w, _ = styles.apply(params["mapping"], model_state["mapping"], z, *label, train=True, key=style_key)

        def synthesize(w: Styles) -> Array:
            return synthesis.apply(params["synthesis"], model_state["synthesis"], w, train=True, key=synthesis_key)[0]

        target, decay = view.state.aux["path_length_mean"], hparams["path_length_decay"]
        found, target = path_length(synthesize, w, length_key, target, decay=decay)
        return Value(found, {"mean": target}, {"path_length_mean": target})

    if weight is None:
        return ()
    memory, hparams = {"path_length_mean": jnp.zeros((), jnp.float32)}, {"path_length_decay": 0.01}
    return (Term("path_length", "generator", weight, value, memory, hparams, every),)


def _check_arguments(
    path_length_weight: float | None, path_length_every: int, path_length_shrink: int, mixing: float, decay: float
) -> None:
    """Refuses arguments of `stylegan2` that are out of range."""
    if path_length_weight is not None and not path_length_weight >= 0:
        raise InvalidInputError(
            f"path_length_weight={path_length_weight}: expected at least 0, or None to leave it out"
        )
    for name, count in (("path_length_every", path_length_every), ("path_length_shrink", path_length_shrink)):
        if count < 1:
            raise InvalidInputError(f"{name}={count}: expected at least 1")
    for name, share in (("style_mixing", mixing), ("w_average_decay", decay)):
        if not 0 <= share <= 1:
            raise InvalidInputError(f"{name}={share}: expected a number from 0 to 1")


def _shrunk(size: int, shrink: int) -> int:
    """Returns the number of latents for the path-length term, which must be the same on every device."""
    axes = dict(jax.sharding.get_abstract_mesh().shape)
    devices = math.prod(length for name, length in axes.items() if name != "trial")
    if size % (shrink * devices):
        raise InvalidInputError(
            f"path_length_shrink={shrink}: the batch of {size}, on {devices} devices, is not divisible by it on each "
            "device; choose a divisor of each device's share of the batch, such as 1"
        )
    return size // shrink


def with_styles(mapping: Network, prior: Prior, *, mixing: float, average_decay: float) -> Network:
    """Wraps a mapping network: in training it mixes the styles of two latents, and keeps a running average of w.

    Args:
      mapping: mapping network, `(z, ...) -> w`, `[b, layers, d]`.
      prior: distribution of the second latents. Inputs after z, such as a label, are the same for both latents.
      mixing: probability that an example is mixed; see `mix_styles`. Nothing is mixed if it is 0 or if no key is given.
      average_decay: decay of the running average.

    Returns:
      The network. Its model state is `{'network': ..., 'w_average': [layers, d]}`; the average is that of unmixed
      styles, and starts at 0.
    """

    def init(key: PRNGKey, z: Array, *rest: Array) -> tuple[PyTree, PyTree]:
        params, state = mapping.init(key, z, *rest)
        w = jax.eval_shape(lambda: mapping.apply(params, state, z, *rest, train=False)[0])
        if len(w.shape) != 3:
            raise InvalidInputError(f"mapping: it makes w of shape {w.shape}; expected [b, layers, d]")
        return params, {"network": state, "w_average": jnp.zeros(w.shape[1:], w.dtype)}

    def apply(
        params: PyTree, model_state: PyTree, z: Array, *rest: Array, train: bool, key: PRNGKey | None = None
    ) -> tuple[Styles, PyTree]:
        mapping_key, mixing_key = (None, None) if key is None else jax.random.split(key)
        w, state = mapping.apply(params, model_state["network"], z, *rest, train=train, key=mapping_key)
        if not train:
            return w, model_state
        mean = jnp.mean(w, axis=0)
        average = mean + average_decay * (model_state["w_average"] - mean)
        if mixing > 0 and mixing_key is not None:
            latent_key, other_key, choice_key = jax.random.split(mixing_key, 3)
            z = core.constrain_batch(prior.sample(latent_key, z.shape[0]))
            other, _ = mapping.apply(params, model_state["network"], z, *rest, train=train, key=other_key)
            w = mix_styles(choice_key, w, other, mixing)
        return w, {"network": state, "w_average": average}

    return Network(init, apply)


def in_turn(mapping: Network, synthesis: Network) -> Network:
    """Composes both networks into one, whose parameters and model state are `{'mapping': ..., 'synthesis': ...}`."""

    def init(key: PRNGKey, *inputs: Array) -> tuple[PyTree, PyTree]:
        mapping_key, synthesis_key = jax.random.split(key)
        params, state = mapping.init(mapping_key, *inputs)
        w = jax.eval_shape(lambda: mapping.apply(params, state, *inputs, train=False)[0])
        synthesis_params, synthesis_state = synthesis.init(synthesis_key, jnp.zeros(w.shape, w.dtype))
        params = {"mapping": params, "synthesis": synthesis_params}
        return params, {"mapping": state, "synthesis": synthesis_state}

    def apply(
        params: PyTree, model_state: PyTree, *inputs: Array, train: bool, key: PRNGKey | None = None
    ) -> tuple[Array, PyTree]:
        mapping_key, synthesis_key = (None, None) if key is None else jax.random.split(key)
        w, state = mapping.apply(params["mapping"], model_state["mapping"], *inputs, train=train, key=mapping_key)
        images, synthesis_state = synthesis.apply(
            params["synthesis"], model_state["synthesis"], w, train=train, key=synthesis_key
        )
        return images, {"mapping": state, "synthesis": synthesis_state}

    return Network(init, apply)


def mix_styles(key: PRNGKey, w: Styles, other: Styles, probability: float) -> Styles:
    """Mixes styles: an example that is chosen takes the styles of `other` from a random layer on.

    Args:
      key: random key of the choice of examples and layers.
      w: styles, `[b, layers, d]`.
      other: styles of other latents, of the same shape.
      probability: probability that an example is mixed. Its crossover layer is uniform in 1 to layers - 1.

    Returns:
      The mixed styles, `[b, layers, d]`.

    Raises:
      InvalidInputError: for fewer than two layers.

    References:
      Karras et al., arXiv:1812.04948, 2019, section 3.1.

    Example:
      >>> mixed = mix_styles(jax.random.key(0), jnp.zeros((1, 3, 1)), jnp.ones((1, 3, 1)), 1.0)
      >>> print(mixed[0, 0], mixed[0, 2])
      [0.] [1.]
    """
    b, layers, _ = w.shape
    if layers < 2:
        raise InvalidInputError(f"w {w.shape}: style mixing needs at least two layers; set style_mixing=0")
    mixed_key, layer_key = jax.random.split(key)
    first = jax.random.randint(layer_key, (b, 1, 1), 1, layers)
    mixed = jax.random.bernoulli(mixed_key, probability, (b, 1, 1))
    return jnp.where(mixed & (jnp.arange(layers)[:, None] >= first), other, w)


def truncate(w: Styles, average: Float[Array, "layers d"], psi: float | Float[Array, ""]) -> Styles:
    """Applies the truncation trick in w: average + psi (w - average).

    Args:
      w: styles, `[b, layers, d]`.
      average: average of w over latents, `[layers, d]`.
      psi: strength of the truncation: 1 changes nothing, 0 returns the average for every example.

    Returns:
      The truncated styles, `[b, layers, d]`.

    Raises:
      InvalidInputError: for a psi outside 0 to 1. A larger one is mostly a threshold in standard deviations, which is
        the truncation of other games.

    References:
      Karras et al., arXiv:1812.04948, 2019, appendix B.

    Example:
      >>> print(truncate(jnp.full((1, 2, 1), 4.0), jnp.full((2, 1), 2.0), 0.5).ravel())
      [3. 3.]
    """
    if not isinstance(psi, jax.Array) and not 0 <= psi <= 1:
        raise InvalidInputError(f"truncation={psi}: expected psi from 0 (the average) to 1 (no truncation), or None")
    return jnp.where(psi == 1, w, average + psi * (w - average))  # the sum rounds, also for 1
