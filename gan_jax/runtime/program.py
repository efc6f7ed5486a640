"""An experiment compiled for a mesh."""

import dataclasses
import functools
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import PyTree

from gan_jax.core import GANState, constrain_batch, empty_window, make_scan, num_draws
from gan_jax.data import Feed, Source
from gan_jax.runtime import describe
from gan_jax.runtime import mesh as meshes
from gan_jax.runtime.experiment import Experiment
from gan_jax.types import Batch, InvalidInputError, Spec

_INPUT_AXIS = 2  # what the host sends is [iterations, draws, batch, ...]


@dataclasses.dataclass(frozen=True)
class Start:
    """What training carries from iteration to iteration, and checkpoints hold.

    Attributes:
      init: makes `{'state', 'window'}` at step 0: the game's state, and sums of the metrics since the last report.
      abstract: its shapes, dtypes and shardings.
    """

    init: Callable[[], dict[str, PyTree]]
    abstract: dict[str, PyTree]


@dataclasses.dataclass(frozen=True)
class Program:
    """The compiled train step of an experiment, with what goes into it.

    Attributes:
      run: `(state, window, data, inputs) -> (state, window)`, `length` iterations; the state is donated.
      data: the feed's constant arrays, on the devices.
      stream: from a start step on, what each dispatch is sent, on the devices.
      length: iterations of one dispatch.
      compile_seconds: what compiling took.
      memory: XLA's account of the program's memory, where the platform gives one.
    """

    run: Callable[..., tuple[GANState, dict[str, jax.Array]]]
    data: PyTree
    stream: Callable[[int], Iterator[PyTree]]
    length: int
    compile_seconds: float
    memory: Any


def build_start(experiment: Experiment, spec: Spec, mesh: Mesh) -> Start:
    """How to begin an experiment; call it with `jax.set_mesh(mesh)` in force.

    Args:
      experiment: what to run.
      spec: of one example of its data.
      mesh: over which devices.

    Returns:
      The start.
    """
    meshes.check_batch_size(experiment.batch_size, mesh)
    game, rule, size = experiment.game, experiment.update_rule, experiment.batch_size
    draws = num_draws(game, rule)
    batches = {name: jax.ShapeDtypeStruct((draws, size, *x.shape), x.dtype) for name, x in spec.items()}

    def init(key: jax.Array) -> dict[str, PyTree]:
        state = game.init(key, {name: jnp.zeros((size, *x.shape), x.dtype) for name, x in spec.items()})
        return {"state": state, "window": empty_window(game, state, batches, rule)}

    key = jax.random.key(experiment.seed)
    compiled = jax.jit(init).lower(key).compile()
    shardings = meshes.carried_shardings(compiled.output_shardings, mesh)
    abstract = jax.tree.map(
        lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
        jax.eval_shape(init, key),
        shardings,
    )
    return Start(lambda: jax.device_put(compiled(key), shardings), abstract)


def build_program(experiment: Experiment, source: Source, mesh: Mesh, start: Start, step: int = 0) -> Program:
    """Compiles an experiment; call it with `jax.set_mesh(mesh)` in force.

    Args:
      experiment: what to run.
      source: its data.
      mesh: over which devices.
      start: from `build_start`.
      step: the iteration to continue from; see `Experiment.dispatch_length`.

    Returns:
      The program.
    """
    game, length = experiment.game, experiment.dispatch_length(step)
    rule = experiment.update_rule
    feed: Feed = source.feed(
        experiment.seed, num_draws(game, rule), experiment.batch_size, range(experiment.batch_size)
    )
    replicated, split = meshes.replicated(mesh), meshes.along_batch(mesh, _INPUT_AXIS)
    data = jax.device_put(feed.data, replicated)
    inputs = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=split), feed.sent(length))

    def fetch(data: PyTree, inputs: PyTree, step: jax.Array) -> Batch:
        return constrain_batch(feed.fetch(data, inputs, step), axis=1)

    carried = start.abstract["state"], start.abstract["window"]
    scan = jax.jit(
        make_scan(game, fetch, length, rule),
        donate_argnums=0,
        out_shardings=jax.tree.map(lambda x: x.sharding, carried),
    )
    began = time.monotonic()
    compiled = scan.lower(*carried, data, inputs).compile()
    seconds = time.monotonic() - began

    def stream(step: int) -> Iterator[PyTree]:
        for sent in feed.stream(step, length):
            yield jax.device_put(sent, split)

    return Program(compiled, data, stream, length, seconds, compiled.memory_analysis())


def compile_program(
    experiment: Experiment, source: Source, mesh: Mesh, start: Start, step: int, say: Callable[[str], None]
) -> Program:
    """Compiles, and tells how long it took and what it will need."""
    say(describe.parameter_table(start.abstract["state"].players))
    platform = mesh.devices.flat[0].platform
    say(f"compiling for {mesh.size} {platform} device{'s' if mesh.size > 1 else ''} ...")
    program = build_program(experiment, source, mesh, start, step)
    say(f"compiled in {program.compile_seconds:.1f} s; {program.length} iterations in one dispatch")
    if program.length < experiment.steps_per_dispatch:
        say(f"  (fewer than steps_per_dispatch={experiment.steps_per_dispatch}: {experiment.boundaries(step)})")
    say(describe.memory_line(start.abstract["state"], program.memory))
    return program


@functools.lru_cache(maxsize=8)
def _compiled_sampler(game: Any, n: int, truncation: float | None) -> Callable[..., PyTree]:
    return jax.jit(functools.partial(game.sample, n=n, truncation=truncation))


def sample_grid(
    experiment: Experiment,
    state: GANState,
    key: jax.Array,
    n: int,
    *,
    label: np.ndarray | None = None,
    inputs: PyTree = None,
    truncation: float | None = None,
) -> np.ndarray:
    """Samples for people to look at: the classes in turn if the game is conditional, else `n` free draws.

    Args:
      experiment: whose game.
      state: to sample from.
      key: fixes the latents: the same key gives the same latents in every call.
      n: number of samples.
      label: in place of the classes in turn, `[n]` or one label for all.
      inputs: in place of latents drawn from the prior.
      truncation: see the prior.

    Returns:
      Samples `[n, ...]`.

    Raises:
      InvalidInputError: for a label that the game does not have.
    """
    game = experiment.game
    if label is None and game.num_classes is not None:
        label = np.arange(n) % game.num_classes
    if label is not None and game.num_classes is not None:
        wrong = sorted({int(x) for x in np.ravel(label) if not 0 <= x < game.num_classes})
        if wrong:
            raise InvalidInputError(f"label={wrong}: this game has classes 0 to {game.num_classes - 1}")
    if inputs is None and game.prior is None and experiment.sample_inputs is not None:
        inputs = experiment.sample_inputs()
    options = {name: value for name, value in (("label", label), ("inputs", inputs)) if value is not None}
    return np.asarray(_compiled_sampler(game, n, truncation)(state, key, **options))
