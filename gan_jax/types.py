"""The central types: what a network, a phase and a game are, and the error for bad input. No other logic lives here.

A GAN is a `Game`: how to make its state, the phases of one iteration, the hooks that run after it, and how to sample.
Everything is a pure function of arrays; `gan_jax.core.make_step` turns a game into one compiled train step.
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
State = Any  # a gan_jax.core.GANState; spelled Any so that this module imports jax alone
Spec = dict[str, jax.ShapeDtypeStruct]


class InvalidInputError(ValueError):
    """A bad argument, configuration or data set: something that the person at the keyboard can mend.

    The message names the argument, its value, what was expected and how to fix it. The commands in `experiments/`
    print it without a traceback and exit with code 2; every other exception is a bug and keeps its traceback.
    """


def check_same_shape(**arrays: Array) -> None:
    """Refuses arrays of different shapes, which would broadcast in silence: `[b, 1]` beside `[b]` makes `[b, b]`."""
    shapes = {name: jnp.shape(array) for name, array in arrays.items()}
    if len(set(shapes.values())) > 1:
        described = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise InvalidInputError(f"shapes differ: {described}; expected one shape (reshape one of them)")


class Network(NamedTuple):
    """A neural network as two pure functions, whatever framework it was written in.

    Attributes:
      init: `(key, *example_inputs) -> (params, model_state)`.
      apply: `(params, model_state, *inputs, train, key=None) -> (outputs, model_state)`; batch statistics and
        spectral-norm vectors are in `model_state` and come back changed only where `train` is true.
    """

    init: Callable[..., tuple[PyTree, PyTree]]
    apply: Callable[..., tuple[PyTree, PyTree]]


class Prior(NamedTuple):
    """The distribution of the latents that a generator maps to samples.

    Attributes:
      sample: `(key, n, truncation=None) -> z`, n latents, nearer to the mode the smaller `truncation` is.
      interpolate: `(z0, z1, t) -> z`, from z0 at t=0 to z1 at t=1, staying where the prior has its mass.
    """

    sample: Callable[..., Array]
    interpolate: Callable[[Array, Array, Array], Array]


class LossOutput(NamedTuple):
    """What a loss reports beside its value.

    Attributes:
      metrics: scalars, logged as `phase/name`.
      model_state: the player's new model state; None keeps the one it has.
      aux: entries of `state.aux` to replace.
    """

    metrics: Metrics
    model_state: PyTree | None = None
    aux: dict[str, PyTree] = {}


LossFn = Callable[[PyTree, State, Batch, PRNGKey], tuple[Scalar, LossOutput]]


@dataclasses.dataclass(frozen=True)
class View:
    """What the terms of a loss see of one update. What no term asks for is not computed, nor traced.

    Attributes:
      batch: the data of this update.
      real: the part of the batch that the discriminator takes for real, a tree.
      inputs: what the generator maps: latents, labels, source images.
      state: the state of the game, in which the player that is updated has the parameters that are differentiated;
        `state.aux`, `state.hparams` and `state.frozen` are there.
      generator: `(*inputs) -> (outputs, model state)`, with parameters and noise bound.
      discriminator: `(x) -> (outputs, model state)`, with parameters, labels and the augmentation of the reals bound.
      fake_discriminator: the same with the augmentation of the fakes.
      draw: `(key) -> inputs`, other inputs of the same batch: new latents, the same labels.
      fakes: takes what the discriminator sees from the generator's outputs; all of them unless told otherwise.
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
        """The generator's outputs, and its model state after them."""
        return self.generator(*self.inputs)

    @functools.cached_property
    def judged(self) -> tuple[PyTree, PyTree]:
        """What the discriminator says of the reals, and its model state after that."""
        return self.discriminator(self.real)

    @property
    def made(self) -> PyTree:
        """All that the generator returns: samples, or a dict with samples, codes, means, ..."""
        return self.generated[0]

    @property
    def fake(self) -> PyTree:
        """Samples of the generator, a tree like `real`."""
        return self.fakes(self.made)

    @property
    def real_out(self) -> PyTree:
        """What the discriminator says of the reals: logits, lists of scales, a dict of logits and features."""
        return self.judged[0]

    @functools.cached_property
    def fake_out(self) -> PyTree:
        """What the discriminator says of the fakes."""
        return self.fake_discriminator(self.fake)[0]

    def generate(self, *inputs: PyTree) -> PyTree:
        """Samples of other inputs, with the noise of `fake`."""
        return self.fakes(self.generator(*inputs)[0])

    def critic(self, x: PyTree) -> PyTree:
        """The discriminator, as it was when it made `real_out`: a penalty at the reals shares that forward pass."""
        return self.discriminator(x)[0]

    def fake_critic(self, x: PyTree) -> PyTree:
        """The discriminator, as it was when it made `fake_out`."""
        return self.fake_discriminator(x)[0]


