"""A worker of a study: claims one trial or a population of trials, trains it, reports the result, and repeats."""

import dataclasses
import functools
import hashlib
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from gan_jax import runs, runtime, sweep
from gan_jax.buckets import StorageError
from gan_jax.distributed import hosts
from gan_jax.host import write_json
from gan_jax.runs import FREE, Config
from gan_jax.runs.workdir import SWEEP_SAVED
from gan_jax.runtime import environment
from gan_jax.runtime.identity import SAVED, saved_steps
from gan_jax.runtime.loop import DONE, STOPPED
from gan_jax.runtime.progress import log
from gan_jax.runtime.workdir import release
from gan_jax.sweep import driver, trials
from gan_jax.sweep.logs import SAVED as POPULATION_SAVED
from gan_jax.sweep.space import Point, Space
from gan_jax.sweep.trials import Job
from gan_jax.types import InvalidInputError

# Free settings that decide how trials are compared, so all workers must have them in common.
_COMPARED = ("steps", "report_every", "metrics", "evaluate_every", "best_metric", "best_mode")
_REFUSALS = 3  # consecutive trials that cannot be run; after these the cause is not the trial, and the worker ends


def facts(path: pathlib.Path, config: Config, space: Space) -> dict[str, Any]:
    """Returns what all workers of a study must have in common, beside the pruner.

    Args:
      path: path of the experiment file.
      config: config as resolved from file and flags.
      space: search space of the study.

    Returns:
      The hash of the experiment file, and the config without the keys of the space and without keys that change no
      iteration (except `_COMPARED`).
    """
    free = {*FREE, *space} - set(_COMPARED)  # `data_dir` is not free: trials of one study are of the same data
    shared = {key: value for key, value in config.to_dict().items() if key not in free}
    return {"config": shared, "experiment file": hashlib.sha256(path.read_bytes()).hexdigest()}


def _nothing() -> None:
    pass


