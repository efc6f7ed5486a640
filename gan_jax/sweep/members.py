"""Compilation of a population: members with their own parameters, data order and hyperparameters, in one program.

The arrays of all members are stacked, in slots, along the mesh axis `trial`. Each device runs its own members
(`jax.shard_map`), several of them side by side with `jax.vmap` (on CPUs as many as fit the caches). So no value of one
member can reach another, and nothing is sent between devices. All members share one iteration counter. If it were
stacked, `vmap` would turn a condition on it (such as a penalty every k-th iteration) into computing both branches.
"""

import dataclasses
import functools
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree

from gan_jax import core
from gan_jax.core.sharding import TRIAL_AXIS
from gan_jax.data import Feed, Source
from gan_jax.host import put
from gan_jax.runtime import Experiment, memory, summary
from gan_jax.runtime.arrays import path_name
from gan_jax.runtime.health import all_finite
from gan_jax.runtime.program import Start, abstract_batches, init_state, start_accumulator
from gan_jax.types import InvalidInputError

Carried = dict[str, PyTree]  # state, window, member, alive, frozen_at, diverged: see `build_start`
EMPTY = -1  # member id of an empty slot
_CPU_BYTES = 2**21  # bytes of state that about fit a core's caches beside the activations
_SHARED = "state.step"  # the one array that all members share, without an axis of members


@dataclasses.dataclass(frozen=True)
class Member:
    """The seed and the hyperparameters of one member.

    Attributes:
      seed: seed of parameters, latents and data order, like `Experiment.seed`.
      hparams: values of hyperparameters, by the names of `core.get_hparams`; those not named keep the game's values.
    """

    seed: int
    hparams: Mapping[str, float] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Population:
    """A compiled program that trains all slots.

    Attributes:
      run: `(carried, data, inputs) -> carried`, runs `length` iterations. It donates no buffers: a member that diverges
        keeps the state from before the dispatch.
      data: constant arrays (data sets, frozen networks), on the devices.
      stream: `start step -> iterator` of the inputs of each dispatch, on the devices.
      mesh: mesh with the axis `trial`.
      length: iterations of one dispatch.
      compile_seconds: compile time in seconds.
      text: returns the text of the compiled program, in which tests look for collectives.
    """

    run: Callable[..., Carried]
    data: PyTree
    stream: Callable[[int], Iterator[PyTree]]
    mesh: Mesh
    length: int
    compile_seconds: float
    text: Callable[[], str | None]


def make_trial_mesh(members: int, devices: Sequence[jax.Device] | None = None, *, slots: int = 0) -> Mesh:
    """Makes a mesh of devices along the axis `trial`.

    Args:
      members: upper bound of the number of devices in a process alone. Several processes always use all their devices.
      devices: available devices; all by default.
      slots: number of slots that the number of devices must divide, such as that of a checkpoint; 0 for no constraint.

    Returns:
      The mesh.

    Raises:
      InvalidInputError: if there are several processes, and the number of their devices does not divide `slots`.
    """
    devices = list(jax.devices() if devices is None else devices)
    if len({device.process_index for device in devices}) > 1:
        if slots % len(devices):
            raise InvalidInputError(
                f"a population of {slots} slots cannot be continued on {len(devices)} devices of several processes: "
                f"expected a number that divides {slots}"
            )
    else:
        most = min(len(devices), max(members, 1))
        devices = devices[: max(n for n in range(1, most + 1) if slots % n == 0)]
    return jax.make_mesh((len(devices),), (TRIAL_AXIS,), (AxisType.Auto,), devices=devices)


def num_slots(members: int, mesh: Mesh) -> int:
    """Returns the number of slots: `members` rounded up to a multiple of the number of devices."""
    return math.ceil(members / mesh.size) * mesh.size


