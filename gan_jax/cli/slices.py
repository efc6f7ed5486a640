"""`--dry_run --topology`: the programs of a run or a sweep, compiled for a slice of TPUs that need not be there."""

from collections.abc import Iterable

import jax

from gan_jax import runs, runtime
from gan_jax.distributed import topology
from gan_jax.runtime import ahead, summary
from gan_jax.runtime.forecast import Forecast, check_fits, lines
from gan_jax.runtime.progress import log
from gan_jax.sweep import ahead as populations
from gan_jax.sweep import trials
from gan_jax.types import InvalidInputError

TEXT = "--dry_run for a slice of TPUs, such as v5e:16x16"


def check(name: str | None, dry_run: bool) -> topology.Slice | None:
    """Parses --topology, and keeps JAX from looking for a TPU; call it before JAX is used."""
    if name is None:
        return None
    if not dry_run:
        raise InvalidInputError(f"--topology={name} needs --dry_run: it compiles for devices that are not there")
    jax.config.update("jax_platforms", "cpu")
    return topology.parse(name)


def train(experiment: runtime.Experiment, config: runs.Config, target: topology.Slice) -> None:
    """Compiles the programs of a run for a slice, and prints what they cost."""
    mesh = ahead.slice_mesh(target, fsdp=experiment.fsdp)
    source = experiment.open_source()
    log(source.summary())
    with jax.set_mesh(mesh):
        start = runtime.build_start(experiment, source.spec, mesh)
        experiment.check_metric({*start.abstract["window"], "samples/diversity"})
        log(summary.parameter_table(start.abstract["state"].players))
        held = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(start.abstract["state"].players))
    _show(ahead.programs(experiment, source, mesh, log), target, experiment, config, held)


def population(made: trials.Members, config: runs.Config, target: topology.Slice) -> None:
    """Compiles the population of a sweep for a slice, and prints what it costs."""
    source = made.experiment.open_source()
    log(source.summary())
    lowered = populations.lower(made.experiment, source, made.members, topology.devices(target))
    _show([lowered], target, made.experiment, config)


def _show(
    programs: Iterable[ahead.Lowered],
    target: topology.Slice,
    experiment: runtime.Experiment,
    config: runs.Config,
    state: int = 0,
) -> None:
    jax.config.update("jax_enable_compilation_cache", False)  # the times are those of a compilation
    log(f"compiling for {target.name}: {target.size} chips with {target.chip.memory / 2**30:.2f} GiB each ...")
    found = list[Forecast]()
    for lowered in programs:
        found.append(ahead.compiled(lowered, target, experiment))
        log("\n".join(lines(found[-1], target, lowered.images)))
    log(f"The time is a model, not a measurement (docs/tpu.md), with the rates of\n{target.chip.source}")
    check_fits(found, target, lambda one: remedy(one, target, config, state))


def remedy(one: Forecast, target: topology.Slice, config: runs.Config, state: int = 0) -> str:
    """Says which flags make a program smaller, those that help most first.

    Args:
      one: program that does not fit.
      target: slice.
      config: config of the run.
      state: bytes of the state, with the arrays of both players and optimisers.
    """
    if one.program != "training":
        return "take chips with more memory, or smaller networks"
    chips, batch, parts, split = target.size, config.batch_size, config.get("microbatches", 0), config.fsdp
    held = state / split  # of what a chip needs
    splits = [n for n in range(2 * split, chips + 1) if chips % n == 0 and n % split == 0]
    enough = next((n for n in splits if one.needed - held + state / n <= target.chip.memory), max(splits, default=0))
    players = (
        f"--config.fsdp={enough} splits the players' arrays, {held / 2**30:.2f} GiB on each chip" if splits else ""
    )
    divides = parts and batch % (2 * parts * chips) == 0
    activations = [
        f"--config.microbatches={2 * parts} halves the activations" if divides else "",
        "--config.remat=True recomputes the activations" if config.get("remat") is False else "",
    ]
    flags = [players] if held > one.needed / 2 else [*activations, players]
    smaller = f"a --config.batch_size below {batch}, or more chips" if batch > chips else "chips with more memory"
    return "\n  ".join(["change one or more of these:", *filter(None, flags), smaller])
