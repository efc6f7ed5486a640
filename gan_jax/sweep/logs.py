"""Logs and results of the members of a population, one file of each per member."""

import dataclasses
import json
import os
import pathlib
from typing import Any

from gan_jax.host import replacing, write_json

RUNNING, DONE, PRUNED, DIVERGED, STOPPED = "running", "done", "pruned", "diverged", "stopped"


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
        if not all(path.exists() for path in paths):
            return None
        found = [Outcome(**json.loads(path.read_text(encoding="utf-8"))) for path in paths]
        ended = all(one.status in (PRUNED, DIVERGED) or (one.status, one.step) == (DONE, steps) for one in found)
        return found if ended else None

    def recall(self, step: int, generation: int) -> None:
        """Restores the logs as they were at a checkpoint: later log lines, decisions and results are removed.

        Args:
          step: step of the checkpoint.
          generation: generation of the checkpoint. Only results of earlier generations are kept: the training loop
            finds the members that ended in this one again, from the checkpoint.
        """
        for member in self.last:
            lines = read_lines(self.directory(member) / "metrics.jsonl")
            kept = [line for line in lines if line["step"] <= step]
            self.last[member] = kept[-1] if kept else {}
            result = self.directory(member) / "result.json"
            found = _read_outcome(result)
            if found is not None and found.status in (PRUNED, DIVERGED) and found.generation < generation:
                self.outcomes[member] = found
            if self._writes:
                _rewrite(self.directory(member) / "metrics.jsonl", lines, kept)
                if member not in self.outcomes:
                    result.unlink(missing_ok=True)
        decisions = self.workdir / "decisions.jsonl"
        if self._writes:
            lines = read_lines(decisions)
            _rewrite(decisions, lines, [line for line in lines if line["step"] <= step])

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
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")
                file.flush()
                os.fsync(file.fileno())


def read_lines(path: pathlib.Path) -> list[dict[str, Any]]:
    """Reads a JSON-lines file without an incomplete last line; returns no lines if the file does not exist."""
    if not path.exists():
        return []
    return [
        json.loads(line) for line in path.read_text(encoding="utf-8").splitlines(keepends=True) if line.endswith("\n")
    ]


def _read_outcome(path: pathlib.Path) -> Outcome | None:
    try:
        return Outcome(**json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:  # absent, or just deleted by process 0, which may be ahead in `recall`
        return None


def _rewrite(path: pathlib.Path, lines: list[dict[str, Any]], kept: list[dict[str, Any]]) -> None:
    """Replaces a file atomically by the kept lines, if lines are to be dropped or the last one is incomplete."""
    if path.exists() and (len(kept) < len(lines) or not path.read_text(encoding="utf-8").endswith("\n")):
        with replacing(path) as file:
            file.writelines(json.dumps(line) + "\n" for line in kept)