def check_members(experiment: Experiment, source: Source, members: Sequence[Member]) -> None:
    """Checks that the members can be trained as one population.

    Raises:
      InvalidInputError: if there are no members, `fsdp` is not 1, a hyperparameter is unknown or not set by all
        members, only one of a scheduled hyperparameter and its start is set, a value is not finite, or two calls of
        the game's `init` make states of different tree structures.
    """
    if not members:
        raise InvalidInputError("a population needs one member or more")
    if experiment.fsdp != 1:
        raise InvalidInputError(f"fsdp={experiment.fsdp}: members of a population are not split; expected 1")
    known = _hparam_names(experiment, source)
    names = set(members[0].hparams)
    for index, member in enumerate(members):
        if set(member.hparams) != names:
            raise InvalidInputError(
                f"member {index} sets {sorted(member.hparams)}, and member 0 {sorted(names)}: all must set the same"
            )
        for name in experiment.game.shown:
            own = sorted(x for x in known if x.startswith(f"{name}_"))
            if own and (name in names) != (f"{name}_start" in names):
                raise InvalidInputError(
                    f"member {index}: {name!r} follows a schedule that begins at '{name}_start': set both or neither "
                    f"(the schedule has {', '.join(own)})"
                )
        for name, value in member.hparams.items():
            if name not in known:
                raise InvalidInputError(
                    f"member {index}: {name!r} cannot vary in a population: this game's runtime hyperparameters are "
                    f"{', '.join(sorted(known))}; shapes, batch size, critic steps and the like need a program each: "
                    "train those as trials of a study"
                )
            if not np.isfinite(value):
                raise InvalidInputError(f"member {index}: {name}={value}: expected a number")


def _hparam_names(experiment: Experiment, source: Source) -> set[str]:
    """Returns the names of the runtime hyperparameters; refuses a game whose states differ from call to call."""

    def init() -> tuple[core.GANState, dict[str, jax.Array]]:
        state = init_state(experiment, source.spec, jax.random.key(0))
        return state, core.get_hparams(state)

    (one, names), (other, _) = (jax.eval_shape(lambda: init()) for _ in range(2))  # each lambda is traced
    first, second = cast(Any, jax.tree.structure(one)), jax.tree.structure(other)
    if first != second:
        raise InvalidInputError(
            "game: two calls of its init make states of different tree structures, so members cannot move from one "
            "program to another. Two builds of one optimiser are unequal: make optimisers once, where the game is "
            "made, and not in its init"
        )
    return set(names)


def _per_member(tree: PyTree) -> PyTree:
    """Returns the axis of members of each leaf: 0 if it is stacked, None for the iteration, which all members share."""
    return jax.tree_util.tree_map_with_path(lambda path, leaf: None if path_name(path) == _SHARED else 0, tree)


def _spec(axis: int | None) -> PartitionSpec:
    return PartitionSpec() if axis is None else PartitionSpec(TRIAL_AXIS)


def _is_none(x: Any) -> bool:
    return x is None


def _leaves(axes: PyTree, tree: PyTree) -> list[int | None]:
    """Returns the axis of members of each leaf of `tree`; `axes` is a tree prefix: one axis may stand for a subtree."""
    repeated = jax.tree.map(lambda axis, part: [axis] * len(jax.tree.leaves(part)), axes, tree, is_leaf=_is_none)
    return jax.tree.leaves(repeated, is_leaf=_is_none)


def _specs(axes: PyTree) -> PyTree:
    return jax.tree.map(_spec, axes, is_leaf=_is_none)


def build_start(
    experiment: Experiment, source: Source, members: Sequence[Member], slots: Sequence[int], mesh: Mesh
) -> Start:
    """Builds the initial state of a population, stacked over its slots.

    It is a dict of `state`, `window` (the metric accumulator), and one entry per slot of `member` (member id), `alive`
    (whether the slot trains), `frozen_at` (the step of a member that does not train any more) and `diverged`.

    Args:
      experiment: experiment that all members share, except for seed and hyperparameters.
      source: data source of the experiment.
      members: all members, by id.
      slots: member id of each slot of this program; `EMPTY` for an empty slot.
      mesh: mesh from `make_trial_mesh`.

    Returns:
      The start: the function that makes the initial state, and its shapes, dtypes and shardings.
    """
    held = [members[max(slot, 0)] for slot in slots]  # an empty slot trains a copy of member 0, which is discarded
    ids = np.asarray(slots, np.int32)
    values = {name: np.asarray([x.hparams[name] for x in held], np.float32) for name in held[0].hparams}
    keys = jnp.stack([jax.random.key(member.seed) for member in held])

    def begin(key: jax.Array, values: dict[str, jax.Array]) -> Carried:
        state = core.set_hparams(init_state(experiment, source.spec, key), values)
        return {"state": state, "window": start_accumulator(experiment, state, source.spec)}

    def init(keys: jax.Array, values: dict[str, jax.Array]) -> Carried:
        made = jax.vmap(begin)(keys, values)
        made = jax.tree.map(lambda axis, x: x[0] if axis is None else x, _per_member(made), made, is_leaf=_is_none)
        nothing = jnp.zeros(len(ids), jnp.int32)
        facts = {"member": jnp.asarray(ids), "alive": jnp.asarray(ids != EMPTY), "frozen_at": nothing}
        return made | facts | {"diverged": nothing > 0}

    init = jax.jit(init, inline=True)  # so that it is traced once, for the shapes here and the program below
    shapes = jax.eval_shape(init, keys, values)
    axes = _per_member(shapes)
    shardings = jax.tree.map(lambda axis: NamedSharding(mesh, _spec(axis)), axes, is_leaf=_is_none)
    abstract = jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, shardings)
    batch = memory.tree_bytes(abstract_batches(experiment, source.spec))  # of one member, since they may take turns
    _check_memory(experiment, slots, mesh, {"states": memory.tree_bytes(abstract), "batches": batch})
    made = jax.jit(init, out_shardings=shardings)
    return Start(lambda: made(keys, values), abstract)


