"""A worker of a study: takes a trial, or a population of them, trains it, tells how it ended, and takes more."""

import dataclasses
import functools
import hashlib
import json
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from gan_jax import runs, runtime, sweep
from gan_jax.distributed import hosts
from gan_jax.host import write_json
from gan_jax.runs import FREE, Config
from gan_jax.runs.workdir import SWEEP_SAVED
from gan_jax.runtime import environment
from gan_jax.runtime.loop import DONE, STOPPED
from gan_jax.runtime.progress import log
from gan_jax.runtime.workdir import release
from gan_jax.sweep import driver, trials
from gan_jax.sweep.space import Point, Space
from gan_jax.sweep.trials import Job
from gan_jax.types import InvalidInputError

_COMPARED = ("steps", "report_every", "metrics", "evaluate_every", "best_metric", "best_mode")  # trials, by these
_REFUSALS = 3  # in a row, after which it is not for the trials that they cannot be run


def facts(path: pathlib.Path, config: Config, space: Space) -> dict[str, Any]:
    """What all workers of a study must have in common, beside its pruner."""
    free = {*FREE, *space} - set(_COMPARED)
    shared = {key: value for key, value in config.to_dict().items() if key not in free}
    return {"config": shared, "experiment file": hashlib.sha256(path.read_bytes()).hexdigest()}


def _nothing() -> None:
    pass


@dataclasses.dataclass
class Worker:
    """One process, or all processes of a slice, of which only the first has the study.

    Attributes:
      job: what the study is of.
      study: in the first process.
      settings: the experiment as the config has it, by whose `best_metric` the study goes.
      together: so many trials are taken at a time, as one population; 0 for one alone.
    """

    job: Job
    study: Any
    settings: runtime.Experiment
    together: int = 0

    def run(self) -> str:
        """Until there is nothing left to take (`done`), or a signal comes (`stopped`)."""
        patience, refused = self.job.watchdog.patience, 0
        while not hosts.any_of("stop", self.job.stop.asked, patience):
            taken = hosts.decide("trials", lambda: self.study.take(self.together, self.saved), patience)
            if taken is None:
                log("there are no more trials to take")
                hosts.decide("pictures", self.show, patience)
                return DONE
            numbers, points, continued, together = taken
            left, after = ", which another worker has left" if continued else "", _nothing
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
                if hosts.client() is not None or refused >= _REFUSALS:
                    raise  # not all processes may have met it; or it is not for the trial, as with a full disk
                log(f"trial {numbers[0]} cannot be run: {error}")
                ends = [("failed", None)] * len(numbers)
            if STOPPED in [status for status, _ in ends]:
                break  # still running for the study: whoever comes next goes on with it
            hosts.decide("told", functools.partial(self.tell, numbers, ends), patience)
            after()
        return STOPPED

    def trial(self, number: int, point: Point) -> tuple[str, float | None]:
        """Trains one to its end, or until it is pruned or stopped; returns which, and the metric's last value."""
        job, directory, values = self.job, trials.directory(self.job.workdir, number), []
        config = trials.configured(job.config, point)
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
        status = "pruned" if pruned and result.status == STOPPED else result.status
        record = directory / "result.json"
        release(directory)
        if status == "pruned" and self.study is not None:
            write_json(record, json.loads(record.read_text()) | {"status": status})
        return status, values[-1] if values else result.metrics.get(self.settings.best_metric)

    def population(
        self, numbers: list[int], points: list[Point]
    ) -> tuple[list[tuple[str, float | None]], Callable[[], None]]:
        """Trains several as one program, which the study prunes; returns of each what `trial` does, and what to do once
        the study knows.
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
                self.study.report(number, outcome.images, value)  # after the last iteration no search is asked
        ends = [(outcome.status, value) for outcome, value in zip(outcomes, values, strict=True)]
        return ends, lambda: driver.export(job, made, outcomes, points)

    def saved(self, first: int, together: bool) -> int:
        """The step of the newest checkpoint of a trial, or of the population that begins with it."""
        home = self.job.workdir / "populations" / f"{first:05d}" / "population"
        kept = home.glob("*/*") if together else (trials.directory(self.job.workdir, first) / "checkpoints").glob("*")
        return max((int(path.name) for path in kept if path.name.isdigit()), default=0)

    def show(self) -> None:
        """Table and pictures of what there is so far."""
        with self.study.alone():
            rows = self.study.rows(self.settings.best_metric)
            keys = [key for key in rows[0] if key in self.job.config] if rows else []
            trials.show(self.job.workdir, rows, keys, self.settings.best_metric, self.settings.best())

    def tell(self, numbers: list[int], ends: list[tuple[str, float | None]]) -> None:
        """Tells the study how trials ended that were not told before, and the person, and writes the table."""
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
    """The study's pruner as a search of a population: the members that it prunes end."""

    replaces_diverged: ClassVar = False
    worker: Worker
    numbers: list[int]

    def due(self, step: int) -> bool:
        """Wherever members have new values."""
        settings = self.worker.settings
        return step % (settings.evaluate_every or settings.report_every) == 0

    def decide(
        self, step: int, scores: Mapping[int, float], hparams: Mapping[int, Mapping[str, float]]
    ) -> sweep.Decision:
        """Reports all, and asks."""
        del hparams
        settings, study = self.worker.settings, self.worker.study
        images, sign = step * settings.batch_size, -1.0 if settings.best() == "min" else 1.0

        def pruned() -> list[int]:
            return [one for one, score in scores.items() if study.report(self.numbers[one], images, sign * score)]

        return sweep.Decision(pruned=hosts.decide("pruned", pruned, self.worker.job.watchdog.patience))
