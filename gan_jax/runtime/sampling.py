"""Sampling from a game, on the devices that hold its state."""

import functools
import itertools
import math
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, cast

import jax
import numpy as np
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import PyTree

from gan_jax.core import GANState
from gan_jax.core.sharding import constrain_batch, gather
from gan_jax.eval import SAMPLES
from gan_jax.runtime import frozen, memory
from gan_jax.runtime.conditions import INPUTS, LABEL
from gan_jax.runtime.experiment import Experiment, Preview
from gan_jax.runtime.preview import grid_columns
from gan_jax.types import Batch, InvalidInputError

_MANY = 4096  # samples of one draw from which on their memory is checked first
CHUNK = 256  # samples that `stream_samples` draws from one key


class Compiled:
    """A compiled function of a game. It receives only the frozen networks that it uses; the others are not read."""

    def __init__(self, function: Callable[..., PyTree], meshed: bool) -> None:
        """Wraps the function; it is compiled on the first call.

        Args:
          function: `(state, key, *arguments) -> outputs`.
          meshed: whether a mesh is in force; then the outputs are replicated on all of its devices.
        """

        def run(state: GANState, key: jax.Array, *arguments: PyTree) -> PyTree:
            # Arrays that are split over `fsdp` are gathered inside the compiled program.
            whole = {name: gather(getattr(state, name)) for name in ("players", "ema", "frozen")}
            return function(state.replace(**whole), jax.random.wrap_key_data(key), *arguments)

        self._function, self._jitted = function, jax.jit(run, out_shardings=PartitionSpec() if meshed else None)
        self._used: dict[Any, frozenset[str]] = {}  # names of frozen networks, by the structure of the arguments

    def __call__(self, experiment: Experiment, state: GANState, key: jax.Array, *arguments: PyTree) -> PyTree:
        """Starts the computation, and returns the outputs as arrays that the devices may still be computing."""
        return self._jitted(*self.arguments(experiment, state, key, *arguments))

    def arguments(self, experiment: Experiment, state: GANState, key: jax.Array, *arguments: PyTree) -> tuple[Any, ...]:
        """Returns the arguments of the compiled program: the state with the frozen networks used, the key, the rest."""
        # As a numpy array the key is on no device, so that it suits any mesh, also one of several processes.
        words = cast(jax.Array, np.asarray(jax.random.key_data(key)))
        used = self._networks(experiment, state, words, *arguments)
        taken = experiment.frozen_networks.on(jax.sharding.get_mesh(), used)
        return state.replace(frozen=taken), words, *arguments

    def _networks(self, experiment: Experiment, state: GANState, words: Any, *arguments: PyTree) -> Collection[str]:
        """Returns the names of the frozen networks that the function uses."""
        networks, kind = experiment.frozen_networks, jax.tree.structure(arguments)
        if networks and kind not in self._used:
            # Not `run`, which gathers all networks.
            call = lambda asked, state, words, *rest: self._function(  # noqa: E731
                state.replace(frozen=asked), jax.random.wrap_key_data(words), *rest
            )
            self._used[kind] = frozen.used(networks, call, state.replace(frozen={}), words, *arguments)
        return self._used.get(kind, ())

    def lower(self, experiment: Experiment, state: GANState, mesh: Mesh, *arguments: PyTree) -> jax.stages.Lowered:
        """Lowers the function from shapes alone; `state` is that of `program.abstract_state` or of a `Start`."""
        words = jax.eval_shape(lambda: jax.random.key_data(jax.random.key(0)))
        shapes = experiment.frozen_networks.shapes(self._networks(experiment, state, words, *arguments), mesh)
        return self._jitted.lower(state.replace(frozen=shapes), words, *arguments)


@functools.lru_cache(maxsize=8)
def _sampling(function: Callable[..., PyTree], n: int, truncation: float | None, meshed: bool) -> Compiled:
    def sample(state: GANState, key: jax.Array, options: Mapping[str, PyTree]) -> PyTree:
        made = function(state, key, n=n, truncation=truncation, **options)
        # Where n divides evenly, each device makes its own part of the samples.
        return constrain_batch(made) if meshed and n % jax.sharding.get_abstract_mesh().size == 0 else made

    return Compiled(sample, meshed)