def _check_memory(experiment: Experiment, slots: Sequence[int], mesh: Mesh, parts: Mapping[str, int]) -> None:
    """Raises InvalidInputError if parts of a population's program, in bytes per device, do not fit into its memory."""
    memory.check(
        parts,
        mesh.local_devices[0],
        f"{len(slots)} trials in one program, with batch_size={experiment.batch_size}",
        "lower batch_size or the sizes of the networks, or sweep over fewer trials or with --engine=local",
    )


def build_population(
    experiment: Experiment,
    source: Source,
    members: Sequence[Member],
    slots: Sequence[int],
    mesh: Mesh,
    start: Start,
    step: int = 0,
) -> Population:
    """Compiles the training program of a population.

    Args:
      experiment: experiment that all members share, except for seed and hyperparameters.
      source: data source of the experiment. Arrays that do not depend on the seed are on the devices once.
      members: all members, by id.
      slots: member id of each slot of this program; `EMPTY` for an empty slot.
      mesh: mesh from `make_trial_mesh`.
      start: start from `build_start` with the same arguments.
      step: the iteration to continue from; see `Experiment.dispatch_length`.

    Returns:
      The compiled program.
    """
    length, slot_feeds = experiment.dispatch_length(step), feeds(experiment, source, members, slots)
    lowered = lower_population(experiment, slot_feeds, mesh, start, length)
    data = _stack_data(_constants(experiment, slot_feeds), mesh)
    began = time.monotonic()
    compiled = lowered.compile()
    seconds = time.monotonic() - began
    analysis = compiled.memory_analysis()
    if analysis is not None:
        _check_memory(experiment, slots, mesh, summary.program_bytes(start.abstract["state"], analysis))

    def stream(step: int) -> Iterator[PyTree]:
        streams = {slot: slot_feeds[slot].stream(step, length) for slot in _local_slots(mesh, len(slots))}
        while True:
            yield _put_stacked({slot: next(each) for slot, each in streams.items()}, len(slots), mesh)

    return Population(compiled, data, stream, mesh, length, seconds, compiled.as_text)


def feeds(experiment: Experiment, source: Source, members: Sequence[Member], slots: Sequence[int]) -> list[Feed]:
    """Returns the feed of each slot."""
    draws, size = core.batches_per_iteration(experiment.game, experiment.update_rule), experiment.batch_size
    return [source.feed(members[max(slot, 0)].seed, draws, size, np.arange(size)) for slot in slots]


def _constants(experiment: Experiment, feeds: Sequence[Feed]) -> list[PyTree]:
    """Returns the constant arrays of each slot: those of its feed, and the frozen networks."""
    networks = {name: network.params for name, network in experiment.frozen_networks.items()}
    return [(feed.data, networks) for feed in feeds]


