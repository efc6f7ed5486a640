"""Export of population members as ordinary runs, which can be sampled, evaluated and continued like any other."""

import pathlib
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import PyTree

from gan_jax import runtime
from gan_jax.data import Source
from gan_jax.distributed import hosts
from gan_jax.distributed import mesh as meshes
from gan_jax.host import read_log, write_log
from gan_jax.runtime import identity as identities
from gan_jax.runtime.train import note_data
from gan_jax.sweep import members as programs
from gan_jax.sweep.logs import Logs, Outcome, generation_directory, read_slots
from gan_jax.sweep.members import Member
from gan_jax.sweep.population import about, on_host
from gan_jax.types import InvalidInputError

_LOG = "metrics.jsonl"


def export(
    experiment: runtime.Experiment,
    source: Source,
    members: Sequence[Member],
    outcomes: Sequence[Outcome],
    workdir: pathlib.Path,
    directory: Callable[[int], pathlib.Path],
    own: Callable[[int], runtime.Experiment],
    patience: float = 600.0,
) -> None:
    """Writes the last states of members as checkpoints of ordinary runs; every process must call it.

    Args:
      experiment: the experiment that the population was trained with.
      source: data source of the experiment.
      members: all members of the population, by id.
      outcomes: outcomes of the members to export, from `train_population`.
      workdir: workdir of the population.
      directory: `member id -> workdir` of its run; the checkpoint, the log and `data.json` are written there.
      own: `member id -> experiment` of its run.
      patience: seconds to wait for process 0.

    Raises:
      InvalidInputError: for a member at step 0, which diverged in its first iterations, or checkpoints that cannot be
        read.
    """
    early = [outcome.member for outcome in outcomes if outcome.step == 0]
    if early:
        raise InvalidInputError(f"members {early} diverged in their first iterations: there is nothing to export")
    for generation in sorted({outcome.generation for outcome in outcomes}):
        home, slots = generation_directory(workdir, generation), read_slots(workdir, generation, len(members))
        mesh = programs.make_trial_mesh(1, slots=len(slots))  # one device; several processes take all of theirs
        start = programs.build_start(experiment, source, members, slots, mesh)
        with runtime.Checkpointer(home, keep_last=1, about=about(experiment), read_only=True) as checkpointer:
            carried = _restored(checkpointer, start.abstract)
        for outcome in (one for one in outcomes if one.generation == generation):
            if outcome.member not in slots:
                raise InvalidInputError(f"{home / 'slots.json'} has no member {outcome.member}: restore it from a copy")
            slot, alone = slots.index(outcome.member), own(outcome.member)
            rest = {
                "window": {name: on_host(x)[slot] for name, x in carried["window"].items()},
                "rollbacks": np.int32(0),
            }
            tree = {"state": programs.member_state(carried, slot, mesh)} | meshes.put_replicated(rest, mesh)
            if int(np.asarray(tree["state"].step)) != outcome.step:
                raise InvalidInputError(f"{home} has member {outcome.member} at another step than {outcome.step}")
            target = directory(outcome.member)
            identity = identities.begin(target, patience)
            facts = alone.about()
            with runtime.Checkpointer(target / "checkpoints", keep_last=1, about=facts, identity=identity) as written:
                written.save(outcome.step, tree)
                written.wait()
            if hosts.is_primary():
                note_data(source, target, False)
                log = Logs(workdir, 0, writes=False).directory(outcome.member) / _LOG
                write_log(target / _LOG, read_log(log))


def _restored(checkpointer: runtime.Checkpointer, abstract: PyTree) -> PyTree:
    """Restores the last checkpoint of a generation."""
    try:
        return checkpointer.restore(max(checkpointer.steps(), default=0), abstract)
    except OSError as error:
        raise InvalidInputError(
            f"the last checkpoint in {checkpointer.directory} cannot be read: {error}; restore it from a copy"
        ) from error
