"""The central types of the library: networks, losses, phases and games, and the error for bad input.

A GAN is a `Game`: a function that makes its state, the phases of one iteration, the hooks that run after them, and
functions that sample. All of these are pure functions of arrays. `gan_jax.core.make_step` turns a game into one
compiled train step.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree

from gan_jax import deprecated

Batch = dict[str, Array]
Metrics = dict[str, Array]
PRNGKey = Key[Array, ""]
Scalar = Float[Array, ""]
State = Any  # a gan_jax.core.GANState; Any, because this module imports jax and jaxtyping alone
Spec = dict[str, jax.ShapeDtypeStruct]


class InvalidInputError(ValueError):
    """The error for a bad argument, configuration or data set, which the user can fix.

    The message names the argument, its value, what was expected and how to fix it. The commands print it without a
    traceback and exit with code 2. Every other exception is a bug and keeps its traceback.
    """


def check_same_shape(**arrays: Array) -> None:
    """Refuses arrays of different shapes, which would broadcast silently: `[b, 1]` and `[b]` give `[b, b]`."""
    shapes = {name: jnp.shape(array) for name, array in arrays.items()}
    if len(set(shapes.values())) > 1:
        described = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise InvalidInputError(f"shapes differ: {described}; expected one shape (reshape one of them)")


def axes_of(shape: tuple[int, ...]) -> str:
    """Says how the axes of an example, meant as an image, differ from `[h, w, c]`; empty if they seem right.

    Args:
      shape: shape of one example, without the batch axis.

    Returns:
      What the example looks like and how to fix it, for a message.
    """
    if len(shape) == 3:
        channels, height, width = shape
        if channels <= 4 < width and channels < height:
            return "channels first: move them last in the data source, with images.transpose(0, 2, 3, 1)"
        return ""
    known = {
        4: "a video [t, h, w, c]: take single frames, or a network and a preview for videos",
        2: "an image without an axis of channels: add one, with images[..., None]",
        1: "a vector: use a network and a preview for vectors",
    }
    return known.get(len(shape), f"an array of {len(shape)} axes")


def check_images(**arrays: Any) -> None:
    """Refuses arrays that are no images `[b, h, w, c]`, such as videos and images with their channels first."""
    for name, array in arrays.items():
        if found := axes_of(jnp.shape(array)[1:]):
            raise InvalidInputError(
                f"{name} {jnp.shape(array)}: expected images [b, h, w, c], but it looks like {found}"
            )


class Network(NamedTuple):
    """A neural network as two pure functions, independent of the framework that it was written in.

    Attributes:
      init: `(key, *example_inputs) -> (params, model_state)`, the initial values.
      apply: `(params, model_state, *inputs, train, key=None) -> (outputs, model_state)`, the forward pass.
        `model_state` holds batch statistics and spectral-norm vectors; it changes only if `train` is true.
    """

    init: Callable[..., tuple[PyTree, PyTree]]
    apply: Callable[..., tuple[PyTree, PyTree]]


class Prior(NamedTuple):
    """The distribution of the latents that a generator maps to samples.

    Attributes:
      sample: `(key, n, truncation=None) -> z` draws n latents; a smaller `truncation` draws them nearer to the mode.
      interpolate: `(z0, z1, t) -> z` leads from z0 at t=0 to z1 at t=1, through regions where the prior has its mass.
      kind: name of the function of `core` that makes this prior, for exported models; empty for any other prior.
    """

    sample: Callable[..., Array]
    interpolate: Callable[[Array, Array, Array], Array]
    kind: str = ""


class LossOutput(NamedTuple):
    """The outputs of a loss function beside the value of the loss.

    Attributes:
      metrics: scalars for the log, where they appear as `phase/name`.
      model_state: new model state of the player; None keeps the current one.
      aux: new values of entries of `state.aux`.
    """

    metrics: Metrics
    model_state: PyTree | None = None
    aux: dict[str, PyTree] = {}


LossFn = Callable[[PyTree, State, Batch, PRNGKey], tuple[Scalar, LossOutput]]


@dataclasses.dataclass(frozen=True)
class View:
    """One update as the terms of a loss see it. Properties that no term reads are neither computed nor traced.

    Attributes:
      batch: data of this update.
      real: real samples for the discriminator: a part of the batch, as a tree.
      inputs: inputs of the generator: latents, labels, source images.
      state: state of the game, with `aux`, `hparams` and `frozen`. The parameters of the player that is updated are
        those that the loss is differentiated with respect to.
      generator: `(*inputs) -> (outputs, model_state)`, with the parameters and the noise fixed.
      discriminator: `(x) -> (outputs, model_state)`, with the parameters, the labels, and the noise and augmentation of
        the reals fixed.
      fake_discriminator: the same, with the noise and augmentation of the fakes.
      draw: `(key) -> inputs`, draws other inputs for the same batch: new latents, the same labels.
      fakes: selects, from the generator's outputs, the samples that the discriminator sees; by default all outputs.
    """

    batch: Batch
    real: PyTree
    inputs: tuple[PyTree, ...]
    state: State
    generator: Callable[..., tuple[PyTree, PyTree]]
    discriminator: Callable[[PyTree], tuple[PyTree, PyTree]]
    fake_discriminator: Callable[[PyTree], tuple[PyTree, PyTree]]
    draw: Callable[[PRNGKey], tuple[PyTree, ...]]
    fakes: Callable[[PyTree], PyTree] = lambda made: made

    @functools.cached_property
    def generated(self) -> tuple[PyTree, PyTree]:
        """The generator's outputs, and its model state after this forward pass."""
        return self.generator(*self.inputs)

    @functools.cached_property
    def judged(self) -> tuple[PyTree, PyTree]:
        """The discriminator's outputs for the reals, and its model state after this forward pass."""
        return self.discriminator(self.real)

    @property
    def made(self) -> PyTree:
        """The complete outputs of the generator: samples, or a dict with samples, codes, means, ..."""
        return self.generated[0]

    @property
    def fake(self) -> PyTree:
        """The generator's samples, a tree with the structure of `real`."""
        return self.fakes(self.made)

    @property
    def real_out(self) -> PyTree:
        """The discriminator's outputs for the reals: logits, a list over scales, or a dict of logits and features."""
        return self.judged[0]

    @functools.cached_property
    def fake_out(self) -> PyTree:
        """The discriminator's outputs for the fakes."""
        return self.fake_discriminator(self.fake)[0]

    def generate(self, *inputs: PyTree) -> PyTree:
        """Generates samples from other inputs, with the noise that was used for `fake`."""
        return self.fakes(self.generator(*inputs)[0])

    def critic(self, x: PyTree) -> PyTree:
        """Applies the discriminator with the noise and augmentation of `real_out`.

        A penalty at the reals thereby shares the forward pass of `real_out`.
        """
        return self.discriminator(x)[0]

    def fake_critic(self, x: PyTree) -> PyTree:
        """Applies the discriminator as for `fake_out`, with its noise and augmentation."""
        return self.fake_discriminator(x)[0]