def lower_population(
    experiment: Experiment, feeds: Sequence[Feed], mesh: Mesh, start: Start, length: int
) -> jax.stages.Lowered:
    """Lowers the training program of a population from shapes alone, so that its devices need not be there.

    Args:
      experiment: experiment that all members share.
      feeds: feed of each slot.
      mesh: mesh from `make_trial_mesh`.
      start: start from `build_start`.
      length: iterations of one dispatch.

    Returns:
      The program before compilation; see `Population.run`.
    """
    stacked, inputs_of_one = NamedSharding(mesh, _spec(0)), feeds[0].input_spec(length)
    inputs = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct((len(feeds), *x.shape), x.dtype, sharding=stacked), inputs_of_one
    )
    constants = _constants(experiment, feeds)
    data_axes = _constant_axes(constants)

    def shape(axis: int | None, x: Any) -> jax.ShapeDtypeStruct | None:
        if x is None:  # a source without constants
            return None
        lengths = x.shape if axis is None else (len(feeds), *x.shape)
        return jax.ShapeDtypeStruct(lengths, x.dtype, sharding=NamedSharding(mesh, _spec(axis)))

    data = jax.tree.map(shape, data_axes, jax.eval_shape(lambda x: x, constants[0]), is_leaf=_is_none)
    carried_specs, data_specs = _specs(_per_member(start.abstract)), _specs(data_axes)
    scan = core.make_scan(experiment.step, feeds[0].fetch, length)
    mapped = jax.shard_map(
        _advance(scan, _per_member(start.abstract), data_axes, _together(start, len(feeds), mesh)),
        mesh=mesh,
        in_specs=(carried_specs, data_specs, jax.tree.map(lambda x: _spec(0), inputs_of_one)),
        out_specs=carried_specs,
        check_vma=False,
    )
    return jax.jit(mapped).lower(start.abstract, data, inputs)


def _together(start: Start, slots: int, mesh: Mesh) -> int:
    """Returns how many members of a device run a dispatch side by side; the other members of the device run after them.

    On CPUs it is the largest divisor of the device's number of members such that their states fit the caches; on other
    platforms it is all. On CPUs more members at once gain nothing, except for small ones, whose operations are too
    short to fill a core: `docs/speed.md` has figures.
    """
    members = slots // mesh.size
    if mesh.devices.flat[0].platform != "cpu":
        return members
    size = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(start.abstract["state"])) / slots
    return max(n for n in range(1, members + 1) if members % n == 0 and (n == 1 or n * size <= _CPU_BYTES))


def _advance(scan: Callable[..., Any], axes: PyTree, data_axes: PyTree, group: int) -> Callable[..., Carried]:
    """Returns the function that runs a dispatch of one device's members, `group` members at a time.

    Members that are not finite after the dispatch keep the state from before it.
    """

    def advance(carried: Carried, data: PyTree, inputs: PyTree) -> Carried:
        both = axes["state"], axes["window"]
        args = carried["state"], carried["window"], data, inputs
        leaves, structure = jax.tree.flatten(args)
        shared = [axis is None for axis in _leaves((*both, data_axes, 0), args)]
        own = [leaf for leaf, is_shared in zip(leaves, shared, strict=True) if not is_shared]

        # Shared leaves are closed over, not mapped: the iteration is not batched, so conditions on it stay conditions.
        def advance_one(own: list[jax.Array]) -> PyTree:
            rest = iter(own)
            whole = [leaf if is_shared else next(rest) for leaf, is_shared in zip(leaves, shared, strict=True)]
            return scan(*jax.tree.unflatten(structure, whole))

        found = jax.lax.map(advance_one, own, batch_size=group)
        state, accumulator = jax.tree.map(lambda axis, x: x[0] if axis is None else x, both, found, is_leaf=_is_none)
        well = jax.vmap(lambda *trees: all_finite(trees), in_axes=both)(state, accumulator)
        alive, lost = carried["alive"] & well, carried["alive"] & ~well
        chosen = jax.tree.map(
            lambda axis, new, old: new if axis is None else _select(alive, new, old),
            both, (state, accumulator), (carried["state"], carried["window"]), is_leaf=_is_none,
        )  # fmt: skip
        at = jnp.where(lost, carried["state"].step, carried["frozen_at"])
        facts = {"alive": alive, "frozen_at": at, "diverged": carried["diverged"] | lost}
        return carried | facts | {"state": chosen[0], "window": chosen[1]}

    return advance


def _select(alive: jax.Array, new: jax.Array, old: jax.Array) -> jax.Array:
    """Selects `new` for members that are alive, `old` for the others; arrays have a leading axis of members."""
    return jnp.where(alive.reshape(-1, *(1,) * (new.ndim - 1)), new, old)


def _constant_axes(parts: Sequence[PyTree]) -> PyTree:
    """Returns the axis of members of each constant of the slots.

    A leaf that is the same object in all slots is kept once (axis None). Any other leaf, and every key, is stacked
    (axis 0).
    """

    def axis(*same: Any) -> int | None:
        is_key = jnp.issubdtype(same[0].dtype, jax.dtypes.prng_key)
        return None if not is_key and all(leaf is same[0] for leaf in same) else 0

    return jax.tree.map(axis, *parts)


