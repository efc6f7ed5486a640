"""A study that workers on any number of machines share: Optuna stores, samples and prunes the trials.

Workers use the ask-and-tell interface of Optuna (Akiba et al., "Optuna: A Next-generation Hyperparameter Optimization
Framework", arXiv:1907.10902, 2019). Its storage is a journal on a disk that all workers see, or a database. A worker
holds a lock on a file of each trial that it trains (a claim), until it reports the result or its process ends. So a
running trial that nobody has claimed is abandoned, and the next free worker continues it from its checkpoint. In a
bucket, a claim is a lease, which ends some time after its worker has.

In a worker of several processes only process 0 has a `Study`.
"""

import contextlib
import datetime
import json
import math
import pathlib
import re
import secrets
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypedDict

import optuna
from optuna.storages import JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from gan_jax.buckets import Lease
from gan_jax.host import FileLock, misfit, read_json, read_lines, take_lock, trim, user_path, write_json
from gan_jax.sweep.logs import DIVERGED, DONE, PRUNED, RUNNING
from gan_jax.sweep.space import Choice, Distribution, LogUniform, Point, Space, grid
from gan_jax.types import InvalidInputError

FAILED, WAITING = "failed", "waiting"
SAMPLERS, PRUNERS = ("tpe", "random", "grid", "qmc"), ("none", "median", "asha", "hyperband")
_TOGETHER, _PRUNED_AT = "population", "pruned at"  # names of user attributes of trials in Optuna
_ATTEMPTS = 3  # at a trial without progress; after these it counts as failed


class _StudyName(TypedDict):
    study_name: str


class _Operation(TypedDict):  # a line of Optuna's journal; the other keys depend on the operation
    op_code: int
    worker_id: str


class Taken(NamedTuple):
    """Trials that a worker has claimed: one, or the members of one population.

    Attributes:
      numbers: numbers of the trials.
      points: points of the trials.
      continued: whether another worker had begun them.
      together: whether they are the members of a population.
    """

    numbers: list[int]
    points: list[Point]
    continued: bool
    together: bool


