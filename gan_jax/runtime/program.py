"""Compilation of an experiment for a mesh."""

import dataclasses
import functools
import math
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding
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
from gan_jax.runtime import batches, memory, summary
from gan_jax.runtime.experiment import Experiment
from gan_jax.types import Batch, Spec

Carried = dict[str, PyTree]  # see `Start`
_INPUT_AXIS = 2  # batch axis of what the host sends: [iterations, draws, batch, ...]


@dataclasses.dataclass(frozen=True)
class Start:
    """The values that training carries from iteration to iteration, and that checkpoints hold.

    Attributes:
      init: returns `{'state', 'window', 'rollbacks'}` at step 0: the game's state, the accumulator of metrics since
        the last report, and the number of rollbacks after a divergence.
      abstract: shapes, dtypes and shardings of what `init` returns.
    """

    init: Callable[[], Carried]
    abstract: Carried


@dataclasses.dataclass(frozen=True)
class Program:
    """The compiled training program of an experiment, and its inputs.

    Attributes:
      run: `(state, window, data, inputs) -> (state, window)`, runs `length` iterations; the state is donated.
      data: constant arrays of the feed, and the frozen networks, on the devices.
      stream: `(start step) -> iterator` over the inputs of each dispatch, on the devices.
      mesh: mesh that the program is compiled for.
      length: iterations per dispatch.
      compile_seconds: duration of the compilation, in seconds.
      memory: XLA's analysis of the program's memory, where the platform gives one.
    """

    run: Callable[..., tuple[GANState, dict[str, jax.Array]]]
    data: PyTree
    stream: Callable[[int], Iterator[PyTree]]
    mesh: Mesh
    length: int
    compile_seconds: float
    memory: Any


def init_state(experiment: Experiment, spec: Spec, key: jax.Array) -> GANState:
    """Initialises the game's state at step 0, for data with this spec; it has no frozen networks.

    Refuses a game whose `init` reads values of the batch, or an array that the data lacks; see `batches.init`.
    """
    return batches.init(experiment.game.init, key, _zeros(experiment, spec))


def _zeros(experiment: Experiment, spec: Spec) -> Batch:
    return {name: jnp.zeros((experiment.batch_size, *x.shape), x.dtype) for name, x in spec.items()}


def abstract_batches(experiment: Experiment, spec: Spec) -> dict[str, jax.ShapeDtypeStruct]:
    """Returns shapes and dtypes of the batches of one iteration, `[draws, batch, ...]`."""
    draws, size = batches_per_iteration(experiment.game, experiment.update_rule), experiment.batch_size
    return {name: jax.ShapeDtypeStruct((draws, size, *x.shape), x.dtype) for name, x in spec.items()}


def start_accumulator(experiment: Experiment, state: GANState, spec: Spec) -> MetricAccumulator:
    """Creates an empty accumulator for the metrics that the experiment's step reports. Call it in a traced function.

    Refuses data of which the game lacks or ignores an array.
    """
    whole, shapes = state.replace(frozen=experiment.frozen_networks.shapes()), abstract_batches(experiment, spec)
    # Zeros, not shapes: they belong to the current mesh, and the programs of the run then share the trace.
    batches.trace_step(experiment.step, whole, jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes))
    return empty_accumulator(experiment.step, whole, shapes)


def trace_step(experiment: Experiment, state: GANState, spec: Spec) -> jax.stages.Traced:
    """Traces one iteration from a state of `init_state`; refuses data of which the game lacks or ignores an array."""
    whole = state.replace(frozen=experiment.frozen_networks.shapes())
    shapes = cast(Batch, abstract_batches(experiment, spec))  # which a trace takes like arrays
    return batches.trace_step(experiment.step, whole, shapes)


def logged_names(experiment: Experiment, spec: Spec) -> list[str]:
    """Returns the names of the metrics that the experiment's step reports, without compiling anything."""

    def window(key: jax.Array) -> MetricAccumulator:
        return start_accumulator(experiment, init_state(experiment, spec, key), spec)

    return list(jax.eval_shape(window, jax.random.key(0)))


def build_start(experiment: Experiment, spec: Spec, mesh: Mesh) -> Start:
    """Prepares the start of an experiment. Call it with `jax.set_mesh(mesh)` in force.

    Args:
      experiment: experiment to run.
      spec: shapes and dtypes of one example of its data.
      mesh: devices to run on.

    Returns:
      The start.
    """
    meshes.check_batch_size(experiment.batch_size, mesh)

    def init(key: jax.Array) -> Carried:
        state = init_state(experiment, spec, key)
        accumulator = start_accumulator(experiment, state, spec)
        return {"state": state, "window": accumulator, "rollbacks": jnp.int32(0)}

    start = _start(init, experiment.seed, mesh)
    parts = {
        "state": memory.tree_bytes(start.abstract["state"]),
        "batches": memory.tree_bytes(abstract_batches(experiment, spec)) // mesh.size,
    }
    check_memory(experiment, start, parts, mesh)
    return start


def check_memory(experiment: Experiment, start: Start, parts: Mapping[str, int], mesh: Mesh) -> None:
    """Raises `InvalidInputError` if parts of the program, in bytes per device, do not fit into a device's memory."""
    players = [player.params for player in start.abstract["state"].players.values()]
    sizes = f"{sum(math.prod(x.shape) for x in jax.tree.leaves(players)):,} parameters"
    memory.check(
        parts,
        mesh.local_devices[0],
        f"batch_size={experiment.batch_size} and networks of {sizes}",
        "lower batch_size or the sizes of the networks; fsdp, microbatches and remat save memory too",
    )