def _stack_data(parts: Sequence[PyTree], mesh: Mesh) -> PyTree:
    """Puts the slots' constants on the devices, stacked where `_constant_axes` says so."""

    def place(axis: int | None, *same: Any) -> jax.Array | None:
        if same[0] is None:  # a source without constants
            return None
        sharding = NamedSharding(mesh, _spec(axis))
        if axis is None:
            return put(np.asarray(same[0]), sharding)
        if not jnp.issubdtype(same[0].dtype, jax.dtypes.prng_key):
            return put(np.stack([np.asarray(x) for x in same]), sharding)
        data = np.stack([np.asarray(jax.random.key_data(key)) for key in same])
        return jax.random.wrap_key_data(put(data, sharding), impl=jax.random.key_impl(same[0]))

    return jax.tree.map(place, _constant_axes(parts), *parts, is_leaf=_is_none)


def _local_slots(mesh: Mesh, slots: int) -> list[int]:
    """Returns the slots whose members train on a device of this process."""
    per, here = slots // mesh.size, jax.process_index()
    return [i for i in range(slots) if mesh.devices.flat[i // per].process_index == here]


def _put_stacked(parts: dict[int, PyTree], slots: int, mesh: Mesh) -> PyTree:
    """Makes global arrays over all devices from the inputs of this process's slots."""
    sharding = NamedSharding(mesh, _spec(0))

    def put(*leaves: np.ndarray) -> jax.Array:
        rows = dict(zip(parts, leaves, strict=True))

        def part(index: Any) -> np.ndarray:
            return np.stack([rows[i] for i in range(slots)[index[0]]])

        return jax.make_array_from_callback((slots, *leaves[0].shape), sharding, part)

    return jax.tree.map(put, *parts.values())


def member_state(carried: Carried, slot: int, mesh: Mesh) -> core.GANState:
    """Returns a member's state as that of an ordinary run, replicated on the mesh; all processes must call it."""
    return _taking(mesh)(carried["state"], carried["alive"], carried["frozen_at"], jnp.int32(slot))


@functools.lru_cache(maxsize=8)
def _taking(mesh: Mesh) -> Callable[..., core.GANState]:
    def take(state: core.GANState, alive: jax.Array, frozen_at: jax.Array, slot: jax.Array) -> core.GANState:
        axes = _per_member({"state": state})["state"]
        one = jax.tree.map(lambda axis, x: x if axis is None else x[slot], axes, state, is_leaf=_is_none)
        return one.replace(step=jnp.where(alive[slot], state.step, frozen_at[slot]))

    return jax.jit(take, out_shardings=NamedSharding(mesh, PartitionSpec()))


def rearranged(
    carried: Carried, sources: Sequence[int], mesh: Mesh, hparams: Mapping[str, np.ndarray], *, keys: bool
) -> Carried:
    """Fills slots with copies of other slots, and sets their hyperparameters.

    Args:
      carried: arrays of the old slots, on their mesh.
      sources: for each new slot, the old slot that it is copied from.
      mesh: mesh of the new slots.
      hparams: by name, the values of all new slots.
      keys: whether root keys are copied too. If not, each slot keeps its own, and the number of slots must not change.

    Returns:
      The arrays of the new slots, on `mesh`.
    """
    before = carried["alive"].sharding.mesh
    index = jnp.asarray(sources, jnp.int32)

    def take(carried: Carried, index: jax.Array, hparams: dict[str, jax.Array]) -> Carried:
        axes = _per_member(carried)
        new = jax.tree.map(lambda axis, x: x if axis is None else x[index], axes, carried, is_leaf=_is_none)
        state = jax.vmap(core.set_hparams, in_axes=(axes["state"], 0), out_axes=axes["state"])(new["state"], hparams)
        return new | {"state": state if keys else state.replace(key=carried["state"].key)}

    shapes = jax.eval_shape(take, carried, index, dict(hparams))
    shardings = jax.tree.map(lambda axis: NamedSharding(mesh, _spec(axis)), _per_member(shapes), is_leaf=_is_none)
    # A program runs on one mesh: where the mesh changes, its results are replicated on the old one, and then moved.
    placed = shardings if mesh == before else NamedSharding(before, PartitionSpec())
    return jax.device_put(jax.jit(take, out_shardings=placed)(carried, index, dict(hparams)), shardings)