@functools.lru_cache(maxsize=8)
def _mapping(function: Callable[..., PyTree], by_name: bool, meshed: bool) -> Compiled:
    def run(state: GANState, key: jax.Array, examples: Batch) -> PyTree:
        rest = {"label": examples[LABEL]} if LABEL in examples else {}
        return function(state, key, examples[INPUTS], **rest) if by_name else function(state, key, examples)

    return Compiled(run, meshed)


def begin_samples(
    experiment: Experiment,
    state: GANState,
    key: jax.Array,
    n: int,
    *,
    label: np.ndarray | None = None,
    inputs: PyTree = None,
    truncation: float | None = None,
) -> PyTree:
    """Starts to draw `n` samples, of the classes in turn if the game is conditional. All processes must call it.

    It returns at once, while the devices compute; `sample_grid` waits for the samples.

    Args:
      experiment: experiment whose game is sampled.
      state: state to sample from.
      key: key that fixes the latents: the same key gives the same latents in every call.
      n: number of samples.
      label: labels `[n]`, or one label for all; by default the classes in turn, or the labels of default inputs.
      inputs: inputs of the generator, in place of latents drawn from the prior. For a game without a prior, by default
        those of the first examples of `conditions`.
      truncation: truncation of the prior.

    Returns:
      Samples `[n, ...]`, replicated on all devices.

    Raises:
      InvalidInputError: for a game that makes no samples, or a label that it does not have.
    """
    game = experiment.game
    if inputs is None and game.prior is None:
        examples = experiment.examples.read(0, n)
        inputs, label = examples[INPUTS], examples.get(LABEL, label) if label is None else label
    if n > _MANY:
        _check_memory(experiment, state, key, n, inputs, truncation)
    if label is None and game.num_classes is not None:
        label = np.arange(n) % game.num_classes
    if label is not None and game.num_classes is not None:
        wrong = sorted({int(x) for x in np.ravel(label) if not 0 <= x < game.num_classes})
        if wrong:
            raise InvalidInputError(f"label={wrong}: this game has classes 0 to {game.num_classes - 1}")
    options = {name: value for name, value in (("label", label), ("inputs", inputs)) if value is not None}
    sample = _sampling(game.sample, n, truncation, not jax.sharding.get_abstract_mesh().empty)
    return sample(experiment, state, key, options)


def lower_samples(experiment: Experiment, state: GANState, mesh: Mesh) -> jax.stages.Lowered:
    """Lowers the program that makes a chunk of `stream_samples` from shapes alone. Call it with the mesh in force.

    Args:
      experiment: experiment whose game is sampled.
      state: shapes, dtypes and shardings of its state.
      mesh: devices to compile for, which need not be there.

    Returns:
      The program before compilation.
    """
    game, options = experiment.game, dict[str, Any]()
    if game.prior is None:
        examples = experiment.examples.read(0, CHUNK)
        options = {"inputs": examples[INPUTS]} | ({"label": examples[LABEL]} if LABEL in examples else {})
    elif game.num_classes is not None:
        options["label"] = np.arange(CHUNK) % game.num_classes
    return _sampling(game.sample, CHUNK, None, True).lower(experiment, state, mesh, options)


def _check_memory(
    experiment: Experiment, state: GANState, key: jax.Array, n: int, inputs: PyTree, truncation: float | None
) -> None:
    """Raises `InvalidInputError` if `n` samples would not fit into memory, before anything is allocated."""
    options = {} if inputs is None else {"inputs": inputs}
    if experiment.game.num_classes is not None:
        options["label"] = jax.ShapeDtypeStruct((n,), np.int32)
    whole = state.replace(frozen=experiment.frozen_networks.shapes())
    draw = functools.partial(experiment.game.sample, n=n, truncation=truncation)
    made = jax.eval_shape(draw, whole, key, **options)
    memory.check(
        {"samples": 2 * memory.tree_bytes(made)},  # on the device, and on the host
        jax.local_devices()[0],
        f"{n:,} samples",
        "draw fewer at a time, with other seeds",
    )


def sample_grid(experiment: Experiment, state: GANState, key: jax.Array, n: int, **options: Any) -> np.ndarray:
    """Draws the samples of `begin_samples`, with its options, and returns them on the host."""
    return np.asarray(begin_samples(experiment, state, key, n, **options))