class Study:
    """A worker's connection to a study: it claims trials, reports values and results, and reads the table."""

    def __init__(
        self,
        workdir: pathlib.Path,
        space: Space,
        *,
        facts: dict[str, Any],
        num_trials: int,
        mode: str,
        metric: str = "",
        storage: str = "",
        sampler: str = "tpe",
        pruner: str = "none",
        first_rung: int = 1,
        last: int = 1,
        eta: int = 3,
        grid_size: int = 3,
        seed: int = 0,
        log: Callable[[str], None] = print,
    ) -> None:
        """Opens a study, or creates it.

        Args:
          workdir: workdir of the sweep, which all workers see; gets `study.journal` and `claims/`.
          space: search space of the study.
          facts: values that must be equal in all workers, as JSON.
          num_trials: number of trials that all workers begin together; a grid always has all its points.
          mode: whether the `min` or the `max` of the metric is best.
          metric: name of the metric, for Optuna's dashboard and pictures.
          storage: URL of a database, in SQLAlchemy's form; empty for the journal.
          sampler: one of `SAMPLERS`; `grid` takes all combinations.
          pruner: one of `PRUNERS`. It counts in the unit of the `step` of `report`.
          first_rung: for `asha` and `hyperband`, the least steps that a trial makes before it can be pruned.
          last: for `hyperband`, the most steps that a trial makes.
          eta: for `asha` and `hyperband`, the reduction factor: one trial in `eta` passes a rung.
          grid_size: number of values of every distribution in a grid; a `Choice` has all its values.
          seed: seed of the sampler. With one worker, trials are a function of it.
          log: receives a message where the journal is repaired.

        Raises:
          InvalidInputError: if the storage cannot be opened, or the study has another space or other facts.
        """
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._workdir, self._num_trials = workdir, num_trials
        self._sampler, self._seed, self._worst = sampler, seed, math.inf if mode == "min" else -math.inf
        (workdir / "claims").mkdir(parents=True, exist_ok=True)
        pruning = _pruner(pruner, first_rung, last, eta)
        self._study = self._opened(storage, mode, pruning, log)
        self._distributions = {name: _distribution(x, grid_size, sampler == "grid") for name, x in space.items()}
        told = json.loads(json.dumps(facts | {"space": {name: repr(x) for name, x in self._distributions.items()}}))
        with self.alone():
            before = self._study.user_attrs.get("facts", told)
            if fault := misfit(before, dict[str, Any], "facts"):
                raise InvalidInputError(
                    f"the study in {str(workdir)!r} has damaged settings: {fault}; restore it from a copy, or start "
                    "another one in another workdir"
                )
            changed = [f"{x}: {before.get(x)} there, {told.get(x)} now" for x in told if before.get(x) != told.get(x)]
            if changed:
                raise InvalidInputError(
                    f"the study in {str(workdir)!r} has other settings:\n  " + "\n  ".join(changed) + "\n"
                    "continue with its settings, or use another workdir"
                )
            self._study.set_user_attr("facts", told)
            self._name_metric(metric)
            if sampler == "grid":
                self._num_trials = 0  # no trials but those enqueued: all, or the rest if a worker died half-way
                for point in grid(space, grid_size)[len(self._study.get_trials(deepcopy=False)) :]:
                    self._study.enqueue_trial(point)
        self._claims: dict[int, FileLock | Lease] = {}

    def _opened(
        self, storage: str, mode: str, pruner: optuna.pruners.BasePruner, log: Callable[[str], None]
    ) -> optuna.Study:
        """Opens the study in its journal or database, or creates it there."""
        journal = self._workdir / "study.journal"
        url = re.sub(r"(?<=^sqlite:///)~[^?]*", lambda found: str(user_path(found[0], "storage")), storage)
        if re.match(r"sqlite(\+\w+)?:(/{0,3}$|/{0,3}\?|///:memory:)", url) or "mode=memory" in url:
            raise InvalidInputError(
                f"storage={storage!r} is a database in memory, which no other worker sees and which ends with the "
                "process: name a file, such as sqlite:///study.db"
            )
        # Optuna's own errors would not tell which line of the journal is damaged.
        read_lines(journal, _Operation, remedy="restore it from a copy, or start another study in another workdir")
        try:
            with self.alone():  # workers that start together would all create the tables of a new database
                lock: Any = _JournalLock(journal, self._workdir / "claims" / "journal.lock", log)
                kept: Any = RDBStorage(url) if url else JournalStorage(JournalFileBackend(str(journal), lock))
                self._database = kept if url else None
                # A journal has one study, which keeps its name where the workdir gets another.
                name = self._name() if url else next(iter(optuna.get_all_study_names(kept)), self._workdir.name)
                return optuna.create_study(
                    storage=kept,
                    study_name=name,
                    direction="minimize" if mode == "min" else "maximize",
                    pruner=pruner,
                    load_if_exists=True,
                )
        except Exception as error:  # whatever the database's driver raises
            what = f"storage {storage!r}" if storage else f"the study's journal {journal}"
            raise InvalidInputError(
                f"{what} cannot be opened: {type(error).__name__}: {error}; fix it or restore it from a copy, or start "
                "another study in another workdir"
            ) from error

    def _name_metric(self, metric: str) -> None:
        """Names the metric in Optuna, once."""
        if metric and self._study.metric_names != [metric]:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                self._study.set_metric_names([metric])

    def _name(self) -> str:
        """Returns a name that is unique in the database: drawn once for each workdir, and kept there; call it alone."""
        path = self._workdir / "study.json"
        if not path.exists():
            write_json(path, {"study_name": f"{self._workdir.name}-{secrets.token_hex(4)}"})
        remedy = "it names the study in the database: restore it from a copy, or use another workdir"
        return read_json(path, _StudyName, remedy=remedy)["study_name"]

    def take(self, together: int = 0, saved: Callable[[int, bool], int] = lambda first, together: 0) -> Taken | None:
        """Claims the next trials: abandoned ones first, then new ones; None if there are none.

        An abandoned trial that made no progress in three attempts is recorded as failed instead.

        Args:
          together: number of new trials to claim as members of one population, fewer if fewer are left; 0 for a single
            trial.
          saved: `(trial, together) -> step` of the newest checkpoint of a trial, or of the population that begins with
            it.

        Returns:
          The trials; each stays claimed until `tell`, `close`, or the end of the process.
        """
        with self.alone():
            trials = self._study.get_trials()
            groups: dict[int, list[FrozenTrial]] = {}
            for trial in trials:
                groups.setdefault(trial.user_attrs.get(_TOGETHER, trial.number), []).append(trial)
            for first, group in groups.items():
                left = [x.number for x in group if x.state == TrialState.RUNNING]
                if not left or not self._claim_all(left):
                    continue
                whole = _TOGETHER in group[0].user_attrs
                if self._worth_trying(left[0], max(saved(first, whole), *(_reported(x) for x in group))):
                    return Taken([x.number for x in group], [self._point(x) for x in group], True, whole)
                for number in left:
                    self.tell(number, FAILED, None)
            new: list[optuna.Trial] = []
            while len(new) < max(1, together) and self._is_one_left():
                self._study.sampler = self._make_sampler(len(self._study.get_trials(deepcopy=False)))
                new.append(self._study.ask(self._distributions))
                if not self._claim(new[-1].number):
                    raise InvalidInputError(
                        f"trial {new[-1].number} is new but already claimed: does another study use {self._workdir}?"
                    )
                if together:
                    new[-1].set_user_attr(_TOGETHER, new[0].number)
            points = [dict(trial.params) for trial in new]
            return Taken([trial.number for trial in new], points, False, together > 0) if new else None

    def _claim_all(self, numbers: list[int]) -> bool:
        """Claims all trials or none: a worker that is exiting releases its locks one by one, and may hold some."""
        claimed = [number for number in numbers if self._claim(number)]
        if len(claimed) < len(numbers):
            for number in claimed:
                self._release(number)
        return len(claimed) == len(numbers)

    def _point(self, trial: FrozenTrial) -> Point:
        """Returns a trial's point. Parameters that a dead worker never recorded are sampled with the trial's seed."""
        if missing := self._distributions.keys() - trial.params.keys():
            self._study.sampler = self._make_sampler(trial.number)
            asked = self._trial(trial.number)
            for name in self._distributions:
                if name in missing:
                    _suggest(asked, name, self._distributions[name])
            return dict(asked.params)
        return dict(trial.params)

    def _is_one_left(self) -> bool:
        begun = self._study.get_trials(deepcopy=False)
        waiting = any(trial.state == TrialState.WAITING for trial in begun)
        return waiting or len(begun) < self._num_trials

    def report(self, number: int, step: int, value: float) -> bool:
        """Reports an intermediate value of a trial; returns whether to prune the trial.

        A value that is not finite counts as the worst. A continued trial may report a step again: the first value
        stays. If the pruner chose the trial before its worker died, it is pruned again from that step on.

        Args:
          number: number of the trial.
          step: position in the trial; workers pass the images that it has seen.
          value: value of the metric.
        """
        trial, known = self._trial(number), self._frozen(number)
        if step in known.intermediate_values or _PRUNED_AT in known.user_attrs:
            return step >= known.user_attrs.get(_PRUNED_AT, math.inf)
        trial.report(value if math.isfinite(value) else self._worst, step)
        if prune := trial.should_prune():
            trial.set_user_attr(_PRUNED_AT, step)
        return prune

    def tell(self, number: int, status: str, value: float | None) -> None:
        """Records how a trial ended, and releases its claim.

        A pruned or diverged trial is `PRUNED` in Optuna, as is one that is done without a finite value: samplers rank
        it below all trials that are complete. Samplers ignore failed trials.

        Args:
          number: number of the trial.
          status: `done`, `pruned`, `diverged` or `failed`.
          value: last value of the metric; None if there is none.

        Raises:
          InvalidInputError: for a trial that this worker has not claimed, or whose result is recorded already.
        """
        if not self.holds(number):
            raise InvalidInputError(
                f"trial {number} is not this worker's: only the worker that has claimed a trial may record its result"
            )
        self._claims[number].check(surely=True)  # a lease may be lost, and another worker have the trial by now
        states = {DONE: TrialState.COMPLETE, PRUNED: TrialState.PRUNED, DIVERGED: TrialState.PRUNED}
        known = value is not None and math.isfinite(value)
        state = states.get(status, TrialState.FAIL)
        if state == TrialState.COMPLETE and not known:
            state = TrialState.PRUNED
        self._trial(number).set_user_attr("status", status)
        self._study.tell(number, value if state == TrialState.COMPLETE else None, state)
        self._release(number)

    def holds(self, number: int) -> bool:
        """Whether this worker has claimed a trial and not yet recorded its result."""
        return number in self._claims

    def rows(self, metric: str) -> list[dict[str, Any]]:
        """Returns a row per trial; one without a recorded result is `running`, or `waiting` if nobody has begun it."""
        found = []
        for trial in self._study.get_trials():
            reported = trial.intermediate_values
            last = reported[max(reported)] if reported else None
            value = last if trial.value is None else trial.value
            without = WAITING if trial.state == TrialState.WAITING else RUNNING
            row: dict[str, Any] = {
                "trial": trial.number,
                **trial.system_attrs.get("fixed_params", {}),  # of a grid, known before the trial begins
                **trial.params,
                "status": trial.user_attrs.get("status", without),
            }
            if _TOGETHER in trial.user_attrs:
                row[_TOGETHER] = trial.user_attrs[_TOGETHER]
            found.append(row | {"images": max(reported, default=0)} | ({} if value is None else {metric: value}))
        return found

    @property
    def num_trials(self) -> int:
        """The number of trials that the study will have."""
        return max(self._num_trials, len(self._study.get_trials(deepcopy=False)))

    def best(self) -> tuple[int, float] | None:
        """Returns the number and the value of the best complete trial; None if no trial is complete."""
        done = self._study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        if not done:
            return None
        trial = self._study.best_trial
        return trial.number, float(trial.value or 0.0)

    def seconds_left(self) -> float | None:
        """Estimates the seconds until all trials have ended, at the pace so far; None before the first has ended."""
        trials = self._study.get_trials(deepcopy=False)
        ended = sum(trial.state.is_finished() for trial in trials)
        began = [trial.datetime_start for trial in trials if trial.datetime_start is not None]
        if not ended:
            return None
        return (datetime.datetime.now() - min(began)).total_seconds() / ended * (self.num_trials - ended)

    def _frozen(self, number: int) -> FrozenTrial:
        return self._study.get_trials(deepcopy=False)[number]

    def _trial(self, number: int) -> optuna.Trial:
        return optuna.Trial(self._study, self._frozen(number)._trial_id)

    def _worth_trying(self, number: int, reached: int) -> bool:
        """Counts consecutive attempts at a trial without progress; returns whether another attempt is allowed."""
        attempts, before = self._frozen(number).user_attrs.get("attempts", [1, 0])
        attempts = 1 if reached > before else attempts + 1
        self._trial(number).set_user_attr("attempts", [attempts, reached])
        return attempts <= _ATTEMPTS

    def _make_sampler(self, begun: int) -> optuna.samplers.BaseSampler:
        seed = (self._seed * 1_000_003 + begun) % 2**31  # by trial: workers with one seed would repeat each other
        if self._sampler == "qmc":  # one seed for all trials: Optuna counts the points of the sequence in the storage
            return optuna.samplers.QMCSampler(qmc_type="halton", scramble=True, seed=self._seed)
        if self._sampler in ("random", "grid"):
            return optuna.samplers.RandomSampler(seed=seed)
        return optuna.samplers.TPESampler(seed=seed, constant_liar=True)

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Holds a lock of the whole study: one worker at a time claims trials, and writes the files that all write."""
        lock = take_lock(self._workdir / "claims" / "study.lock", patient=True)
        assert not isinstance(lock, str)
        try:
            yield
        finally:
            lock.release()

    def _claim(self, number: int) -> bool:
        found = take_lock(self._workdir / "claims" / f"{number:05d}.lock")
        if isinstance(found, str):
            return False
        self._claims[number] = found
        return True

    def close(self) -> None:
        """Releases all claims, and closes the database, as the end of the process does."""
        for number in list(self._claims):
            self._release(number)
        if self._database is not None:
            self._database.remove_session()
            self._database.engine.dispose()

    def _release(self, number: int) -> None:
        self._claims.pop(number).release()


class _JournalLock:
    """The lock of the journal's writers: a lock of the system, which the end of a process releases however it comes.

    Optuna's own locks are files that a killed worker leaves behind. The others then wait for 30 s, and for ever where
    the workdir is a relative path. Whoever takes this one removes the incomplete last line that a killed writer has
    left: the next line would be appended to it, and no worker could read the journal any more.
    """

    def __init__(self, path: pathlib.Path, lock: pathlib.Path, log: Callable[[str], None]) -> None:
        self._path, self._lock, self._log = path, lock, log
        self._held: Any = None

    def acquire(self) -> bool:
        self._held = take_lock(self._lock, patient=True)
        with self._path.open("r+b") as journal:
            removed = trim(journal)
        if removed:
            self._log(f"{self._path}: removed an incomplete last line of {removed} bytes, left by a killed worker")
        return True

    def release(self) -> None:
        self._held.release()


def _distribution(x: Distribution, size: int, in_grid: bool) -> optuna.distributions.BaseDistribution:
    if isinstance(x, Choice) or in_grid:
        return optuna.distributions.CategoricalDistribution(x.grid(size))
    if isinstance(x, LogUniform):
        return optuna.distributions.FloatDistribution(x.low, x.high, log=True)
    if x.whole:
        return optuna.distributions.IntDistribution(int(x.low), int(x.high))
    return optuna.distributions.FloatDistribution(x.low, x.high)


def _reported(trial: FrozenTrial) -> int:
    return max(trial.intermediate_values, default=0)


def _suggest(trial: optuna.Trial, name: str, distribution: optuna.distributions.BaseDistribution) -> None:
    if isinstance(distribution, optuna.distributions.CategoricalDistribution):
        trial.suggest_categorical(name, distribution.choices)
    elif isinstance(distribution, optuna.distributions.IntDistribution):
        trial.suggest_int(name, distribution.low, distribution.high)
    else:
        assert isinstance(distribution, optuna.distributions.FloatDistribution)
        trial.suggest_float(name, distribution.low, distribution.high, log=distribution.log)


def _pruner(name: str, first: int, last: int, eta: int) -> optuna.pruners.BasePruner:
    if name == "asha":
        return optuna.pruners.SuccessiveHalvingPruner(first, eta)
    if name == "hyperband":
        return optuna.pruners.HyperbandPruner(first, max(first, last), eta)
    return {"none": optuna.pruners.NopPruner, "median": optuna.pruners.MedianPruner}[name]()