class Value(NamedTuple):
    """What a term finds.

    Attributes:
      loss: of any shape; its mean counts.
      metrics: more scalars for the log.
      aux: entries of `state.aux` to replace.
    """

    loss: Array
    metrics: Metrics = {}
    aux: Mapping[str, PyTree] = {}


class Term(NamedTuple):
    """One summand of a player's loss.

    Attributes:
      name: of its value in the log, which is `phase/name`; its weight is the hyperparameter `{name}_weight`. Terms of
        both players may share a name, and with it the weight.
      player: whose loss it is a part of.
      weight: what the mean of its loss is multiplied by, at the start. None for a constant 1, which is no
        hyperparameter; its value is not logged by itself then.
      value: `(view, key) -> Value`.
      aux: what it remembers from update to update, by its names in `state.aux`, at the start.
      hparams: hyperparameters of its own beside the weight, by their names in `state.hparams`.
      every: k > 1 gives it a phase of its own in every k-th iteration, times k; build the player's optimiser with
        `core.adam(..., lazy_interval=k)` then.
      ramp: images seen at which it begins, and over how many more it grows to its whole weight.
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
      name: prefix of its metrics.
      player: whose parameters it changes; every other array of the state is read only.
      loss: `(params, state, batch, key) -> (scalar, Out)`, differentiated with respect to `params`.
      every: run in every k-th iteration only (lazy regularisation).
      repeat: updates in a row, each with a batch and a key of its own (several critic steps).
      reuse_batch: see the batch of the update before instead of drawing a new one.
      start: the iteration from which on it runs.
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
      init: `(key, batch) -> GANState`.
      phases: the updates of one iteration, in order.
      after: hooks `(state) -> state` that run once at the end of an iteration.
      functions: what can be asked of a trained state, by name. Those that others know by name:
        `sample`: `(state, key, n, label=None, *, inputs=None, truncation=None) -> samples`. `inputs` are what the
        generator maps: latents, drawn from `prior` if not given, or the source images of a translation game.
        `truncation` is that of the prior, or of a trick of the game's own.
        `logits`: `(state, samples, label=None) -> [n]`, the discriminator's, for choosing among samples; absent where
        it has none that tells one sample from another.
        `translate`, `reconstruct`: `(state, key, inputs) -> outputs`, what metrics of pairs and of reconstructions see.
      prior: where latents come from; None if the generator needs data (image translation).
      num_classes: the number of labels that the game is conditioned on; None if unconditional.
      shown: hyperparameters whose values the log has, since they move by themselves.
    """

    init: Callable[[PRNGKey, Batch], State]
    phases: tuple[Phase, ...]
    after: tuple[Callable[[State], State], ...]
    functions: Mapping[str, Callable[..., PyTree]]
    prior: Prior | None = None
    num_classes: int | None = None
    shown: tuple[str, ...] = ()

    @property
    def sample(self) -> Callable[..., PyTree]:
        """The function of that name.

        Raises:
          InvalidInputError: if the game has none.
        """
        if "sample" not in self.functions:
            raise InvalidInputError(f"this game has no function 'sample': it has {', '.join(self.functions)}")
        return self.functions["sample"]


__getattr__ = deprecated.attributes(__name__, {"Out": ("LossOutput", lambda: LossOutput)})