class Value(NamedTuple):
    """The value of a term.

    Attributes:
      loss: values of any shape; their mean enters the player's loss.
      metrics: more scalars for the log.
      aux: new values of entries of `state.aux`.
    """

    loss: Array
    metrics: Metrics = {}
    aux: Mapping[str, PyTree] = {}


class Term(NamedTuple):
    """One summand of a player's loss.

    Attributes:
      name: name of the term. Its value is logged as `phase/name`, and its weight is the hyperparameter
        `{name}_weight`. Terms of both players may share a name, and then share the weight.
      player: player whose loss the term is part of.
      weight: initial value of the factor of the term's mean loss. None for a constant 1, which is no hyperparameter;
        the term's value is then not logged separately.
      value: `(view, key) -> Value`, computes the term.
      aux: initial values of what the term remembers from update to update, by name in `state.aux`.
      hparams: hyperparameters of the term beside the weight, by name in `state.hparams`.
      every: k > 1 gives the term a phase of its own, which runs in every k-th iteration with k times the weight (lazy
        regularisation). Build the player's optimiser with `core.adam(..., lazy_interval=k)` in that case.
      ramp: `(begin, over)` in images: the term starts at `begin` images seen, and its weight grows linearly over the
        next `over` images.
    """

    name: str
    player: str
    weight: float | None
    value: Callable[[View, PRNGKey], Value]
    aux: Mapping[str, PyTree] = {}
    hparams: Mapping[str, float] = {}
    every: int = 1
    ramp: tuple[int, int] = (0, 0)


