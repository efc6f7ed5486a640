"""MoCoGAN: clips with one content and a motion, and critics of frames and of clips."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, PyTree

from gan_jax import core
from gan_jax.core import GANState, Hook
from gan_jax.gans.adversarial import Augmentation, check_labels
from gan_jax.gans.decay import decay_hooks
from gan_jax.gans.heads import auxiliary_classifier, information
from gan_jax.gans.standard import DISCRIMINATOR, GENERATOR, sampled_labels, sampler, standard_game
from gan_jax.gans.terms import LOGITS, gan_loss, named, sees_reals
from gan_jax.losses import GANLoss, non_saturating
from gan_jax.types import Batch, Game, InvalidInputError, Network, PRNGKey, Term


def mocogan(
    generator: Network,
    discriminator: Network,
    *,
    frames: int,
    content: int = 50,
    motion: int = 10,
    categories: int = 0,
    num_classes: int | None = None,
    loss: GANLoss = non_saturating,
    category_weight: float = 1.0,
    penalties: Sequence[Term] = (),
    terms: Sequence[Term] = (),
    augment: Augmentation | None = None,
    learning_rate: float = 2e-4,
    decay: tuple[float, float] | None = None,
    weight_decay: float = 1e-5,
    lazy_interval: int = 0,
    generator_optimizer: optax.GradientTransformation | None = None,
    discriminator_optimizer: optax.GradientTransformation | None = None,
    ema_halflife_images: float | None = None,
    hooks: Sequence[Hook] = (),
    **options: Any,
) -> Game:
    """Creates the game of MoCoGAN.

    The discriminator's loss is the sum of the losses of its critics, L(D_I) + L(D_V), and so is the generator's. With
    `categories`, D_V also finds out which category the generator gave a clip, and both players minimise the error, as
    in InfoGAN. With `num_classes`, D_V learns the labels of reals, and the generator makes clips of the given label.

    Args:
      generator: generator network, `latents -> clips`, or `(latents, label) -> clips` if conditional, such as
        `nets.MoCoGANGenerator`, with the same `content`, `motion` and `categories`.
      discriminator: discriminator network, `clips -> {'logits': ..., 'classes': ...}`: `nets.MoCoGANDiscriminator` or
        `nets.FramesDiscriminator`. Logits are an array, or arrays by critic, one of them `'video'`.
      frames: number of frames of the clips.
      content: number of latents of the content.
      motion: number of latents of the motion of one frame.
      categories: number of categories that the generator invents; 0 for none.
      num_classes: number of classes of the data's labels; None if unconditional.
      loss: adversarial loss; the paper's is `losses.non_saturating`.
      category_weight: weight of the error of the categories or classes, of both players.
      penalties: terms of the discriminator's loss, such as `gans.r1`, whose gradient is with respect to whole clips.
        The critics must then treat clips independently: no batch norm.
      terms: more terms of either player's loss.
      augment: augmentation of all clips that the discriminator sees; make its function with `augment.per_clip`.
      learning_rate: learning rate of both players' Adam, betas 0.5 and 0.999.
      decay: `(constant, falling)` in clips: the learning rate is constant, then falls to 0; see `linear_decay`. None
        for a constant one, as in the authors' code.
      weight_decay: factor of the parameters that is added to the gradient (L2), the hyperparameter `weight_decay`.
      lazy_interval: interval of a lazy penalty, for the discriminator's Adam; see `core.adam`.
      generator_optimizer: optimiser of the generator; None for that Adam.
      discriminator_optimizer: optimiser of the discriminator; None for that Adam.
      ema_halflife_images: half-life in clips of the averaged generator; None for no average.
      hooks: additional hooks.
      **options: arguments of `standard_game`.

    Returns:
      The game. Besides `sample` and `logits` (those of D_V), it has the functions
      `clip_latents`: `(content_key, motion_key, rows, columns, frames=None, truncation=None) -> (latents, label)`, the
      latents of a matrix of clips, with one content a row and one motion a column, row by row. The columns have the
      categories or classes in turn. `frames` may be more than the game was trained on.
      `clip_categories`: `(columns) -> [columns]`, the categories or classes of the columns; zeros without any.
      `matrix`: `(state, key, n) -> clips`, such a matrix, as square as n permits.

    Raises:
      InvalidInputError: for categories together with `num_classes`.

    References:
      Tulyakov et al., arXiv:1707.04993, 2017. In the authors' code, `--use_infogan` without labels trains no head: the
      generator alone gets the term. Their critics see different fakes, and frames of more videos than clips; here D_I
      sees one frame of each clip that D_V sees, and the critics are updated at once.
    """
    if categories and num_classes is not None:
        raise InvalidInputError(
            f"categories={categories}, num_classes={num_classes}: expected one of them: the labels of the data take "
            "the place of the categories"
        )
    clips = ClipPrior(content, categories, motion, frames)
    prior, own = clips.prior(), num_classes or categories
    sample = sampler(generator, prior, num_classes)

    def inputs(key: PRNGKey, batch: Batch, hparams: Mapping[str, Any]) -> tuple[Array, ...]:
        return prior.sample(key, batch["real"].shape[0]), *([] if num_classes is None else [batch["label"]])

    def latents(*arguments: Any, **rest: Any) -> tuple[Array, Array | None]:
        z, label = clips.matrix(*arguments, classes=own, **rest)
        return z, label if num_classes is not None else None

    given = {GENERATOR: generator_optimizer, DISCRIMINATOR: discriminator_optimizer}
    optimizers = {
        GENERATOR: generator_optimizer or _adam(learning_rate, weight_decay),
        DISCRIMINATOR: discriminator_optimizer or _adam(learning_rate, weight_decay, lazy_interval),
    }
    heads = _heads(clips, num_classes, category_weight)
    schedules = [*decay_hooks(decay, learning_rate, given)]
    schedules += [] if ema_halflife_images is None else [core.averaging(ema_halflife_images)]
    augmenting = [] if augment is None else [augment.hook(1)]
    return standard_game(
        generator, discriminator, (*gan_loss(loss), *heads, *penalties, *terms, *_observer(augment)), inputs=inputs,
        optimizers=optimizers, new_batch=sees_reals(loss), check=lambda batch: _check(batch, num_classes, frames),
        prior=prior, hooks=(*augmenting, *schedules, *hooks), num_classes=num_classes,
        functions={
            "sample": sample, "logits": _judge(discriminator, num_classes), "clip_latents": latents,
            "matrix": matrix(sample, latents), "clip_categories": lambda columns: jnp.arange(columns) % (own or 1),
        },
        **(({} if augment is None else {"preprocess": augment}) | options),
    )  # fmt: skip


def _adam(learning_rate: float, weight_decay: float, lazy_interval: int = 0) -> optax.GradientTransformation:
    decay = optax.inject_hyperparams(optax.add_decayed_weights)(weight_decay=weight_decay)
    return optax.chain(decay, core.adam(learning_rate, 0.5, lazy_interval=lazy_interval))


def _heads(clips: "ClipPrior", num_classes: int | None, weight: float) -> tuple[Term, ...]:
    """Returns the terms of the categories, or of the classes, of clips."""
    if num_classes is not None:
        return auxiliary_classifier(weight, weight, of_fakes=False)
    return information(clips.category, weight, outputs=named("classes")) if clips.categories else ()


def _judge(discriminator: Network, num_classes: int | None) -> Callable[..., Array]:
    """Creates the function `logits`: those of the critic of clips."""

    def judge(state: GANState, samples: Array, label: Array | None = None) -> Array:
        sampled_labels(label, core.init_key(state.key), len(samples), num_classes)
        player = state.players[DISCRIMINATOR]
        logits = LOGITS(discriminator.apply(player.params, player.model_state, samples, train=False)[0])
        video = logits["video"] if isinstance(logits, Mapping) else logits
        return jnp.mean(video.reshape(len(samples), -1), axis=1)

    return judge


def _observer(augment: Augmentation | None) -> tuple[Term, ...]:
    """Returns the term that an adaptive augmentation needs; it follows the logits of all critics."""
    return (augment.observer(LOGITS),) if augment is not None and augment.target is not None else ()


def _check(batch: Batch, num_classes: int | None, frames: int) -> None:
    check_labels(batch, num_classes)
    shape = batch["real"].shape[1:]
    if len(shape) != 4 or shape[0] != frames:
        raise InvalidInputError(
            f"'real' has examples {shape}: this game takes clips [t, h, w, c] of t = frames = {frames}; set "
            "clip_frames of the data source, or frames of the game"
        )


class ClipPrior:
    """The layout of a clip's latents, all of them standard normal: content, categories, motion.

    The category is the largest of as many latents, so that all categories are equally likely, and truncation and
    interpolation are those of any latents.
    """

    def __init__(self, content: int, categories: int, motion: int, frames: int) -> None:
        self.content, self.categories, self.motion, self.frames = content, categories, motion, frames
        if min(content, motion, frames) < 1 or categories < 0 or categories == 1:
            raise InvalidInputError(
                f"content={content}, motion={motion}, frames={frames}, categories={categories}: expected 1 or more, "
                "and 0 or 2 or more categories"
            )

    def prior(self, frames: int | None = None) -> Any:
        """Returns the prior of clips of some number of frames; by default of those trained on."""
        return core.normal(self.content + self.categories + self.motion * ((frames or self.frames) + 1))

    def category(self, inputs: tuple[PyTree, ...]) -> Array:
        """Returns the category of latents, the first of the generator's inputs."""
        return jnp.argmax(inputs[0][:, self.content : self.content + self.categories], axis=-1)

    def matrix(
        self,
        content_key: PRNGKey,
        motion_key: PRNGKey,
        rows: int,
        columns: int,
        frames: int | None = None,
        truncation: float | None = None,
        *,
        classes: int = 0,
    ) -> tuple[Array, Array | None]:
        """Returns the latents of a matrix of clips and their categories, which columns have in turn.

        Longer clips have the same motion as shorter ones of that key for as long as these last.
        """
        held = core.normal(self.content).sample(content_key, rows, truncation)
        length = frames or self.frames
        keys = jax.vmap(lambda step: jax.random.fold_in(motion_key, step))(jnp.arange(length + 1))
        draw = core.normal(self.motion).sample
        moving = jnp.stack([draw(key, columns, truncation) for key in keys], axis=1).reshape(columns, -1)
        numbers = jnp.arange(columns) % classes if classes else None
        parts = [jnp.repeat(held, columns, axis=0)]
        if self.categories:
            parts.append(jnp.tile(jax.nn.one_hot(numbers, self.categories), (rows, 1)))
        z = jnp.concatenate([*parts, jnp.tile(moving, (rows, 1))], axis=-1)
        return z, None if numbers is None else jnp.tile(numbers, rows)


def matrix(sample: Callable[..., PyTree], latents: Callable[..., tuple[Array, Array | None]]) -> Callable[..., PyTree]:
    """Creates the function `matrix` of a game of clips: `(state, key, n) -> clips`.

    Args:
      sample: function `sample` of the game.
      latents: its function `clip_latents`.

    Returns:
      The function; the number of rows is the largest divisor of n up to its square root.
    """

    def make(state: GANState, key: PRNGKey, n: int, **options: Any) -> PyTree:
        rows = next(r for r in range(math.isqrt(n), 0, -1) if n % r == 0)
        content_key, motion_key, sample_key = jax.random.split(key, 3)
        z, label = latents(content_key, motion_key, rows, n // rows, truncation=options.pop("truncation", None))
        return sample(state, sample_key, n, label, inputs=z)

    return make
