"""A worker of a study: takes a trial, trains it, tells how it ended, and takes another."""

import dataclasses
import functools
import hashlib
import json
import pathlib
from typing import Any

import ml_collections

from experiments import flags as commands
from experiments import launch, trials
from experiments import workdir as workdirs
from experiments.launch import say
from experiments.settings import FREE
from gan_jax import runtime, sweep
from gan_jax.runtime import hosts, signals
from gan_jax.runtime.loop import STOPPED
from gan_jax.sweep.space import Point, Space
from gan_jax.types import InvalidInputError


def facts(path: pathlib.Path, config: ml_collections.ConfigDict, space: Space) -> dict[str, Any]:
    """What all workers of a study must have in common."""
    shared = {key: value for key, value in config.to_dict().items() if key not in FREE and key not in space}
    return {"config": shared, "experiment file": hashlib.sha256(path.read_bytes()).hexdigest()}


@dataclasses.dataclass
class Worker:
    """One process, or all processes of a slice, of which only the first has the study.

    Attributes:
      module: the experiment file.
      path: of it.
      config: as resolved from file and flags.
      workdir: of the study.
      study: in the first process.
      settings: the experiment as the config has it, by whose `best_metric` the study goes.
      watchdog: of this process.
      stop: asks for a stop, by a signal or by the study.
    """

    module: Any
    path: pathlib.Path
    config: ml_collections.ConfigDict
    workdir: pathlib.Path
    study: Any
    settings: runtime.Experiment
    watchdog: runtime.Watchdog
    stop: signals.StopRequest

    def run(self) -> int:
        """Until there is nothing left to take, or a signal comes; returns the exit code."""
        while not self.stop.asked:
            taken = hosts.decide("trial", lambda: self.study.take(), self.watchdog.patience)
            if taken is None:
                say("there are no more trials to take")
                hosts.decide("pictures", self.show, self.watchdog.patience)
                return commands.DONE
            number, point, continued = taken
            say(f"trial {number}{', which another worker has left' if continued else ''}: {point}")
            status, value = self.trial(number, point)
            if status == STOPPED:
                break  # it is still running for the study: whoever comes next goes on with it
            hosts.decide("told", functools.partial(self.tell, number, status, value), self.watchdog.patience)
        return commands.STOPPED

    def trial(self, number: int, point: Point) -> tuple[str, float | None]:
        """Trains one to its end, or until it is pruned or stopped; returns which, and the metric's last value."""
        directory, values = trials.directory(self.workdir, number), []
        try:
            config = trials.configured(self.config, point)
            experiment = self.module.build(config)
        except InvalidInputError as error:
            say(f"trial {number} cannot be run: {error}")
            return "failed", None

        def watch(record: dict[str, Any]) -> None:
            if self.settings.best_metric not in record:
                return
            values.append(float(record[self.settings.best_metric]))
            if self.study is not None and self.study.report(number, record["images"], values[-1]):
                self.stop.reason = "the study, which prunes this trial"

        launch.claim(directory, lambda: workdirs.claim(directory, self.path, config), self.watchdog.patience)
        result = runtime.train(
            experiment, directory, say=say, watchdog=self.watchdog, stop=self.stop, config=config.to_dict(),
            watch=watch, evaluation_cache=launch.cache_directory() / "evaluation",
        )  # fmt: skip
        pruned = hosts.decide("pruned", lambda: bool(self.stop.reason), self.watchdog.patience)
        self.stop.reason = ""
        status = "pruned" if pruned and result.status == STOPPED else result.status
        return status, values[-1] if values else result.metrics.get(self.settings.best_metric)

    def show(self) -> None:
        """Table and pictures of what there is so far."""
        rows = self.study.rows(self.settings.best_metric)
        keys = [key for key in rows[0] if key in self.config] if rows else []
        trials.show(self.workdir, rows, keys, self.settings.best_metric, self.settings.best())

    def tell(self, number: int, status: str, value: float | None) -> None:
        """Tells the study and the person, and writes the table and, of a pruned trial, its result again."""
        record = trials.directory(self.workdir, number) / "result.json"
        if status == "pruned":
            workdirs.write_json(record, json.loads(record.read_text()) | {"status": status})
        self.study.tell(number, status, value)
        rows = self.study.rows(self.settings.best_metric)
        sweep.write_table(self.workdir, rows)
        told, best = [row["status"] for row in rows], self.study.best()
        counts = ", ".join(f"{told.count(x)} {x}" for x in sorted(set(told)))
        shown = "" if best is None else f"; best {self.settings.best_metric} {best[1]:.6g}, trial {best[0]}"
        say(f"trial {number} {status}, {self.settings.best_metric} {value}; {counts} of {self.study.num_trials}{shown}")