class Phase(NamedTuple):
    """One kind of optimiser update in an iteration.

    Attributes:
      name: prefix of the phase's metrics in the log.
      player: player whose parameters, optimiser state and model state are updated. Of the rest of the state only the
        `aux` entries that the loss returns change.
      loss: `(params, state, batch, key) -> (scalar, LossOutput)`, differentiated with respect to `params`.
      every: k runs the phase in every k-th iteration only (lazy regularisation).
      repeat: consecutive updates per iteration, each with a batch and a key of its own (several critic steps).
      reuse_batch: whether to use the batch of the previous update instead of drawing a new one.
      start: first iteration in which the phase runs.
    """

    name: str
    player: str
    loss: LossFn
    every: int = 1
    repeat: int = 1
    reuse_batch: bool = False
    start: int = 0


class Game(NamedTuple):
    """An adversarial (or any one- or two-player) game.

    Attributes:
      init: `(key, batch) -> GANState`, the state at step 0. It may use the shapes and dtypes of the batch, not its
        values: the state of a run does not depend on data at step 0, and training refuses an `init` that reads them.
      phases: updates of one iteration, in order.
      after: hooks `(state) -> state` that run once at the end of each iteration.
      functions: functions of a trained state, by name. The library uses these names:
        `sample`: `(state, key, n, label=None, *, inputs=None, truncation=None) -> samples`. `inputs` are the inputs of
        the generator: latents, by default drawn from `prior`, or the source images of a translation game. `truncation`
        is that of the prior, or of the game's own truncation trick.
        `logits`: `(state, samples, label=None) -> [n]`, the discriminator's logits, for selecting samples; absent if
        the discriminator does not judge samples one by one.
        `matrix`: `(state, key, n) -> samples`, a matrix of samples with one content a row and one motion a column.
        `clip_latents`: `(content_key, motion_key, rows, columns, frames=None, truncation=None) -> (latents, label)`,
        the inputs of such a matrix of clips, for `sample`.
        `translate`, `reconstruct`: `(state, key, inputs) -> outputs`, used by metrics of pairs and of reconstructions.
        `encode`, `decode`: `(state, key, inputs) -> codes` and `(state, key, codes) -> outputs`.
        Functions `(state, key, x)` and `(state, key, x, label)`, of any name, can be exported; so can `sample`, which
        then receives its latents, and its truncation as a traced scalar (1 for none).
      prior: distribution of the latents; None if the generator maps data (image translation).
      num_classes: number of classes that the game is conditioned on; None if it is unconditional.
      shown: names of hyperparameters that change during training, whose values are logged.
      map_classes: number of classes of the segmentation maps that the game translates, integers `'a'` of the batch;
        None if it translates images, or nothing.
    """

    init: Callable[[PRNGKey, Batch], State]
    phases: tuple[Phase, ...]
    after: tuple[Callable[[State], State], ...]
    functions: Mapping[str, Callable[..., PyTree]]
    prior: Prior | None = None
    num_classes: int | None = None
    shown: tuple[str, ...] = ()
    map_classes: int | None = None

    @property
    def sample(self) -> Callable[..., PyTree]:
        """The function `sample` of the game.

        Raises:
          InvalidInputError: if the game has no such function.
        """
        if "sample" not in self.functions:
            raise InvalidInputError(f"this game has no function 'sample': it has {', '.join(self.functions)}")
        return self.functions["sample"]


__getattr__ = deprecated.attributes(__name__, {"Out": ("LossOutput", lambda: LossOutput)})