def abstract_state(experiment: Experiment, spec: Spec, mesh: Mesh) -> GANState:
    """Returns shapes, dtypes and shardings of a game's state, without tracing a step or reading frozen networks."""

    # Unchecked: a run that began before `init_state` checked its game can still be loaded.
    def init(key: jax.Array) -> Carried:
        return {"state": experiment.game.init(key, _zeros(experiment, spec))}

    return _start(init, experiment.seed, mesh).abstract["state"]


def _start(init: Callable[[jax.Array], Carried], seed: int, mesh: Mesh) -> Start:
    key = _placed(jax.eval_shape(lambda: jax.random.key(seed)), meshes.replicated(mesh))
    traced = jax.jit(init).trace(key)  # compiled on first use only: a resume needs nothing but the shapes
    shapes = traced.out_info
    # What `init` constrains to the batch axis, such as image pools, stays sharded like that.
    constrained = jax.tree.unflatten(jax.tree.structure(shapes), meshes.constraints(traced.jaxpr.jaxpr))
    shardings = meshes.carried_shardings(shapes, constrained, mesh)
    abstract = jax.tree.map(
        lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), shapes, shardings
    )

    @functools.cache
    def compiled() -> jax.stages.Compiled:
        with jax.set_mesh(mesh):
            return traced.lower().compile()

    def make() -> Carried:
        return jax.device_put(compiled()(meshes.put_replicated(jax.random.key(seed), mesh)), shardings)

    return Start(make, abstract)


def lower_program(experiment: Experiment, feed: Feed, mesh: Mesh, start: Start, length: int) -> jax.stages.Lowered:
    """Lowers the training program from shapes alone, so that the devices of the mesh need not be there.

    Args:
      experiment: experiment to run.
      feed: feed of its data source.
      mesh: devices to compile for.
      start: start of the experiment, from `build_start`.
      length: iterations of one dispatch.

    Returns:
      The program before compilation; see `Program.run`.
    """
    constant = jax.eval_shape(lambda data: data, feed.data)
    data = (
        jax.tree.map(lambda x: _placed(x, meshes.replicated(mesh)), constant),
        experiment.frozen_networks.shapes(mesh=mesh),
    )

    def whole(local: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        shape = (*local.shape[:_INPUT_AXIS], experiment.batch_size, *local.shape[_INPUT_AXIS + 1 :])
        return jax.ShapeDtypeStruct(shape, local.dtype, sharding=meshes.along_batch(mesh, _INPUT_AXIS))

    def fetch(data: PyTree, inputs: PyTree, step: jax.Array) -> Batch:
        return constrain_batch(feed.fetch(data, inputs, step), axis=1)

    carried = start.abstract["state"], start.abstract["window"]
    scan = jax.jit(
        make_scan(experiment.step, fetch, length),
        donate_argnums=0,  # not the accumulator: the host still reads the last one, and reuses an empty one
        out_shardings=jax.tree.map(lambda x: x.sharding, carried),
    )
    return scan.lower(*carried, data, jax.tree.map(whole, feed.input_spec(length)))


def _placed(x: jax.ShapeDtypeStruct, sharding: NamedSharding) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)


def build_program(experiment: Experiment, source: Source, mesh: Mesh, start: Start, step: int = 0) -> Program:
    """Compiles an experiment. Call it with `jax.set_mesh(mesh)` in force.

    Args:
      experiment: experiment to run.
      source: data source of the experiment.
      mesh: devices to compile for.
      start: start of the experiment, from `build_start`.
      step: iteration to continue from; the length of a dispatch depends on it (`Experiment.dispatch_length`).

    Returns:
      The program.
    """
    game, length, size = experiment.game, experiment.dispatch_length(step), experiment.batch_size
    local_indices = meshes.local_indices(mesh, size)
    feed = source.feed(experiment.seed, batches_per_iteration(game, experiment.update_rule), size, local_indices)
    lowered = lower_program(experiment, feed, mesh, start, length)
    data = meshes.put_replicated(feed.data, mesh), experiment.frozen_networks.on(mesh)
    began = time.monotonic()
    compiled = lowered.compile()
    seconds = time.monotonic() - began

    def stream(step: int) -> Iterator[PyTree]:
        for sent in feed.stream(step, length):
            yield meshes.put_batch(sent, mesh, local_indices, size, _INPUT_AXIS)

    return Program(compiled, data, stream, mesh, length, seconds, compiled.memory_analysis())


def compile_program(
    experiment: Experiment, source: Source, mesh: Mesh, start: Start, step: int, log: Callable[[str], None]
) -> Program:
    """Compiles an experiment; logs its parameters, the compile time and the memory that it needs."""
    log(summary.parameter_table(start.abstract["state"].players))
    platform = mesh.devices.flat[0].platform
    together = f" of {jax.process_count()} processes" if jax.process_count() > 1 else ""
    log(f"compiling for {mesh.size} {platform} device{'s' if mesh.size > 1 else ''}{together} ...")
    program = build_program(experiment, source, mesh, start, step)
    log(f"compiled in {program.compile_seconds:.1f} s; {program.length} iterations in one dispatch")
    if program.length < experiment.steps_per_dispatch:
        log(f"  fewer than steps_per_dispatch={experiment.steps_per_dispatch}, since")
        log(experiment.boundaries(step))
    log(summary.memory_line(start.abstract["state"], program.memory))
    if program.memory is not None:
        check_memory(experiment, start, summary.program_bytes(start.abstract["state"], program.memory), mesh)
    return program
