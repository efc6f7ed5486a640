"""Events of a storm: signals to a command in a phase of its work, and the exit codes that they may lead to."""

import pathlib
import random
import re
import signal
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

LIMIT = 300.0  # seconds until a phase must begin, or a process end: beyond them it hangs

EVALUATING = "evaluating"  # what the metric of the scenarios' experiment file prints when it begins

KILL, TERM, INT = "SIGKILL", "SIGTERM", "SIGINT"
TWICE, STOP = "SIGTERM or SIGINT twice", "SIGSTOP, later SIGCONT"
KINDS = (KILL, TERM, INT, TWICE, STOP)

START, COMPILE, DISPATCH, EVALUATION = "start", "compile", "dispatch", "evaluation"
SAVE, ROLLBACK, DECISION, END = "save", "rollback", "decision", "end"

_OVER = r"^done: step|^\d+ members: (?!.*stopped)"  # the end of a run, of a population
_NO_MORE = r"^there are no more trials"  # that of a worker of a study
_LINE = {  # what the line looks like with which a phase begins
    COMPILE: r"^compiling ",
    DISPATCH: r"^step [\d,]+/",
    EVALUATION: rf"^{EVALUATING}$",
    ROLLBACK: r"not finite: |^rollback ",
    END: rf"^step ([\d,]+)/\1 |{_NO_MORE}",
}
_LASTS = {  # seconds after its beginning within which a phase is hit
    START: 6.0, COMPILE: 1.0, DISPATCH: 0.2, EVALUATION: 0.1, SAVE: 0.03, ROLLBACK: 0.5, DECISION: 0.1, END: 0.3,
}  # fmt: skip
_SAVING = ("checkpoints", "population/*", "trials/*/checkpoints")  # where Orbax's temporary directories are


class Event(NamedTuple):
    """A signal, or two, and the phase of the work in which it comes."""

    kind: str
    phase: str


def deck(kinds: Sequence[str], phases: Sequence[str], count: int, dice: random.Random) -> list[Event]:
    """Draws events, in which each kind and each phase is about equally frequent."""

    def column(values: Sequence[str]) -> list[str]:
        found: list[str] = []
        while len(found) < count:
            found += dice.sample(values, len(values))
        return dice.sample(found[:count], count)

    return [Event(*both) for both in zip(column(kinds), column(phases), strict=True)]


def lines(output: str, phase: str) -> int:
    """Counts the lines with which a phase begins."""
    return sum(1 for _ in re.finditer(_LINE[phase], output, re.MULTILINE))


def is_over(output: str) -> bool:
    """Whether a command has said that all its work is done."""
    worker = re.search(r"^trial \d+", output, re.MULTILINE) is not None
    return re.search(_NO_MORE if worker else f"{_OVER}|{_NO_MORE}", output, re.MULTILINE) is not None


def _wait(process: Any, happened: Callable[[], bool], what: str) -> bool:
    """Waits until something has happened; returns False if the process ends first."""
    deadline = time.monotonic() + LIMIT
    while not happened():
        if process.poll() is not None:
            return False
        assert time.monotonic() < deadline, f"no {what} within {LIMIT:g} s:\n{process.output()}"
        time.sleep(0.002)
    return True


def reach(process: Any, phase: str, workdir: pathlib.Path, dice: random.Random) -> bool:
    """Waits until a process is at a random moment of a phase that begins from now on; False if it ends first."""
    since = len(process.output())

    def said(phase: str, times: int = 1) -> bool:
        return lines(process.output()[since:], phase) >= times

    def saving() -> bool:
        return any(next(workdir.glob(f"{place}/*.orbax-checkpoint-tmp*"), None) for place in _SAVING)

    if phase in (DISPATCH, EVALUATION, SAVE):  # some reports later, so that the run comes further between events
        reports = dice.randrange(1, 4)
        if not _wait(process, lambda: said(DISPATCH, reports), DISPATCH):
            return False
        since = len(process.output())
    if phase in _LINE and phase != DISPATCH and not _wait(process, lambda: said(phase), phase):
        return False
    if phase == SAVE and not _wait(process, saving, phase):
        return False
    if phase == DECISION:
        record = workdir / "decisions.jsonl"
        before = record.stat().st_size if record.exists() else 0
        if not _wait(process, lambda: record.exists() and record.stat().st_size > before, phase):
            return False
    time.sleep(dice.uniform(0.0, _LASTS[phase]))
    return process.poll() is None


def strike(process: Any, kind: str, dice: random.Random) -> None:
    """Sends the signals of an event."""
    if kind == STOP:
        process.send_signal(signal.SIGSTOP)
        time.sleep(dice.uniform(0.1, 2.0))
        process.send_signal(signal.SIGCONT)
        return
    number = {KILL: signal.SIGKILL, TERM: signal.SIGTERM, INT: signal.SIGINT}.get(kind)
    number = dice.choice((signal.SIGTERM, signal.SIGINT)) if number is None else number
    process.send_signal(number)
    if kind == TWICE:
        time.sleep(dice.uniform(0.0, 0.1))
        process.send_signal(number)


def check(event: Event, code: int, output: str) -> None:
    """Checks the exit code of a process that an event has ended.

    A process that has heard a signal saves and exits with 75, unless all its work was done. Before it can hear one and
    after its work is done, SIGTERM ends it as it ends any process, and SIGINT with 130, or -2 while Python starts.

    Raises:
      AssertionError: for another code.
    """
    over, heard = is_over(output), ": saving and stopping at the next step" in output
    by_itself = {-signal.SIGTERM: {TERM, TWICE}, -signal.SIGINT: {INT, TWICE}, 130: {INT, TWICE}}
    codes = {number for number, kinds in by_itself.items() if event.kind in kinds}
    if event.kind == KILL:
        codes = {-signal.SIGKILL}
    elif heard:
        codes = {75} | (codes if event.kind == TWICE else set())
    elif event.phase != START and not over:
        codes = set()
    if over:
        codes |= {0}
        codes -= {75}
    assert code in codes, f"{event.kind} in {event.phase}: exit code {code}, expected {sorted(codes)}:\n{output}"
