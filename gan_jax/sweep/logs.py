"""Records of a population: its members and slots, and one log and one result per member."""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any, TypedDict

from gan_jax.distributed import hosts
from gan_jax.host import append_line, read_json, write_json
from gan_jax.runtime.identity import saved_steps
from gan_jax.runtime.logging import LogLine, Step, keep_until
from gan_jax.sweep.members import EMPTY, Member
from gan_jax.types import InvalidInputError

RUNNING, DONE, PRUNED, DIVERGED, STOPPED = "running", "done", "pruned", "diverged", "stopped"
SAVED = ("population/*/*",)  # pattern of a population's checkpoints
_RESTORE = "restore it from a copy of this workdir, or start again in another one"


class _Member(TypedDict):
    seed: int
    hparams: dict[str, float]


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a member ended; also the content of its `result.json`.

    Attributes:
      member: id of the member.
      status: `done`, `pruned` by the search, `diverged`, `stopped` with the population by a signal, or `running`.
      step: iterations done; for a diverged member, iterations until its last finite state.
      images: iterations times batch size.
      seed: seed of the member.
      hparams: final values of all runtime hyperparameters.
      metrics: the last line of the member's log.
      generation: number of the directory in `population/` whose checkpoint holds the member's state.
      state_sha256: hash of that state, equal to the hash of a run of its own; empty until the member has ended.
    """

    member: int
    status: str
    step: int
    images: int
    seed: int
    hparams: dict[str, float]
    metrics: dict[str, Any]
    generation: int
    state_sha256: str


class Logs:
    """Logs of all members. Every process has one; only the process with `writes=True` writes files.

    Attributes:
      last: last log line of each member.
      outcomes: outcome of each member that has ended.
    """

    def __init__(self, workdir: pathlib.Path, members: int, *, writes: bool) -> None:
        self.workdir, self._writes = workdir, writes
        self.last: dict[int, dict[str, Any]] = {member: {} for member in range(members)}
        self.outcomes: dict[int, Outcome] = {}

    def directory(self, member: int) -> pathlib.Path:
        """Returns the directory of a member's log and result."""
        return self.workdir / "members" / f"{member:05d}"

    def finished(self, steps: int) -> list[Outcome] | None:
        """Returns all results if every member is pruned, diverged, or done after `steps` iterations; else None."""
        paths = [self.directory(member) / "result.json" for member in self.last]
        found = [outcome for path in paths if (outcome := _read_outcome(path)) is not None]
        ended = len(found) == len(paths) and all(
            one.status in (PRUNED, DIVERGED) or (one.status, one.step) == (DONE, steps) for one in found
        )
        return found if ended else None

    def recall(self, step: int, generation: int) -> None:
        """Restores the logs as they were at a checkpoint: later log lines, decisions and results are removed.

        Args:
          step: step of the checkpoint.
          generation: generation of the checkpoint. Only results of earlier generations are kept: the training loop
            finds the members that ended in this one again, from the checkpoint.
        """
        for member in self.last:
            kept = keep_until(self.directory(member) / "metrics.jsonl", step, LogLine, writes=self._writes)
            self.last[member] = kept[-1] if kept else {}
            result = self.directory(member) / "result.json"
            found = _read_outcome(result)
            if found is not None and found.status in (PRUNED, DIVERGED) and found.generation < generation:
                self.outcomes[member] = found
            if self._writes and member not in self.outcomes:
                result.unlink(missing_ok=True)
        keep_until(self.workdir / "decisions.jsonl", step, Step, writes=self._writes)

    def report(self, member: int, record: dict[str, Any]) -> None:
        """Appends a line to a member's log; it is on disk when this returns."""
        self.last[member] = record
        self._append(self.directory(member) / "metrics.jsonl", record)

    def decision(self, record: dict[str, Any]) -> None:
        """Appends a line to `decisions.jsonl`."""
        self._append(self.workdir / "decisions.jsonl", record)

    def end(self, outcome: Outcome) -> None:
        """Records how a member ended, and writes its `result.json`."""
        self.outcomes[outcome.member] = outcome
        if self._writes:
            self.directory(outcome.member).mkdir(parents=True, exist_ok=True)
            write_json(self.directory(outcome.member) / "result.json", dataclasses.asdict(outcome))

    def _append(self, path: pathlib.Path, record: dict[str, Any]) -> None:
        if self._writes:
            path.parent.mkdir(parents=True, exist_ok=True)
            append_line(path, record)


def _read_outcome(path: pathlib.Path) -> Outcome | None:
    try:
        found = read_json(path, Outcome, remedy="remove it, and the member is trained again from the last checkpoint")
    except InvalidInputError:
        if path.exists():
            raise
        return None  # not written yet, or just deleted by process 0, which may be ahead in `recall`
    return Outcome(**{field.name: found[field.name] for field in dataclasses.fields(Outcome)})


def generation_directory(workdir: pathlib.Path, number: int) -> pathlib.Path:
    """Returns the directory of the checkpoints of a generation: the population after it was packed `number` times."""
    return workdir / "population" / f"{number:03d}"


def note_slots(workdir: pathlib.Path, generation: int, slots: list[int]) -> None:
    """Records, on process 0, which member each slot of a generation holds."""
    if hosts.is_primary():
        home = generation_directory(workdir, generation)
        home.mkdir(parents=True, exist_ok=True)
        write_json(home / "slots.json", slots)


def read_slots(workdir: pathlib.Path, generation: int, members: int) -> list[int]:
    """Reads which member each slot of a generation holds.

    Args:
      workdir: workdir of the population.
      generation: number of the generation.
      members: number of members of the population.

    Raises:
      InvalidInputError: if the record is missing or damaged, or names a member that there is not.
    """
    path = generation_directory(workdir, generation) / "slots.json"
    slots = read_json(path, list[int], remedy=_RESTORE)
    if not slots or not all(EMPTY <= slot < members for slot in slots):
        raise InvalidInputError(f"{path} is damaged: {slots} are not ids among {members} members: {_RESTORE}")
    return slots


def note_members(members: Sequence[Member], workdir: pathlib.Path, patience: float) -> None:
    """Writes `members.json`; every process calls it.

    Raises:
      InvalidInputError: if the workdir was begun with other members, or has checkpoints and no `members.json`.
    """
    path = workdir / "members.json"
    now = [{"seed": x.seed, "hparams": dict(x.hparams)} for x in members]

    def note() -> bool:
        if path.exists() or saved_steps(workdir, SAVED):
            return read_json(path, list[_Member], remedy=_RESTORE) == now
        workdir.mkdir(parents=True, exist_ok=True)
        write_json(path, now)
        return True

    if not hosts.decide("members", note, patience):
        raise InvalidInputError(f"{path} has other members: continue with those, or choose another workdir")
