"""The scenarios of a storm: commands that are disturbed again and again until they end, and then compared.

A scenario is played in laps. In each lap a command runs in a new workdir. It is disturbed at a few random moments, is
started again after each event that ends it, and is at last let run to its end. What it has left on disk must be what an
undisturbed command leaves.
"""

import os
import pathlib
import random
import shutil
import signal
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from benchmarks import storm_events as events
from benchmarks import storm_records as records
from benchmarks.storm_events import COMPILE, DECISION, DISPATCH, END, EVALUATION, ROLLBACK, SAVE, START, Event
from tests.processes import ROOT, start, together

_EXPERIMENT = "--config=tests/experiments/storm.py"
_PHASES = (START, COMPILE, DISPATCH, EVALUATION, SAVE, END)
_MOST = 8  # events of a lap
_STEP_TIMEOUT = 40  # seconds of the two processes; compiling must end within them
_BOTH, _LONG = "SIGKILL to both", "SIGSTOP beyond --step_timeout"
_LOST, _ABORTED = 69, -signal.SIGABRT  # how a process ends when another one is missing: by itself, or by JAX
_WORKERS = 4
_MISSED = 5

Hit = tuple[Event, list[int]]  # an event, and the exit codes of the processes that have ended


class Scenario(NamedTuple):
    """A command that is disturbed.

    Attributes:
      flags: flags of the command.
      phases: phases in which it is disturbed.
      command: `train` or `sweep`.
      read: reads what it has left on disk.
    """

    flags: tuple[str, ...]
    phases: tuple[str, ...] = _PHASES
    command: str = "train"
    read: Callable[[pathlib.Path], dict[str, Any]] = records.of_run


_MEMBERS = ("--space=learning_rate=5e-4,2e-3,8e-3;seed=0,1", "--config.sample_every=0", "--config.steps=160")
_STUDY = (
    "--engine=study", "--sampler=random", "--num_trials=12", "--config.sample_every=0", "--config.steps=120",
)  # fmt: skip
_ASHA = ("--pruner=asha", "--eta=2", "--first_rung=640")
_POPULATION = (*_PHASES, DECISION)

SCENARIOS = {
    "best metric": Scenario(("--config.game=adversarial",)),
    "rollback": Scenario(
        ("--config.poison_from=110", "--config.on_divergence=rollback"), (*_PHASES, ROLLBACK, ROLLBACK)
    ),
    "ada and path length": Scenario(("--config.game=stylegan2", "--config.steps=120")),
    "cyclegan": Scenario(("--config.game=cyclegan",)),
    "lecam": Scenario(("--config.game=lecam",)),
    "evaluation": Scenario(("--config.game=adversarial", "--config.pause=0.5"), (EVALUATION,)),
    "halving": Scenario(
        (*_MEMBERS, "--search=halving", "--eta=2", "--first_rung=960"), _POPULATION, "sweep", records.of_population
    ),
    "pbt": Scenario((*_MEMBERS, "--search=pbt", "--pbt_images=640"), _POPULATION, "sweep", records.of_population),
    "four workers": Scenario(_STUDY, command="sweep", read=records.of_study),
    "two processes": Scenario(("--config.game=adversarial",)),
}


