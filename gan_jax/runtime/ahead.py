"""The programs of a run, compiled ahead of time for a slice of TPUs that need not be there."""

import pathlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from gan_jax import eval as evals
from gan_jax.core import batches_per_iteration
from gan_jax.data import Source
from gan_jax.distributed import topology
from gan_jax.distributed.mesh import make_mesh
from gan_jax.runtime import sampling
from gan_jax.runtime.experiment import Experiment
from gan_jax.runtime.forecast import Forecast, forecast, lazy_shares
from gan_jax.runtime.program import build_start, lower_program
from gan_jax.runtime.reference import Reference

_FEATURE_BATCH = 64  # images in a batch of the feature pass, rounded up to a multiple of the number of chips


class Lowered(NamedTuple):
    """A program before compilation.

    Attributes:
      name: what it is.
      lowered: the program.
      images: images that one execution, or one iteration of training, makes or sees.
      iterations: iterations of training in one execution.
    """

    name: str
    lowered: jax.stages.Lowered
    images: int
    iterations: int = 1


def slice_mesh(target: topology.Slice, *, fsdp: int = 1) -> Mesh:
    """Makes the mesh of a slice, as a run on it would; see `make_mesh`."""
    return make_mesh(topology.devices(target), fsdp=fsdp)


def programs(experiment: Experiment, source: Source, mesh: Mesh, log: Callable[[str], None]) -> Iterator[Lowered]:
    """Lowers the programs of a run from shapes alone, each when the one before has been used.

    Args:
      experiment: experiment to run.
      source: its data source.
      mesh: devices to compile for.
      log: receives the messages of the source.

    Yields:
      The training program; the sampler, if the game makes samples; and the feature pass of each network that the
      experiment's metrics use.
    """
    # Before the mesh is in force, whose devices hold no arrays: networks are read, and keys of the feed are made.
    experiment.frozen_networks.shapes()
    length, size = experiment.dispatch_length(0), experiment.batch_size
    draws = batches_per_iteration(experiment.game, experiment.update_rule)
    feed = source.feed(experiment.seed, draws, size, np.arange(size))
    with jax.set_mesh(mesh):
        start = build_start(experiment, source.spec, mesh)
        state = start.abstract["state"]
        yield Lowered("training", lower_program(experiment, feed, mesh, start, length), size, length)
        if experiment.has_samples and (experiment.game.prior is not None or experiment.conditions is not None):
            yield Lowered("sampler", sampling.lower_samples(experiment, state, mesh), sampling.CHUNK)
    yield from feature_passes(experiment, mesh, log)


def feature_passes(experiment: Experiment, mesh: Mesh, log: Callable[[str], None]) -> Iterator[Lowered]:
    """Lowers the feature pass of each network that the experiment's metrics use."""
    networks = dict[str, evals.Extractor]()
    requests = evals.metric_specs(experiment.wanted_metrics(), experiment.own_metrics)
    for request in requests:
        if request.network and request.network not in networks:
            reference = Reference(experiment.comparison, pathlib.Path(), log, 0.0)
            own = request.metric.network
            networks[request.network] = reference.shapes(own) if isinstance(own, str) else own
    for name, network in networks.items():
        example = experiment.comparison.spec["real"].shape
        yield feature_pass(name, network, (2, *example) if network.takes == evals.PAIRS else example, mesh)


def feature_pass(name: str, network: evals.Extractor, example: tuple[int, ...], mesh: Mesh) -> Lowered:
    """Lowers the feature pass of one network over a batch of examples of a shape."""
    size = -(-_FEATURE_BATCH // mesh.size) * mesh.size
    return Lowered(
        f"features of {name}", evals.lower(network, jax.ShapeDtypeStruct((size, *example), np.uint8), mesh), size
    )


def compiled(one: Lowered, target: topology.Slice, experiment: Experiment | None = None) -> Forecast:
    """Compiles a program for a slice, and returns its costs; the experiment says how often its phases run."""
    shares = lazy_shares(experiment.game) if experiment is not None else {}
    return forecast(one.name, one.lowered, target, iterations=one.iterations, shares=shares)