def begin_outputs(
    experiment: Experiment, function: str | Preview, state: GANState, key: jax.Array, examples: Mapping[str, np.ndarray]
) -> PyTree:
    """Starts to apply a function of the game, or a preview, to examples. All processes must call it.

    Args:
      experiment: experiment that has the game.
      function: a name in `game.functions`, such as `reconstruct`, which receives the inputs, and the labels if there
        are any; or a preview, which receives the examples as they are.
      state: state of the game.
      key: key of what the function draws.
      examples: examples from `Conditions.read`.

    Returns:
      The outputs, replicated on all devices, which may still be computing them.
    """
    named = experiment.game.functions[function] if isinstance(function, str) else function
    run = _mapping(named, isinstance(function, str), not jax.sharding.get_abstract_mesh().empty)
    return run(experiment, state, key, dict(examples))


def begin_pictures(experiment: Experiment, state: GANState, key: jax.Array) -> dict[str, tuple[PyTree, int]]:
    """Starts the pictures that a run saves: samples, under the name '', and the experiment's previews.

    Args:
      experiment: experiment that has the game.
      state: state of the game.
      key: key that fixes the latents.

    Returns:
      By name, the images and how many of them belong in a row. The images are replicated on all devices, which may
      still be computing them.
    """
    count, shown = experiment.sample_count, dict[str, tuple[PyTree, int]]()
    if experiment.has_samples:
        shown[""] = begin_samples(experiment, state, key, count), grid_columns(count, experiment.game.num_classes)
    for name, preview in experiment.previews.items():
        examples = experiment.examples_of(getattr(preview, "function", ""))
        images = begin_outputs(experiment, preview, state, key, examples.read(0, count))
        shown[name] = images, math.isqrt(count)
    return shown


def stream_samples(
    experiment: Experiment, state: GANState, seed: int, function: str = "sample", *, truncation: float | None = None
) -> Iterator[np.ndarray]:
    """Streams outputs for metrics to the host, in chunks of 256. All processes must call it.

    Samples from a prior are endless. The first n of them depend on state, seed and truncation alone, not on how many
    are taken. A conditional game gives its classes in turn. A function that maps inputs gives one output per input, in
    order, and ends after the last one. The devices compute the next chunk while the caller uses the current one.

    Args:
      experiment: experiment whose game is sampled.
      state: state to sample from.
      seed: seed of the latents.
      function: name of the game's function.
      truncation: truncation of the prior.

    Yields:
      Outputs `[256, ...]`; the last chunk of mapped inputs may be shorter.

    Raises:
      InvalidInputError: for a function that the game does not have, or that has nothing to map.
    """
    game = experiment.game
    _, conditions = experiment.outputs(function, SAMPLES)

    def begin(index: int) -> PyTree:
        key = jax.random.fold_in(jax.random.key(seed), index)
        if conditions is None and function != "sample":
            draw = _sampling(game.functions[function], CHUNK, truncation, not jax.sharding.get_abstract_mesh().empty)
            return draw(experiment, state, key, {})
        if conditions is None:
            label = None if game.num_classes is None else (index * CHUNK + np.arange(CHUNK)) % game.num_classes
            return begin_samples(experiment, state, key, CHUNK, label=label, truncation=truncation)
        # The last chunk is filled up, so that all chunks have one shape and compile once; the surplus is cut off below.
        examples = conditions.read(index * CHUNK, (index + 1) * CHUNK)
        if function != "sample":
            return begin_outputs(experiment, function, state, key, examples)
        label, inputs = examples.get(LABEL), examples[INPUTS]
        return begin_samples(experiment, state, key, CHUNK, label=label, inputs=inputs, truncation=truncation)

    lengths = itertools.repeat(CHUNK) if conditions is None else _chunks(len(conditions))
    waiting: list[tuple[PyTree, int]] = []
    for index, length in enumerate(lengths):
        waiting.append((begin(index), length))
        if len(waiting) > 1:
            made, kept = waiting.pop(0)
            yield np.asarray(made)[:kept]
    for made, kept in waiting:
        yield np.asarray(made)[:kept]


def _chunks(count: int) -> Iterator[int]:
    """Yields the lengths of the chunks that `count` examples are cut into."""
    for low in range(0, count, CHUNK):
        yield min(CHUNK, count - low)