class Storm:
    """One scenario: its workdirs, its random moments, and its events that are still to come.

    Attributes:
      laps: number of laps so far.
      starts: number of starts of the command so far.
    """

    def __init__(self, name: str, root: pathlib.Path, count: int, seed: int) -> None:
        self.scenario, self._root = SCENARIOS[name], root
        self._dice = random.Random(f"{name} {seed}")
        self._play = {"four workers": self._workers, "two processes": self._pair}.get(name, self._alone)
        kinds = (*events.KINDS, _BOTH, _LONG) if self._play == self._pair else events.KINDS
        self._deck = events.deck(kinds, self.scenario.phases, count, self._dice)
        self.laps = self.starts = 0
        self.undisturbed: dict[str, Any] = {}

    def run(self) -> Iterator[Hit]:
        """Plays the scenario to its end, and yields each event.

        Raises:
          AssertionError: as soon as something hangs, ends with a wrong code, or leaves a wrong record.
          TimeoutError: if a process does not end.
        """
        whole = self._root / "undisturbed"
        self._to_the_end([self._start(whole, fresh=True, devices=2 if self._play == self._pair else 0)])
        self.undisturbed = self.scenario.read(whole)
        missed = 0  # laps in a row without an event: a phase may be over before its moment comes
        while self._deck:
            self.laps += 1
            workdir = self._root / f"lap{self.laps:02d}"
            before = len(self._deck)
            wanted = self._dice.randrange(3, _MOST + 1)
            more = _ASHA if self._play == self._workers and self.laps % 2 == 0 else ()
            yield from self._play(workdir, max(0, before - wanted), more)
            missed = missed + 1 if len(self._deck) == before else 0
            assert missed < _MISSED, f"no moment came for any of {self._deck}"
            check = records.equal_study if self._play == self._workers else records.equal
            check(self.scenario.read(workdir), self.undisturbed)
            shutil.rmtree(workdir)

    def _environment(self, phase: str) -> dict[str, Any]:
        """Returns options of a start: a user's for an event while it starts, and where nothing is compiled yet."""
        cache = f"cold{self.starts}" if phase == COMPILE else "cache"
        return {"fresh": phase == START, "quick": True, "JAX_COMPILATION_CACHE_DIR": str(self._root / cache)}

    def _flags(self, workdir: pathlib.Path, more: Sequence[str] = ()) -> list[str]:
        """Returns the flags; the workdir is a relative path, as users write it."""
        return [_EXPERIMENT, f"--workdir={os.path.relpath(workdir, ROOT)}", *self.scenario.flags, *more]

    def _start(self, workdir: pathlib.Path, phase: str = "", more: Sequence[str] = (), **options: Any) -> Any:
        self.starts += 1
        flags = self._flags(workdir, more)
        return start(self.scenario.command, *flags, **self._environment(phase) | options)

    def _start_pair(self, workdir: pathlib.Path, phase: str = "") -> list[Any]:
        self.starts += 1
        timeouts = (f"--step_timeout={_STEP_TIMEOUT}", "--connect_timeout=30", "--heartbeat_timeout=60")
        return together(*self._flags(workdir, timeouts), **self._environment(phase))

    def _to_the_end(self, processes: Sequence[Any]) -> None:
        """Lets processes end by themselves."""
        for process in processes:
            code, output = process.finish(2 * events.LIMIT)
            assert code == 0, f"exit code {code} without a signal:\n{output}"

    def _next(self, running: bool) -> Event | None:
        """Takes the next event; for a command that runs already, the next that does not come earlier."""
        for index, event in enumerate(self._deck):
            if not running or event.phase not in (START, COMPILE):
                return self._deck.pop(index)
        return None

    def _alone(self, workdir: pathlib.Path, left: int, more: Sequence[str]) -> Iterator[Hit]:
        """Plays a lap with one process, until `left` events are left or it ends."""
        process: Any = None
        while len(self._deck) > left and (event := self._next(process is not None)) is not None:
            process = process or self._start(workdir, event.phase, more)
            if not events.reach(process, event.phase, workdir, self._dice):
                self._deck.insert(0, event)  # it is over
                break
            codes = self._hit(process, event, workdir)
            process = None if codes else process
            yield event, codes
        self._to_the_end([process or self._start(workdir, "", more)])

    def _hit(self, process: Any, event: Event, workdir: pathlib.Path) -> list[int]:
        """Strikes a process, and checks how it ends; returns its exit code, or nothing if it goes on."""
        events.strike(process, event.kind, self._dice)
        codes = list[int]()
        if event.kind != events.STOP:
            code, output = process.finish(events.LIMIT)
            events.check(event, code, output)
            codes = [code]
        records.check_logs(workdir)
        return codes

    def _workers(self, workdir: pathlib.Path, left: int, more: Sequence[str]) -> Iterator[Hit]:
        """Plays a lap with four workers of one study. A worker that an event ends is replaced by another one."""
        workers = [self._start(workdir, "", more) for _ in range(_WORKERS - 1)]
        while len(self._deck) > left and (event := self._next(len(workers) == _WORKERS)) is not None:
            if len(workers) < _WORKERS:
                workers.append(self._start(workdir, event.phase, more))
            worker = workers[-1] if event.phase in (START, COMPILE) else self._dice.choice(workers)
            if not events.reach(worker, event.phase, workdir, self._dice):
                self._deck.insert(0, event)  # there are no more trials
                break
            codes = self._hit(worker, event, workdir)
            if codes:
                workers.remove(worker)
            yield event, codes
        self._to_the_end(workers)
        self._to_the_end([self._start(workdir, "", more)])  # in case that an event has ended the last one

    def _pair(self, workdir: pathlib.Path, left: int, more: Sequence[str]) -> Iterator[Hit]:
        """Plays a lap with two processes of one run, of which an event hits one or both."""
        pair: list[Any] = []
        while len(self._deck) > left and (event := self._next(bool(pair))) is not None:
            pair = pair or self._start_pair(workdir, event.phase)
            if not events.reach(pair[0], event.phase, workdir, self._dice):  # the first one prints what both do
                self._deck.insert(0, event)
                break
            codes = self._strike_one_of(pair, event)
            pair = [] if codes else pair
            records.check_logs(workdir)
            yield event, codes
        self._to_the_end(pair or self._start_pair(workdir))

    def _strike_one_of(self, pair: Sequence[Any], event: Event) -> list[int]:
        """Lets an event happen to one of two processes or both, and checks how both end.

        Returns:
          Both exit codes, first that of the process that was hit; none if both go on.
        """
        victim, other = self._dice.sample(pair, 2)
        if event.kind == _BOTH:
            for process in pair:
                process.kill()
        elif event.kind == _LONG:
            victim.send_signal(signal.SIGSTOP)
            other.wait(_STEP_TIMEOUT + 80)
            victim.send_signal(signal.SIGCONT)
        else:
            events.strike(victim, event.kind, self._dice)
        if event.kind == events.STOP:
            return []
        ends = [process.finish(events.LIMIT) for process in (victim, other)]
        codes, said = [code for code, _ in ends], "".join(output for _, output in ends)
        lost = {_LOST, _ABORTED} | ({0} if events.is_over(said) else set())
        if event.kind == _BOTH:
            wanted = {-signal.SIGKILL} | (lost & {0})
            assert set(codes) <= wanted, f"{event}: {codes}\n{said}"
        elif event.kind == _LONG:
            assert set(codes) <= lost, f"{event}: {codes}\n{said}"
        else:
            events.check(event, codes[0], said)
            together = {75} if codes[0] == 75 else {0} if codes[0] == 0 else lost
            together |= {75} if event.kind == events.TWICE else set()
            assert codes[1] in together, f"{event}: {codes}\n{said}"
        return codes
