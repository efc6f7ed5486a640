"""Export of population members as ordinary runs, which can be sampled, evaluated and continued like any other."""

import json
import pathlib
import shutil
from collections.abc import Callable, Sequence

import numpy as np

from gan_jax import runtime
from gan_jax.data import Source
from gan_jax.distributed import hosts
from gan_jax.distributed import mesh as meshes
from gan_jax.runtime.train import note_data
from gan_jax.sweep import members as programs
from gan_jax.sweep.logs import Logs, Outcome
from gan_jax.sweep.members import Member
from gan_jax.sweep.population import about, generation_directory, on_host
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

    Raises:
      InvalidInputError: for a member at step 0, which diverged in its first iterations, or checkpoints that cannot be
        read.
    """
    early = [outcome.member for outcome in outcomes if outcome.step == 0]
    if early:
        raise InvalidInputError(f"members {early} diverged in their first iterations: there is nothing to export")
    for generation in sorted({outcome.generation for outcome in outcomes}):
        home = generation_directory(workdir, generation)
        slots = json.loads((home / "slots.json").read_text(encoding="utf-8"))
        mesh = programs.make_trial_mesh(1, slots=len(slots))  # one device; several processes take all of theirs
        start = programs.build_start(experiment, source, members, slots, mesh)
        with runtime.Checkpointer(home, keep_last=1, about=about(experiment), read_only=True) as checkpointer:
            carried = checkpointer.restore(max(checkpointer.steps(), default=0), start.abstract)
        for outcome in (one for one in outcomes if one.generation == generation):
            slot, alone = slots.index(outcome.member), own(outcome.member)
            rest = {
                "window": {name: on_host(x)[slot] for name, x in carried["window"].items()},
                "rollbacks": np.int32(0),
            }
            tree = {"state": programs.member_state(carried, slot, mesh)} | meshes.put_replicated(rest, mesh)
            if int(np.asarray(tree["state"].step)) != outcome.step:
                raise InvalidInputError(f"{home} has member {outcome.member} at another step than {outcome.step}")
            target = directory(outcome.member)
            with runtime.Checkpointer(target / "checkpoints", keep_last=1, about=alone.about()) as written:
                written.save(outcome.step, tree)
                written.wait()
            if hosts.is_primary():
                note_data(source, target, False)
                shutil.copyfile(Logs(workdir, 0, writes=False).directory(outcome.member) / _LOG, target / _LOG)
