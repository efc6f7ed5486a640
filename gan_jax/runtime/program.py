"""An experiment compiled for a mesh."""

import dataclasses
import functools
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import PyTree

from gan_jax.core import (
    GANState,
    MetricAccumulator,
    batches_per_iteration,
    constrain_batch,
    empty_accumulator,
    make_scan,
)
from gan_jax.data import Feed, Source
from gan_jax.distributed import mesh as meshes
from gan_jax.runtime import summary
from gan_jax.runtime.experiment import Experiment
from gan_jax.types import Batch, Spec

Carried = dict[str, PyTree]  # see `Start`
_INPUT_AXIS = 2  # what the host sends is [iterations, draws, batch, ...]


@dataclasses.dataclass(frozen=True)
class Start:
    """What training carries from iteration to iteration, and checkpoints hold.

    Attributes:
      init: makes `{'state', 'window', 'rollbacks'}` at step 0: the game's state, sums of the metrics since the last
        report, and how often the run went back after a divergence.
      abstract: its shapes, dtypes and shardings.
    """

    init: Callable[[], Carried]
    abstract: Carried


@dataclasses.dataclass(frozen=True)
class Program:
    """The compiled train step of an experiment, with what goes into it.

    Attributes:
      run: `(state, window, data, inputs) -> (state, window)`, `length` iterations; the state is donated.
      data: the feed's constant arrays and the frozen networks, on the devices.
      stream: from a start step on, what each dispatch is sent, on the devices.
      mesh: over which devices it is compiled.
      length: iterations of one dispatch.
      compile_seconds: what compiling took.
      memory: XLA's account of the program's memory, where the platform gives one.
    """

    run: Callable[..., tuple[GANState, dict[str, jax.Array]]]
    data: PyTree
    stream: Callable[[int], Iterator[PyTree]]
    mesh: Mesh
    length: int
    compile_seconds: float
    memory: Any


def init_state(experiment: Experiment, spec: Spec, key: jax.Array) -> GANState:
    """The game's state at step 0, for data of a spec, without frozen networks."""
    size = experiment.batch_size
    return experiment.game.init(key, {name: jnp.zeros((size, *x.shape), x.dtype) for name, x in spec.items()})


def abstract_batches(experiment: Experiment, spec: Spec) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes and dtypes of what one iteration takes, `[draws, batch, ...]`."""
    draws, size = batches_per_iteration(experiment.game, experiment.update_rule), experiment.batch_size
    return {name: jax.ShapeDtypeStruct((draws, size, *x.shape), x.dtype) for name, x in spec.items()}


def start_accumulator(experiment: Experiment, state: GANState, spec: Spec) -> MetricAccumulator:
    """No metrics yet, of the names that the experiment's step gives."""
    whole = state.replace(frozen=experiment.frozen_networks.shapes())
    return empty_accumulator(experiment.step, whole, abstract_batches(experiment, spec))


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

    def init(key: jax.Array) -> Carried:
        state = init_state(experiment, spec, key)
        accumulator = start_accumulator(experiment, state, spec)
        return {"state": state, "window": accumulator, "rollbacks": jnp.int32(0)}

    return _start(init, experiment.seed, mesh)


def abstract_state(experiment: Experiment, spec: Spec, mesh: Mesh) -> GANState:
    """Shapes, dtypes and shardings of a game's state, of which no step is traced and no frozen network read."""
    return _start(lambda key: {"state": init_state(experiment, spec, key)}, experiment.seed, mesh).abstract["state"]


def _start(init: Callable[[jax.Array], Carried], seed: int, mesh: Mesh) -> Start:
    key = meshes.put_replicated(jax.random.key(seed), mesh)
    traced = jax.jit(init).trace(key)  # compiled only where it is wanted: a resume needs shapes alone
    shapes = traced.out_info
    constrained = jax.tree.unflatten(jax.tree.structure(shapes), meshes.constraints(traced.jaxpr.jaxpr))
    shardings = meshes.carried_shardings(shapes, constrained, mesh)
    abstract = jax.tree.map(
        lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), shapes, shardings
    )

    @functools.cache
    def compiled() -> jax.stages.Compiled:
        with jax.set_mesh(mesh):
            return traced.lower().compile()

    return Start(lambda: jax.device_put(compiled()(key), shardings), abstract)


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
    size, local_indices = experiment.batch_size, meshes.local_indices(mesh, experiment.batch_size)
    feed: Feed = source.feed(experiment.seed, batches_per_iteration(game, experiment.update_rule), size, local_indices)
    data = meshes.put_replicated(feed.data, mesh), experiment.frozen_networks.on(mesh)

    def whole(local: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        shape = (*local.shape[:_INPUT_AXIS], size, *local.shape[_INPUT_AXIS + 1 :])
        return jax.ShapeDtypeStruct(shape, local.dtype, sharding=meshes.along_batch(mesh, _INPUT_AXIS))

    inputs = jax.tree.map(whole, feed.input_spec(length))

    def fetch(data: PyTree, inputs: PyTree, step: jax.Array) -> Batch:
        return constrain_batch(feed.fetch(data, inputs, step), axis=1)

    carried = start.abstract["state"], start.abstract["window"]
    scan = jax.jit(
        make_scan(experiment.step, fetch, length),
        donate_argnums=0,
        out_shardings=jax.tree.map(lambda x: x.sharding, carried),
    )
    began = time.monotonic()
    compiled = scan.lower(*carried, data, inputs).compile()
    seconds = time.monotonic() - began

    def stream(step: int) -> Iterator[PyTree]:
        for sent in feed.stream(step, length):
            yield meshes.put_batch(sent, mesh, local_indices, size, _INPUT_AXIS)

    return Program(compiled, data, stream, mesh, length, seconds, compiled.memory_analysis())


def compile_program(
    experiment: Experiment, source: Source, mesh: Mesh, start: Start, step: int, log: Callable[[str], None]
) -> Program:
    """Compiles, and tells how long it took and what it will need."""
    log(summary.parameter_table(start.abstract["state"].players))
    platform = mesh.devices.flat[0].platform
    together = f" of {jax.process_count()} processes" if jax.process_count() > 1 else ""
    log(f"compiling for {mesh.size} {platform} device{'s' if mesh.size > 1 else ''}{together} ...")
    program = build_program(experiment, source, mesh, start, step)
    log(f"compiled in {program.compile_seconds:.1f} s; {program.length} iterations in one dispatch")
    if program.length < experiment.steps_per_dispatch:
        log(f"  (fewer than steps_per_dispatch={experiment.steps_per_dispatch}: {experiment.boundaries(step)})")
    log(summary.memory_line(start.abstract["state"], program.memory))
    return program
