"""Where members' numbers go: a log and a result for each."""

import dataclasses
import json
import os
import pathlib
from typing import Any

from gan_jax.host import replacing, write_json

RUNNING, DONE, PRUNED, DIVERGED, STOPPED = "running", "done", "pruned", "diverged", "stopped"


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a member ended; also its `result.json`.

    Attributes:
      member: its id.
      status: `done`, `pruned` by the search, `diverged`, `stopped` with the population by a signal, or `running`.
      step: iterations done; of a diverged member, those until its last finite state.
      images: iterations times batch size.
      seed: its own.
      hparams: at the end.
      metrics: the last line of its log.
      generation: which of `population/` has its state.
      state_sha256: of that, as of a run of its own; empty of one that is running.
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
    """Logs of all members; `writes` is whether this process keeps them.

    Attributes:
      last: of each member, the last line.
      outcomes: of each member that has ended.
    """

    def __init__(self, workdir: pathlib.Path, members: int, *, writes: bool) -> None:
        self.workdir, self._writes = workdir, writes
        self.last: dict[int, dict[str, Any]] = {member: {} for member in range(members)}
        self.outcomes: dict[int, Outcome] = {}

    def directory(self, member: int) -> pathlib.Path:
        """Of a member."""
        return self.workdir / "members" / f"{member:05d}"

    def finished(self, steps: int) -> list[Outcome] | None:
        """The results of a population that has come to its end after so many iterations; else None."""
        paths = [self.directory(member) / "result.json" for member in self.last]
        if not all(path.exists() for path in paths):
            return None
        found = [Outcome(**json.loads(path.read_text())) for path in paths]
        ended = all(one.status in (PRUNED, DIVERGED) or (one.status, one.step) == (DONE, steps) for one in found)
        return found if ended else None

    def recall(self, step: int, generation: int) -> None:
        """Continues after a step of a generation: what came later is taken back."""
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
        """One line of a member's log, on disk when this returns."""
        self.last[member] = record
        self._append(self.directory(member) / "metrics.jsonl", record)

    def decision(self, record: dict[str, Any]) -> None:
        """One line of `decisions.jsonl`."""
        self._append(self.workdir / "decisions.jsonl", record)

    def end(self, outcome: Outcome) -> None:
        """A member's result."""
        self.outcomes[outcome.member] = outcome
        if self._writes:
            self.directory(outcome.member).mkdir(parents=True, exist_ok=True)
            write_json(self.directory(outcome.member) / "result.json", dataclasses.asdict(outcome))

    def _append(self, path: pathlib.Path, record: dict[str, Any]) -> None:
        if self._writes:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a") as file:
                file.write(json.dumps(record) + "\n")
                file.flush()
                os.fsync(file.fileno())


def read_lines(path: pathlib.Path) -> list[dict[str, Any]]:
    """The lines of a JSON-lines file, but for a last one that was written in part; none of a file that is not there."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]


def _read_outcome(path: pathlib.Path) -> Outcome | None:
    try:
        return Outcome(**json.loads(path.read_text()))
    except FileNotFoundError:  # or taken back by process 0 at this very moment
        return None


def _rewrite(path: pathlib.Path, lines: list[dict[str, Any]], kept: list[dict[str, Any]]) -> None:
    """Takes lines back, in one piece; also what is left of one that was not written whole."""
    if path.exists() and (len(kept) < len(lines) or not path.read_text().endswith("\n")):
        with replacing(path) as file:
            file.writelines(json.dumps(line) + "\n" for line in kept)
