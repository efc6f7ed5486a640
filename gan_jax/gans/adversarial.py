"""The standard adversarial game, with an argument for everything in which most GANs differ.

The batch has `'real'`, `[b, ...]`, and in a conditional game also `'label'`, `[b]`; fakes get the labels of the batch's
reals. Each critic step draws a batch. The generator's update draws its own batch if its loss depends on reals (a
relativistic loss); otherwise it reuses the batch of the last critic step.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, PyTree

from gan_jax import core
from gan_jax.augment import control, init_ada, observe
from gan_jax.core import GANState, Hook
from gan_jax.gans.standard import DISCRIMINATOR, sampled_labels, sampler, standard_game
from gan_jax.gans.terms import LOGITS, Pick, gan_loss, sees_reals
from gan_jax.losses import GANLoss
from gan_jax.types import Batch, Game, InvalidInputError, Network, Prior, PRNGKey, Scalar, Term, Value, View


class Augmentation(NamedTuple):
    """Augmentation of all images that the discriminator sees, real or fake, with constant or adaptive probability p.

    Attributes:
      function: `(key, images, p) -> images`, such as `augment.diff_augment()` or `augment.ada_pipeline()`.
      probability: p, or its initial value if it is adaptive. None means 1 for a constant p, and 0 for an adaptive one.
      target: target of the mean sign of D(real), towards which p is adapted (ADA; 0.6 in the paper). None for a
        constant p, which is then the hyperparameter `augment_probability`.
      speed_images: number of images in which an adaptive p can change from 0 to 1.
      interval: iterations between changes of an adaptive p.
    """

    function: Callable[[PRNGKey, Array, Array], Array]
    probability: float | None = None
    target: float | None = None
    speed_images: float = 500_000.0
    interval: int = 4

    def __call__(self, key: PRNGKey, x: PyTree, state: GANState) -> PyTree:
        """Augments images for the discriminator."""
        return self.function(key, x, self.current(state))

    def current(self, state: GANState) -> Scalar:
        """Returns the current probability p."""
        return state.hparams["augment_probability"] if self.target is None else state.aux["ada"].p

    def observer(self, logits: Pick) -> Term:
        """Creates the term that counts the signs of D(real) for an adaptive p; it adds nothing to the loss."""

        def value(view: View, key: PRNGKey) -> Value:
            found = [jnp.ravel(x) for x in jax.tree.leaves(logits(view.real_out))]
            ada = observe(view.state.aux["ada"], found[0] if len(found) == 1 else jnp.concatenate(found))
            return Value(jnp.zeros((), jnp.float32), {"augment_probability": self.current(view.state)}, {"ada": ada})

        return Term("augmentation", DISCRIMINATOR, None, value)

    def hook(self, critic_steps: int) -> Hook:
        """Creates the hook that puts p into the state, and that updates an adaptive p."""
        if self.target is None:
            constant = {"augment_probability": 1.0 if self.probability is None else self.probability}
            return Hook(lambda state: state, lambda state, size: core.with_hparams(state, constant))
        values = {"augment_target": self.target, "augment_speed_images": self.speed_images}

        def begin(state: GANState, batch_size: int) -> GANState:
            images = jnp.float32(batch_size * critic_steps * self.interval)  # reals seen between two changes of p
            aux = {"ada": init_ada(self.probability or 0.0), "ada_images": images}
            return core.with_hparams(state.replace(aux={**state.aux, **aux}), values)

        def run(state: GANState) -> GANState:
            target, speed = state.hparams["augment_target"], state.hparams["augment_speed_images"]
            moved = control(state.aux["ada"], state.aux["ada_images"], target=target, speed_images=speed)
            due = (state.step + 1) % self.interval == 0
            ada = jax.tree.map(lambda new, old: jnp.where(due, new, old), moved, state.aux["ada"])
            return state.replace(aux={**state.aux, "ada": ada})

        return Hook(run, begin)


def with_adam(options: dict[str, Any], learning_rate: float, b1: float, b2: float = 0.999) -> dict[str, Any]:
    """Adds an Adam optimiser to the options of `adversarial` for each player that has none.

    Learning rate and betas are corrected for the player's lazy terms in the options; see `lazy_interval` of
    `core.adam`.
    """
    terms = [*options.get("penalties", ()), *options.get("terms", ())]

    def adam(player: str) -> optax.GradientTransformation:
        lazy = [term.every for term in terms if term.player == player and term.every > 1]
        interval = lazy[0] if len(lazy) == 1 else 1 / sum(1 / every for every in lazy) if lazy else 0
        return core.adam(learning_rate, b1, b2, lazy_interval=interval)

    return {f"{player}_optimizer": adam(player) for player in ("generator", "discriminator")} | options


def adversarial(
    generator: Network,
    discriminator: Network,
    prior: Prior,
    *,
    loss: GANLoss,
    generator_optimizer: optax.GradientTransformation,
    discriminator_optimizer: optax.GradientTransformation,
    penalties: Sequence[Term] = (),
    terms: Sequence[Term] = (),
    augment: Augmentation | None = None,
    critic_steps: int = 1,
    num_classes: int | None = None,
    latent_scale: float | None = None,
    ema_halflife_images: float | None = None,
    ema_rampup: float = 0.05,
    hooks: Sequence[Hook] = (),
    keep: float | None = None,
    ramp: tuple[int, int] = (0, 0),
    logits: Pick = LOGITS,
    **options: Any,
) -> Game:
    """Creates the game of a generator that maps latents to samples, and a discriminator.

    Args:
      generator: generator network, `z -> samples`, or `(z, label) -> samples` if conditional.
      discriminator: discriminator network, `x -> logits`, or `(x, label) -> logits` if conditional. The logits can be
        any tree of arrays, or a dict with `'logits'` and the other outputs that the terms use.
      prior: distribution of the latents.
      loss: adversarial loss, a pair of `gan_jax.losses`; it is averaged over all axes of the logits.
      generator_optimizer: optax optimiser of the generator; `core.adam` keeps its hyperparameters in the state.
      discriminator_optimizer: optax optimiser of the discriminator.
      penalties: terms of the discriminator's loss, such as `r1`, `r2`, `gradient_penalty`.
      terms: more terms of either player's loss; see `gan_jax.gans.terms`.
      augment: augmentation of all images that the discriminator sees; None for no augmentation.
      critic_steps: discriminator updates per generator update, each with its own batch.
      num_classes: number of classes of a conditional game; None if unconditional.
      latent_scale: factor on the prior's latents, in training and in sampling; None for no scaling. It is a
        hyperparameter.
      ema_halflife_images: half-life in images of the averaged generator that `sample` uses; None for no average, so
        that `sample` uses the generator itself.
      ema_rampup: upper bound of that half-life as a fraction of the images seen so far; see `core.ema`.
      hooks: additional hooks for the end of an iteration, such as `core.schedule(...)`, `core.averaging(...)`.
      keep: fraction of the fakes that the generator learns from (top-k training); see `terms.gan_loss`.
      ramp: ramp of the generator's adversarial term; see `terms.gan_loss`.
      logits: function that selects the logits from the discriminator's outputs.
      **options: arguments of `standard_game`.

    Returns:
      The game, with the players `generator` and `discriminator`.

    Raises:
      InvalidInputError: for an augmentation or a half-life out of range; by the game's `init`, for a batch that lacks
        the labels of a conditional game, has labels that the game would ignore, or differs in shape from the
        generator's samples.
    """
    everything = (*penalties, *terms)
    _check_arguments(augment, ema_halflife_images)

    def condition(batch: Batch) -> tuple[Array, ...]:
        return () if num_classes is None else (batch["label"],)

    def scaled(z: Array, hparams: Mapping[str, Any]) -> Array:
        return z if latent_scale is None else hparams["latent_scale"] * z

    def inputs(key: PRNGKey, batch: Batch, hparams: Mapping[str, Any]) -> tuple[Array, ...]:
        return scaled(prior.sample(key, batch["real"].shape[0]), hparams), *condition(batch)

    def judge(state: GANState, samples: Array, label: Array | None = None) -> Array:
        """Computes the discriminator's logits of samples; labels that are not given are drawn with a fixed key."""
        player = state.players["discriminator"]
        conditions = sampled_labels(label, core.init_key(state.key), len(samples), num_classes)
        return logits(discriminator.apply(player.params, player.model_state, samples, *conditions, train=False)[0])

    if augment is not None:
        options = {"preprocess": augment} | options
    adapting = [augment.observer(logits)] if augment is not None and augment.target is not None else []
    averages = [] if ema_halflife_images is None else [core.averaging(ema_halflife_images, ema_rampup)]
    return standard_game(
        generator, discriminator, (*gan_loss(loss, logits=logits, keep=keep, ramp=ramp), *everything, *adapting),
        inputs=inputs, condition=condition,
        optimizers={"generator": generator_optimizer, "discriminator": discriminator_optimizer},
        critic_steps=critic_steps, new_batch=sees_reals(loss),
        hooks=(*([] if augment is None else [augment.hook(critic_steps)]), *averages, *hooks),
        hparams={} if latent_scale is None else {"latent_scale": latent_scale},
        check=lambda batch: check_labels(batch, num_classes), prior=prior, num_classes=num_classes,
        functions={"sample": sampler(generator, prior, num_classes, latents=scaled), "logits": judge},
        **options,
    )  # fmt: skip


def _check_arguments(augment: Augmentation | None, ema_halflife_images: float | None) -> None:
    """Refuses a half-life or an augmentation with values out of range."""
    if ema_halflife_images is not None and not ema_halflife_images > 0:
        raise InvalidInputError(f"ema_halflife_images={ema_halflife_images}: expected a number above 0, or None")
    if augment is not None and (
        not 0 <= (augment.probability or 0) <= 1
        or not -1 <= (augment.target or 0) <= 1
        or augment.interval < 1
        or not augment.speed_images > 0
    ):
        raise InvalidInputError(
            f"augment={augment}: expected a probability from 0 to 1, a target from -1 to 1 (a mean sign), speed_images "
            "above 0, and an interval of at least 1"
        )


def check_labels(batch: Batch, num_classes: int | None) -> None:
    """Refuses a batch with labels in an unconditional game, and a batch without labels in a conditional one."""
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
