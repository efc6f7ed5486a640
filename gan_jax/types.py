"""The central types: what a network, a phase and a game are, and the error for bad input. No other logic lives here.

A GAN is a `Game`: how to make its state, the phases of one iteration, the hooks that run after it, and how to sample.
Everything is a pure function of arrays; `gan_jax.core.make_step` turns a game into one compiled train step.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree

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


class Out(NamedTuple):
    """What a loss reports beside its value.

    Attributes:
      metrics: scalars, logged as `phase/name`.
      model_state: the player's new model state; None keeps the one it has.
      aux: entries of `state.aux` to replace.
    """

    metrics: Metrics
    model_state: PyTree | None = None
    aux: dict[str, PyTree] = {}


LossFn = Callable[[PyTree, State, Batch, PRNGKey], tuple[Scalar, Out]]


class Phase(NamedTuple):
    """One kind of optimiser update in an iteration.

    Attributes:
      name: prefix of its metrics.
      player: whose parameters it changes; every other array of the state is read only.
      loss: `(params, state, batch, key) -> (scalar, Out)`, differentiated with respect to `params`.
      every: run in every k-th iteration only (lazy regularisation).
      repeat: updates in a row, each with a batch and a key of its own (several critic steps).
      reuse_batch: see the batch of the update before instead of drawing a new one.
    """

    name: str
    player: str
    loss: LossFn
    every: int = 1
    repeat: int = 1
    reuse_batch: bool = False


class Game(NamedTuple):
    """An adversarial (or any one- or two-player) game.

    Attributes:
      init: `(key, batch) -> GANState`.
      phases: the updates of one iteration, in order.
      after: hooks `(state) -> state` that run once at the end of an iteration.
      sample: `(state, key, n, label=None, *, inputs=None, truncation=None) -> samples`. `inputs` are what the
        generator maps: latents, drawn from `prior` if not given, or the source images of a translation game.
        `truncation` is that of the prior, or of a trick of the game's own.
      prior: where latents come from; None if the generator needs data (image translation).
      num_classes: the number of labels that the game is conditioned on; None if unconditional.
      logits: `(state, samples, label=None) -> [n]`, the discriminator's, for choosing among samples; None where it has
        none that tells one sample from another.
    """

    init: Callable[[PRNGKey, Batch], State]
    phases: tuple[Phase, ...]
    after: tuple[Callable[[State], State], ...]
    sample: Callable[..., PyTree]
    prior: Prior | None = None
    num_classes: int | None = None
    logits: Callable[..., Array] | None = None
