"""The standard adversarial game: everything that most GANs differ in is an argument.

The batch holds `'real'`, `[b, ...]`, and `'label'`, `[b]`, where the game is conditional; fakes get the labels of the
batch's reals. Each critic step draws a batch; the generator's update draws one if its loss looks at reals (a
relativistic one), and otherwise reuses the last critic step's.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, PyTree

from gan_jax import core
from gan_jax.augment import control, init_ada, observe
from gan_jax.core import GANState
from gan_jax.losses import GANLoss
from gan_jax.regularizers import interpolated_penalty, zero_centered_penalty
from gan_jax.types import Batch, Game, InvalidInputError, LossFn, Metrics, Network, Out, Phase, Prior, PRNGKey, Scalar


class Augmentation(NamedTuple):
    """What is done to all images that the discriminator sees, real or fake, penalties included.

    Attributes:
      function: `(key, images, p) -> images`, such as `augment.diff_augment()` or `augment.ada_pipeline()`.
      probability: p; where it adapts, p at the start. None for 1 if constant, and for 0 if it adapts.
      target: of the mean sign of D(real), towards which p is moved (ADA; the paper's is 0.6); None for a constant p,
        the hyperparameter `augment_probability`.
      speed_images: images in which an adapting p can go from 0 to 1.
      interval: iterations between moves of p.
    """

    function: Callable[[PRNGKey, Array, Array], Array]
    probability: float | None = None
    target: float | None = None
    speed_images: float = 500_000.0
    interval: int = 4


class Penalty(NamedTuple):
    """A term of the discriminator's loss; one that remembers something, as LeCam does, needs a game of its own.

    Attributes:
      name: of its metric; its weight is the hyperparameter `{name}_weight`.
      weight: what the mean of `function` is multiplied by.
      function: `(critic, real, fake, key) -> [b]`, with label, augmentation and model state bound in `critic`.
      every: k > 1 gives it a phase of its own every k-th iteration, times k; build the discriminator's optimiser with
        `core.adam(..., lazy_interval=k)` then.
    """

    name: str
    weight: float
    function: Callable[[Callable[[Array], PyTree], Array, Array, PRNGKey], Array]
    every: int = 1


def r1(gamma: float, every: int = 1) -> Penalty:
    """Gamma / 2 times the squared gradient norm at reals (`regularizers.zero_centered_penalty`)."""
    _check_weight("gamma", gamma)
    return Penalty("r1", gamma / 2, lambda critic, real, fake, key: zero_centered_penalty(critic, real), every)


def r2(gamma: float, every: int = 1) -> Penalty:
    """Gamma / 2 times the squared gradient norm at fakes (`regularizers.zero_centered_penalty`)."""
    _check_weight("gamma", gamma)
    return Penalty("r2", gamma / 2, lambda critic, real, fake, key: zero_centered_penalty(critic, fake), every)


def gradient_penalty(weight: float = 10.0, *, one_sided: bool = False, every: int = 1) -> Penalty:
    """The penalty of WGAN-GP, or with `one_sided` of WGAN-LP (`regularizers.interpolated_penalty`)."""
    _check_weight("weight", weight)

    def function(critic: Callable[[Array], PyTree], real: Array, fake: Array, key: PRNGKey) -> Array:
        return interpolated_penalty(critic, real, fake, key, one_sided=one_sided)

    return Penalty("gradient_penalty", weight, function, every)


def _check_weight(name: str, value: float) -> None:
    if not value >= 0:
        raise InvalidInputError(f"{name}={value}: the weight of a penalty is at least 0")


def with_adam(options: dict[str, Any], learning_rate: float, b1: float, b2: float = 0.999) -> dict[str, Any]:
    """Options for `adversarial` with Adam for both players where they name no optimiser.

    The discriminator's is corrected for the lazy penalty among the options, if there is one; see `core.adam`.
    """
    lazy = max([penalty.every for penalty in options.get("penalties", ())], default=1)
    optimizers = {
        "generator_optimizer": core.adam(learning_rate, b1, b2),
        "discriminator_optimizer": core.adam(learning_rate, b1, b2, lazy_interval=lazy if lazy > 1 else 0),
    }
    return optimizers | options


def adversarial(
    generator: Network,
    discriminator: Network,
    prior: Prior,
    *,
    loss: GANLoss,
    generator_optimizer: optax.GradientTransformation,
    discriminator_optimizer: optax.GradientTransformation,
    penalties: Sequence[Penalty] = (),
    augment: Augmentation | None = None,
    critic_steps: int = 1,
    num_classes: int | None = None,
    latent_scale: float | None = None,
    ema_halflife_images: float | None = None,
    ema_rampup: float = 0.05,
) -> Game:
    """A generator against a discriminator.

    Args:
      generator: `z -> samples`, or `(z, label) -> samples` if conditional.
      discriminator: `x -> logits`, or `(x, label) -> logits`.
      prior: of the latents.
      loss: a pair from `gan_jax.losses`; it is averaged over all axes of the logits.
      generator_optimizer: an optax transformation; `core.adam` keeps its hyperparameters in the state.
      discriminator_optimizer: likewise.
      penalties: terms of the discriminator's loss; see `r1`, `r2`, `gradient_penalty`.
      augment: of all that the discriminator sees.
      critic_steps: discriminator updates per generator update, each with new data.
      num_classes: for a conditional game.
      latent_scale: latents are that many times those of the prior, in sampling too; None leaves them as they are.
      ema_halflife_images: of the averaged generator that `sample` uses; None samples from the generator itself.
      ema_rampup: see `core.ema`.

    Returns:
      A game of the players `generator` and `discriminator`.

    Raises:
      InvalidInputError: when the batch that `init` gets lacks the labels that the game wants, has labels that it would
        ignore, or differs in shape from what the generator makes.
    """
    _check_arguments(penalties, augment, critic_steps, ema_halflife_images)

    def inputs(x: Array, batch: Batch) -> tuple[Array, ...]:
        return (x, batch["label"]) if num_classes is not None else (x,)

    def scaled(z: Array, state: GANState) -> Array:
        return z if latent_scale is None else state.hparams["latent_scale"] * z

    def generate(params: PyTree, state: GANState, batch: Batch, key: PRNGKey) -> tuple[Array, PyTree]:
        latent_key, network_key = jax.random.split(key)
        z = scaled(core.constrain_batch(prior.sample(latent_key, batch["real"].shape[0])), state)
        model_state = state.players["generator"].model_state
        return generator.apply(params, model_state, *inputs(z, batch), train=True, key=network_key)

    def criticize(params: PyTree, state: GANState, x: Array, batch: Batch, key: PRNGKey) -> tuple[PyTree, PyTree]:
        augment_key, network_key = jax.random.split(key)
        if augment is not None:
            x = augment.function(augment_key, x, _augment_probability(state))
        model_state = state.players["discriminator"].model_state
        return discriminator.apply(params, model_state, *inputs(x, batch), train=True, key=network_key)

    def penalize(
        penalty: Penalty, params: PyTree, state: GANState, batch: Batch, fake: Array, key: PRNGKey
    ) -> tuple[Scalar, Scalar]:
        """The penalty's term of the loss, and its unweighted mean for the log."""
        critic_key, penalty_key = jax.random.split(key)
        values = penalty.function(
            lambda x: criticize(params, state, x, batch, critic_key)[0], batch["real"], fake, penalty_key
        )
        value = jnp.mean(values)
        return penalty.every * state.hparams[f"{penalty.name}_weight"] * value, value

    def discriminator_loss(params: PyTree, state: GANState, batch: Batch, key: PRNGKey) -> tuple[Scalar, Out]:
        fake_key, real_key, critic_key, *penalty_keys = jax.random.split(key, 3 + len(penalties))
        fake, _ = generate(state.players["generator"].params, state, batch, fake_key)
        real_logits, model_state = criticize(params, state, batch["real"], batch, real_key)
        fake_logits, _ = criticize(params, state, fake, batch, critic_key)
        total = jnp.mean(loss.discriminator(real_logits, fake_logits))
        metrics = logit_metrics(loss, real_logits, fake_logits)
        for penalty, penalty_key in zip(penalties, penalty_keys, strict=True):
            if penalty.every == 1:
                term, metrics[penalty.name] = penalize(penalty, params, state, batch, fake, penalty_key)
                total += term
        aux = {}
        if "ada" in state.aux:
            aux["ada"] = observe(state.aux["ada"], real_logits)
            metrics["augment_probability"] = state.aux["ada"].p
        return total, Out(metrics, model_state, aux)

    def lazy_loss(penalty: Penalty) -> LossFn:
        def penalty_loss(params: PyTree, state: GANState, batch: Batch, key: PRNGKey) -> tuple[Scalar, Out]:
            fake_key, penalty_key = jax.random.split(key)
            fake, _ = generate(state.players["generator"].params, state, batch, fake_key)
            term, value = penalize(penalty, params, state, batch, fake, penalty_key)
            return term, Out({penalty.name: value})

        return penalty_loss

    def generator_loss(params: PyTree, state: GANState, batch: Batch, key: PRNGKey) -> tuple[Scalar, Out]:
        fake_key, critic_key, real_key = jax.random.split(key, 3)
        critic = state.players["discriminator"].params
        fake, model_state = generate(params, state, batch, fake_key)
        fake_logits, _ = criticize(critic, state, fake, batch, critic_key)
        real_logits, _ = criticize(critic, state, batch["real"], batch, real_key)  # dead code unless relativistic
        return jnp.mean(loss.generator(real_logits, fake_logits)), Out({}, model_state)

    def init(key: PRNGKey, batch: Batch) -> GANState:
        check_labels(batch, num_classes)
        generator_key, discriminator_key = jax.random.split(core.init_key(key))
        first = {name: value[:1] for name, value in batch.items()}
        latents = inputs(prior.sample(generator_key, 1), first)
        params, model_state = generator.init(generator_key, *latents)
        made = jax.eval_shape(lambda: generator.apply(params, model_state, *latents, train=False, key=key)[0])
        if made.shape != first["real"].shape:
            raise InvalidInputError(
                f"the generator makes samples of shape {made.shape[1:]}, but the data has {first['real'].shape[1:]}: "
                "change the generator's output shape or resize the data in its source"
            )
        players = {
            "generator": core.create_player(params, model_state, generator_optimizer),
            "discriminator": core.create_player(
                *discriminator.init(discriminator_key, *inputs(first["real"], first)), discriminator_optimizer
            ),
        }
        hparams = {f"{penalty.name}_weight": penalty.weight for penalty in penalties}
        hparams |= {} if latent_scale is None else {"latent_scale": latent_scale}
        aux: dict[str, PyTree] = {}
        if augment is not None:
            _add_augmentation(augment, batch["real"].shape[0] * critic_steps, hparams, aux)
        if ema_halflife_images is not None:
            hparams |= {"ema_halflife_images": ema_halflife_images, "ema_rampup": ema_rampup}
            aux["batch_size"] = jnp.float32(batch["real"].shape[0])
        averaged = () if ema_halflife_images is None else ("generator",)
        return core.create_state(key, players, averaged=averaged, aux=aux, hparams=hparams)

    def sample(
        state: GANState,
        key: PRNGKey,
        n: int,
        label: Array | None = None,
        *,
        inputs: Array | None = None,
        truncation: float | None = None,
    ) -> Array:
        latent_key, label_key, network_key = jax.random.split(key, 3)
        z = scaled(prior.sample(latent_key, n, truncation) if inputs is None else inputs, state)
        conditions = sampled_labels(label, label_key, z.shape[0], num_classes)
        params, model_state = sampling_weights(state, "generator")
        return generator.apply(params, model_state, z, *conditions, train=False, key=network_key)[0]

    def logits(state: GANState, samples: Array, label: Array | None = None) -> Array:
        player = state.players["discriminator"]
        conditions = sampled_labels(label, core.init_key(state.key), len(samples), num_classes)
        return discriminator.apply(player.params, player.model_state, samples, *conditions, train=False)[0]

    lazy = [
        Phase(f"discriminator_{p.name}", "discriminator", lazy_loss(p), every=p.every, reuse_batch=True)
        for p in penalties
        if p.every > 1
    ]
    phases = (
        Phase("discriminator", "discriminator", discriminator_loss, repeat=critic_steps),
        *lazy,
        Phase("generator", "generator", generator_loss, reuse_batch=not _sees_reals(loss)),
    )
    averaging = () if ema_halflife_images is None else (core.ema("generator"),)
    adapt = () if augment is None or augment.target is None else (_adapt(augment.interval),)
    after = (*adapt, *averaging)
    return Game(init, phases, after, sample, prior, num_classes, logits)


def _check_arguments(
    penalties: Sequence[Penalty],
    augment: Augmentation | None,
    critic_steps: int,
    ema_halflife_images: float | None,
) -> None:
    names = [penalty.name for penalty in penalties]
    if len(set(names)) < len(names):
        raise InvalidInputError(f"penalties={names}: each may be given once, since its weight goes by its name")
    if ema_halflife_images is not None and not ema_halflife_images > 0:
        raise InvalidInputError(f"ema_halflife_images={ema_halflife_images}: expected a number above 0, or None")
    if critic_steps > 1 and any(penalty.every > 1 for penalty in penalties):
        raise InvalidInputError(
            f"critic_steps={critic_steps} with a lazy penalty: its weight and Adam's correction are for one critic "
            "step per iteration; set every=1"
        )
    if augment is not None and (
        not 0 <= (augment.probability or 0) <= 1
        or not -1 <= (augment.target or 0) <= 1
        or augment.interval < 1
        or not augment.speed_images > 0
    ):
        raise InvalidInputError(
            f"augment={augment}: expected a probability from 0 to 1, a target from -1 to 1 (a mean sign), speed_images "
            "above 0, and an interval from 1"
        )


def _augment_probability(state: GANState) -> Array:
    return state.aux["ada"].p if "ada" in state.aux else state.hparams["augment_probability"]


def _add_augmentation(augment: Augmentation, images: int, hparams: dict[str, Any], aux: dict[str, PyTree]) -> None:
    """Puts what an augmentation needs into the state; `images` are the reals that D sees in an iteration."""
    if augment.target is None:
        hparams["augment_probability"] = 1.0 if augment.probability is None else augment.probability
        return
    hparams |= {"augment_target": augment.target, "augment_speed_images": augment.speed_images}
    aux |= {"ada": init_ada(augment.probability or 0.0), "ada_images": jnp.float32(images * augment.interval)}


def _adapt(interval: int) -> Callable[[GANState], GANState]:
    """The hook that moves an adapting p."""

    def hook(state: GANState) -> GANState:
        target, speed = state.hparams["augment_target"], state.hparams["augment_speed_images"]
        moved = control(state.aux["ada"], state.aux["ada_images"], target=target, speed_images=speed)
        due = (state.step + 1) % interval == 0
        ada = jax.tree.map(lambda new, old: jnp.where(due, new, old), moved, state.aux["ada"])
        return state.replace(aux={**state.aux, "ada": ada})

    return hook


def logit_metrics(loss: GANLoss, real_logits: Array, fake_logits: Array) -> Metrics:
    """What the logits tell of a discriminator's health.

    Args:
      loss: whose discriminator.
      real_logits: of any shape.
      fake_logits: of the same shape.

    Returns:
      `real_logits` and `fake_logits`, their means; and `saturated_logits`, the share of all of them where the
      discriminator's loss is flat, |dL/dlogit| < 0.01, so that it learns nothing from the example and, in a minimax
      game, teaches the generator nothing. With the logistic losses these are logits beyond 4.6 on the right side.
    """
    real, fake = jax.lax.stop_gradient((real_logits, fake_logits))
    slopes = jax.grad(lambda r, f: jnp.sum(loss.discriminator(r, f)), argnums=(0, 1))(real, fake)
    flat = jnp.stack([jnp.mean((jnp.abs(slope) < 0.01).astype(jnp.float32)) for slope in slopes])
    return {"real_logits": jnp.mean(real), "fake_logits": jnp.mean(fake), "saturated_logits": jnp.mean(flat)}


def _sees_reals(loss: GANLoss) -> bool:
    """Whether the generator's loss depends on the real logits; if not, it needs no batch of its own."""
    logits = jax.ShapeDtypeStruct((1,), jnp.float32)
    jaxpr = jax.make_jaxpr(loss.generator)(logits, logits).jaxpr
    read = [variable for equation in jaxpr.eqns for variable in equation.invars] + jaxpr.outvars
    return any(variable is jaxpr.invars[0] for variable in read)


def check_labels(batch: Batch, num_classes: int | None) -> None:
    """Refuses labels that a game would ignore, and a conditional game without labels."""
    if num_classes is None and "label" in batch:
        raise InvalidInputError(
            "the batch has 'label', which this unconditional game would ignore: leave labels out of the data source "
            "(labels=False), or make the game and its networks conditional (num_classes)"
        )
    if num_classes is not None and "label" not in batch:
        raise InvalidInputError(
            f"num_classes={num_classes}, but the batch has no 'label': ask the data source for labels (labels=True), "
            "or use a data set that has them (a folder of images needs one sub-folder per class)"
        )


def sampled_labels(label: Array | None, key: PRNGKey, n: int, num_classes: int | None) -> tuple[Array, ...]:
    """The generator's inputs after the latents: none, the labels asked for, or labels drawn uniformly."""
    if num_classes is None:
        if label is not None:
            raise InvalidInputError("label was given, but this game is unconditional: leave it out")
        return ()
    if label is None:
        return (jax.random.randint(key, (n,), 0, num_classes),)
    return (jnp.broadcast_to(jnp.asarray(label, jnp.int32), (n,)),)


def sampling_weights(state: GANState, player: str) -> tuple[PyTree, PyTree]:
    """Parameters and model state to sample with: the averaged ones where the game keeps an average."""
    averaged = state.ema.get(player)
    if averaged is None:
        return state.players[player].params, state.players[player].model_state
    return averaged["params"], averaged["model_state"]