@dataclasses.dataclass
class Worker:
    """A worker: one process, or all processes of a slice, of which only process 0 has the study.

    Attributes:
      job: the sweep.
      study: the study on process 0; None on other processes.
      settings: experiment of the config without a trial's values; the study optimises its `best_metric`.
      together: number of trials to claim at a time and train as one population; 0 for single trials.
    """

    job: Job
    study: Any
    settings: runtime.Experiment
    together: int = 0

    def run(self) -> str:
        """Trains trials until none are left (returns `done`) or a stop is requested (returns `stopped`)."""
        patience, refused = self.job.watchdog.patience, 0
        while not hosts.any_of("stop", self.job.stop.asked, patience):
            taken = hosts.decide("trials", lambda: self.study.take(self.together, self.saved), patience)
            if taken is None:
                log("there are no more trials to take")
                hosts.decide("pictures", self.show, patience)
                return DONE
            numbers, points, continued, together = taken
            left, after = ", abandoned by another worker" if continued else "", _nothing
            try:
                if together:
                    log(f"trials {numbers[0]} to {numbers[-1]} as one population{left}")
                    ends, after = self.population(numbers, points)
                else:
                    log(f"trial {numbers[0]}{left}: {points[0]}")
                    ends = [self.trial(numbers[0], points[0])]
                refused = 0
            except InvalidInputError as error:
                refused += 1
                if hosts.client() is not None or refused >= _REFUSALS or isinstance(error, StorageError):
                    raise  # the other processes may not have this error; or the cause is not the trial (a full disk)
                log(f"trial {numbers[0]} cannot be run: {error}")
                ends = [("failed", None)] * len(numbers)
            if STOPPED in [status for status, _ in ends]:
                break  # the study still has the trial as running: the next free worker continues it
            hosts.decide("told", functools.partial(self.tell, numbers, ends), patience)
            after()
        return STOPPED

    def trial(self, number: int, point: Point) -> tuple[str, float | None]:
        """Trains one trial until it ends, is pruned or is stopped.

        Args:
          number: number of the trial.
          point: point of the trial.

        Returns:
          The status, and the last value of the metric.
        """
        job, directory, values = self.job, trials.directory(self.job.workdir, number), []
        config = runs.with_values(job.config, point)
        experiment = job.module.build(config)

        def watch(record: dict[str, Any]) -> None:
            if self.settings.best_metric not in record:
                return
            values.append(float(record[self.settings.best_metric]))
            if self.study is not None and self.study.report(number, record["images"], values[-1]):
                job.stop.reason = "the study, which prunes this trial"

        runs.claim_together(directory, lambda: runs.claim(directory, job.path, config), job.watchdog.patience)
        result = runtime.train(
            experiment, directory, log=log, watchdog=job.watchdog, stop=job.stop, config=config.to_dict(),
            watch=watch, evaluation_cache=environment.cache_directory() / "evaluation",
        )  # fmt: skip
        pruned = hosts.decide("pruned", lambda: bool(job.stop.reason), job.watchdog.patience)
        job.stop.reason = ""
        # The pruner may ask for a stop too late: then the trial has ended by itself.
        status = "pruned" if pruned and result.status == STOPPED else result.status
        release(directory)
        if status == "pruned" and self.study is not None:
            write_json(directory / "result.json", trials.read_result(directory) | {"status": status})
        return status, values[-1] if values else result.metrics.get(self.settings.best_metric)

    def population(
        self, numbers: list[int], points: list[Point]
    ) -> tuple[list[tuple[str, float | None]], Callable[[], None]]:
        """Trains several trials as one population, whose members the study prunes.

        Args:
          numbers: numbers of the trials.
          points: points of the trials.

        Returns:
          The status and the last value of the metric of each trial; and a callback that exports runs, to be called
          after the study has been told.
        """
        directory = self.job.workdir / "populations" / f"{numbers[0]:05d}"
        job = dataclasses.replace(self.job, workdir=directory)
        take = functools.partial(runs.claim, directory, job.path, job.config, saved=SWEEP_SAVED)
        runs.claim_together(directory, take, job.watchdog.patience)
        made = trials.as_members(job.module, job.config, points)
        outcomes = driver.train(job, made, points, _Pruner(self, numbers))
        release(directory)
        values = [outcome.metrics.get(self.settings.best_metric) for outcome in outcomes]
        for number, outcome, value in zip(numbers, outcomes, values, strict=True):
            if self.study is not None and outcome.status == "done" and value is not None:
                self.study.report(number, outcome.images, value)  # at the last step the search is not asked
        ends = [(outcome.status, value) for outcome, value in zip(outcomes, values, strict=True)]
        return ends, lambda: driver.export(job, made, outcomes, points)

    def saved(self, first: int, together: bool) -> int:
        """Returns the last checkpoint's step of trial `first`, or of the population that begins with it; 0 without."""
        if together:
            home, patterns = self.job.workdir / "populations" / f"{first:05d}", POPULATION_SAVED
        else:
            home, patterns = trials.directory(self.job.workdir, first), SAVED
        return max(saved_steps(home, patterns), default=0)

    def show(self) -> None:
        """Writes the table and the pictures of the study so far."""
        with self.study.alone():
            rows = self.study.rows(self.settings.best_metric)
            keys = [key for key in rows[0] if key in self.job.config] if rows else []
            trials.show(self.job.workdir, rows, keys, self.settings.best_metric, self.settings.best())

    def tell(self, numbers: list[int], ends: list[tuple[str, float | None]]) -> None:
        """Tells the study how trials ended, if it does not know yet; rewrites the table, and logs a summary."""
        told_now = [x for x in zip(numbers, ends, strict=True) if self.study.holds(x[0])]
        with self.study.alone():
            for number, (status, value) in told_now:
                self.study.tell(number, status, value)
            rows = self.study.rows(self.settings.best_metric)
            sweep.write_table(self.job.workdir, rows)
        told, best = [row["status"] for row in rows], self.study.best()
        counts = ", ".join(f"{told.count(x)} {x}" for x in sorted(set(told)))
        shown = "" if best is None else f"; best {self.settings.best_metric} {best[1]:.6g}, trial {best[0]}"
        left = self.study.seconds_left()
        shown += "" if left is None else f"; ETA {runtime.duration(left)}"
        for number, (status, value) in told_now:
            log(f"trial {number} {status}, {self.settings.best_metric} {value}")
        log(f"{counts} of {self.study.num_trials}{shown}")


@dataclasses.dataclass(frozen=True)
class _Pruner:
    """Adapter that makes the study's pruner the search of a population: members that it prunes end."""

    replaces_diverged: ClassVar = False
    worker: Worker
    numbers: list[int]

    def due(self, step: int) -> bool:
        """Whether members have a new value of the metric after `step` iterations."""
        settings = self.worker.settings
        return step % (settings.evaluate_every or settings.report_every) == 0

    def decide(
        self, step: int, scores: Mapping[int, float], hparams: Mapping[int, Mapping[str, float]]
    ) -> sweep.Decision:
        """Reports every member's value to the study, and prunes the members that its pruner chooses."""
        del hparams
        settings, study = self.worker.settings, self.worker.study
        images, sign = step * settings.batch_size, -1.0 if settings.best() == "min" else 1.0

        def pruned() -> list[int]:
            return [one for one, score in scores.items() if study.report(self.numbers[one], images, sign * score)]

        return sweep.Decision(pruned=hosts.decide("pruned", pruned, self.worker.job.watchdog.patience))
