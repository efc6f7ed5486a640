"""The program of a population, lowered for devices that need not be there."""

from collections.abc import Sequence

import jax

from gan_jax.data import Source
from gan_jax.runtime import Experiment
from gan_jax.runtime.ahead import Lowered
from gan_jax.sweep import members as programs
from gan_jax.sweep.members import EMPTY, Member


def lower(experiment: Experiment, source: Source, members: Sequence[Member], devices: Sequence[jax.Device]) -> Lowered:
    """Lowers the training program of a population as it begins, from shapes alone.

    Args:
      experiment: experiment that all members share, except for seed and hyperparameters.
      source: data source of the experiment.
      members: all members, by id.
      devices: devices to compile for.

    Returns:
      The program before compilation.
    """
    programs.check_members(experiment, source, members)
    mesh = programs.make_trial_mesh(len(members), devices)
    empty = programs.num_slots(len(members), mesh) - len(members)
    slots = [*range(len(members)), *[EMPTY] * empty]
    start = programs.build_start(experiment, source, members, slots, mesh)
    length, feeds = experiment.dispatch_length(0), programs.feeds(experiment, source, members, slots)
    lowered = programs.lower_population(experiment, feeds, mesh, start, length)
    return Lowered("training", lowered, experiment.batch_size * len(members), length)
