"""Sweeps over what a config's `sweep()` names: many trials in one program, or one after the other.

--config=FILE is an experiment file with `sweep()`, or --space says what varies:
--space='learning_rate=log(1e-4,1e-2);gamma=0.01,0.1;seed=0,1,2'. Trials are all combinations (--points=grid, with
--grid_size values of every distribution) or random draws (--points=random --num_trials=N).

--engine=population trains all trials as members of one compiled program, on all devices; --search=halving or
--search=pbt prunes or changes them on the way, by config.best_metric. --engine=study makes this process a worker of a
study of --num_trials, of which any number may be started with this command, on any machine that sees the workdir:
--sampler says what to try next, --pruner what to end early. --engine=local runs one trial after the other. The same
command continues a sweep. --print_commands prints each trial's own command, for SLURM arrays, JobSets or agents.

In the workdir: results.jsonl and results.csv with a row for each trial; pictures (sweep.png: every key against
config.best_metric; curves.png; lineage.png of pbt); members/NNNNN with the log and the result of a member of a
population; trials/NNNNN, runs as experiments.train makes them: every trial of --engine=study and local, and of a
population those that --export names (best, all, none, or 3,7), with their last checkpoint, to be sampled, evaluated or
continued. Exit codes are those of experiments.train.
"""

import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import jax
import ml_collections
from absl import flags

from experiments import flags as commands
from experiments import launch, trials, worker
from experiments import workdir as workdirs
from experiments.launch import say
from gan_jax import sweep
from gan_jax.runtime import hosts, signals
from gan_jax.sweep import space as spaces
from gan_jax.types import InvalidInputError

_WORKDIR = flags.DEFINE_string("workdir", None, "directory of the sweep")
_ENGINE = flags.DEFINE_enum("engine", "population", ["population", "study", "local"], "what runs the trials")
_STORAGE = flags.DEFINE_string("storage", "", "of a study: a database's URL; a journal in the workdir by default")
_SAMPLER = flags.DEFINE_enum("sampler", "tpe", ["tpe", "random", "grid", "qmc"], "of a study: what to try next")
_PRUNER = flags.DEFINE_enum(
    "pruner", "none", ["none", "median", "asha", "hyperband"], "of a study: which trials to end early"
)
_SPACE = flags.DEFINE_string("space", "", "what varies, in place of the config's sweep()")
_POINTS = flags.DEFINE_enum("points", "grid", ["grid", "random"], "which trials of the space")
_GRID_SIZE = flags.DEFINE_integer("grid_size", 3, "values of each distribution in a grid", lower_bound=1)
_NUM_TRIALS = flags.DEFINE_integer("num_trials", 16, "random draws, or trials of a study", lower_bound=1)
_SWEEP_SEED = flags.DEFINE_integer("sweep_seed", 0, "of random draws and of the search", lower_bound=0)
_SEARCH = flags.DEFINE_enum("search", "none", ["none", "halving", "pbt"], "what a population does on the way")
_FIRST_RUNG = flags.DEFINE_integer(
    "first_rung", 0, "of halving, in images; a 27th of the run by default", lower_bound=0
)
_ETA = flags.DEFINE_integer("eta", 3, "of halving: one in so many goes on at each rung", lower_bound=2)
_PBT_IMAGES = flags.DEFINE_integer(
    "pbt_images", 0, "between decisions of pbt; a tenth of the run by default", lower_bound=0
)
_EXPORT = flags.DEFINE_string(
    "export", "best", "whose checkpoints become ordinary runs: best, all, none, or ids by commas"
)
_PRINT = flags.DEFINE_bool("print_commands", False, "print the command of each trial, and run nothing")


def space_of(module: Any) -> spaces.Space:
    """What varies."""
    if _SPACE.value:
        return spaces.parse(_SPACE.value)
    if hasattr(module, "sweep"):
        return module.sweep()
    raise InvalidInputError("this config has no sweep(): say what varies by --space='learning_rate=log(1e-4,1e-2)'")


def points(module: Any) -> list[spaces.Point]:
    """The trials that the flags ask for."""
    space = space_of(module)
    if _POINTS.value == "grid":
        return spaces.grid(space, _GRID_SIZE.value)
    return spaces.random(space, _NUM_TRIALS.value, _SWEEP_SEED.value)


def search(steps: int, batch_size: int, report_every: int, evaluate_every: int) -> sweep.Search | None:
    """What the flags ask for, its images rounded up to iterations at which trials are compared."""
    unit = evaluate_every or report_every

    def iterations(images: int, share: int) -> int:
        wanted = images / batch_size if images else steps / share
        return max(unit, int(-(-wanted // unit) * unit))

    if _SEARCH.value == "halving":
        return sweep.Halving(iterations(_FIRST_RUNG.value, 27), _ETA.value)
    if _SEARCH.value == "pbt":
        return sweep.PopulationBased(iterations(_PBT_IMAGES.value, 10), _SWEEP_SEED.value)
    return None


def overridden() -> dict[str, Any]:
    """What the command line changes of the config, by key."""
    given = [word.partition("=")[0].removeprefix("--config.") for word in sys.argv[1:] if word.startswith("--config.")]
    return {key: flags.FLAGS.config[key] for key in given}


def claim(
    workdir: pathlib.Path, path: pathlib.Path, config: ml_collections.ConfigDict, wanted: Sequence[spaces.Point]
) -> None:
    """Takes the workdir, or refuses one of another sweep."""
    workdirs.claim(workdir, path, config)
    record = workdir / "points.json"
    now = json.loads(json.dumps(list(wanted)))
    if record.exists() and json.loads(record.read_text()) != now:
        raise InvalidInputError(
            f"{record} has other trials than this command asks for: continue with its flags, or use another --workdir"
        )
    workdirs.write_json(record, now)


def population(
    module: Any, path: pathlib.Path, wanted: Sequence[spaces.Point], workdir: pathlib.Path, watchdog: Any, stop: Any
) -> int:
    """All trials as one program."""
    made = trials.as_members(module, flags.FLAGS.config, wanted)
    for key, names in made.names.items():
        if names:
            say(f"{key} decides {', '.join(names)}")
    settings = made.experiment
    chosen = search(settings.steps, settings.batch_size, settings.report_every, settings.evaluate_every)
    outcomes = sweep.train_population(
        settings, made.members, workdir, search=chosen, say=say, stop=stop, watchdog=watchdog,
        evaluation_cache=launch.cache_directory() / "evaluation",
    )  # fmt: skip
    rows = [row(outcome, point, made) for outcome, point in zip(outcomes, wanted, strict=True)]
    best = sweep.best(rows, settings.best_metric, settings.best())
    statuses = [outcome.status for outcome in outcomes]
    if hosts.is_primary():
        trials.show(workdir, rows, list(wanted[0]), settings.best_metric, settings.best())
    if "stopped" not in statuses:
        wished = hosts.decide("export", lambda: to_export(outcomes, workdir, best), watchdog.patience)
        export(module, path, made, outcomes, wanted, workdir, wished)
    if best is not None:
        say(f"best {settings.best_metric}: {rows[best][settings.best_metric]:.6g}, trial {best}, {dict(wanted[best])}")
    counts = ", ".join(f"{statuses.count(x)} {x}" for x in sorted(set(statuses)))
    say(f"{len(rows)} trials: {counts}")
    return commands.STOPPED if "stopped" in statuses else commands.DONE


def row(outcome: sweep.Outcome, point: spaces.Point, made: trials.Members) -> dict[str, Any]:
    """What the table says of a trial."""
    varied = {name: value for name, value in outcome.hparams.items() if name in made.members[0].hparams}
    metrics = {name: value for name, value in outcome.metrics.items() if name not in ("step", "images")}
    facts = {"status": outcome.status, "step": outcome.step, "images": outcome.images}
    return {"trial": outcome.member, **point, **facts, **varied, **metrics}


def to_export(outcomes: Sequence[sweep.Outcome], workdir: pathlib.Path, best: int | None) -> list[int]:
    """The trials that --export names and that are not runs of their own yet, or were when they had done less."""
    known = [outcome.member for outcome in outcomes if outcome.step > 0]
    if _EXPORT.value in ("best", "none"):
        chosen = [best] if _EXPORT.value == "best" and best is not None else []
    elif _EXPORT.value == "all":
        chosen = known
    else:
        words = [word.strip() for word in _EXPORT.value.split(",")]
        if unknown := [word for word in words if not word.isdigit() or int(word) not in known]:
            raise InvalidInputError(
                f"--export={_EXPORT.value}: {', '.join(unknown)} is no trial that has a state; expected best, all, "
                f"none, or some of {', '.join(map(str, known))}"
            )
        chosen = [int(word) for word in words]

    def done(index: int) -> int:
        kept = (trials.directory(workdir, index) / "checkpoints").glob("[0-9]*")
        return max((int(path.name) for path in kept if path.name.isdigit()), default=0)

    return [index for index in chosen if done(index) < outcomes[index].step]


def export(
    module: Any,
    path: pathlib.Path,
    made: trials.Members,
    outcomes: Sequence[sweep.Outcome],
    wanted: Sequence[spaces.Point],
    workdir: pathlib.Path,
    chosen: Sequence[int],
) -> None:
    """Makes ordinary runs of trials."""
    configs = {index: trials.configured(flags.FLAGS.config, wanted[index]) for index in chosen}
    for index, config in configs.items():
        if hosts.is_primary():
            workdirs.claim(trials.directory(workdir, index), path, config)
    sweep.export(
        made.experiment, made.experiment.open_source(), made.members, [outcomes[index] for index in chosen], workdir,
        lambda index: trials.directory(workdir, index), lambda index: module.build(configs[index]),
    )  # fmt: skip
    for index in chosen:
        say(f"trial {index} is a run of its own in {trials.directory(workdir, index)}")


def study(module: Any, path: pathlib.Path, workdir: pathlib.Path, watchdog: Any, stop: signals.StopRequest) -> int:
    """Takes trials of a study, which other workers share, until there are none left."""
    config, space = flags.FLAGS.config, space_of(module)
    settings = module.build(config)
    if not settings.best_metric:
        raise InvalidInputError(
            "config.best_metric is empty: a study goes by it, such as --config.best_metric=eval/fcd2k"
        )
    shared = None
    if hosts.is_primary():
        try:
            from gan_jax.sweep.study import Study  # noqa: PLC0415 - an optional dependency
        except ImportError as error:
            raise InvalidInputError(f"--engine=study needs optuna ({error}): pip install -e '.[sweep]'") from error
        workdir.mkdir(parents=True, exist_ok=True)
        shared = Study(
            workdir, space, facts=worker.facts(path, config, space), num_trials=_NUM_TRIALS.value,
            mode=settings.best(), storage=_STORAGE.value, sampler=_SAMPLER.value, pruner=_PRUNER.value,
            grid_size=_GRID_SIZE.value, seed=_SWEEP_SEED.value,
        )  # fmt: skip
    return worker.Worker(module, path, config, workdir, shared, settings, watchdog, stop).run()


def local(module: Any, path: pathlib.Path, wanted: Sequence[spaces.Point], workdir: pathlib.Path, stop: Any) -> int:
    """One trial after the other, each a process of its own."""
    rows, failed = [], 0
    for index, point in enumerate(wanted):
        directory = trials.directory(workdir, index)
        result = directory / "result.json"
        if not result.exists() or json.loads(result.read_text())["status"] == "stopped":
            words = trials.command(path, overridden() | point, directory)
            say(f"trial {index} of {len(wanted)}: {dict(point)}")
            process = subprocess.run([sys.executable, *words[1:]], env=os.environ, check=False)
            if process.returncode == commands.STOPPED or stop.signal is not None:
                return commands.STOPPED
            failed += process.returncode not in (commands.DONE, commands.DIVERGED)
        if result.exists():
            found = json.loads(result.read_text())
            metrics = {name: value for name, value in found["metrics"].items() if name not in ("step", "images")}
            rows.append({"trial": index, **point, **{x: found[x] for x in ("status", "step", "images")}, **metrics})
            sweep.write_table(workdir, rows)
    settings = module.build(flags.FLAGS.config)
    trials.show(workdir, rows, list(wanted[0]), settings.best_metric, settings.best())
    say(f"{len(rows)} trials, {failed} failed")
    return commands.BAD_INPUT if failed else commands.DONE


def main(argv: Sequence[str]) -> int:
    """See the module."""
    del argv
    config, path = flags.FLAGS.config, commands.config_path()
    module = workdirs.load_module(path)
    wanted = points(module)
    if _WORKDIR.value is None:
        raise InvalidInputError("--workdir is missing: a directory for the sweep, such as --workdir=runs/sweep")
    workdir = pathlib.Path(_WORKDIR.value)
    if _PRINT.value:
        for index, point in enumerate(wanted):
            print(trials.shown(trials.command(path, overridden() | point, trials.directory(workdir, index))))
        return commands.DONE
    if _ENGINE.value == "population" and "device_count" not in os.environ.get("XLA_FLAGS", ""):
        jax.config.update("jax_num_cpu_devices", len(os.sched_getaffinity(0)))  # a member's products use one core
    with launch.launched() as watchdog, signals.stop_signals() as stop:
        others = {flag.name: flag.value for flag in (_ENGINE, _SPACE, _POINTS, _SEARCH)}
        launch.agree(workdirs.versions(), config.to_dict(), path, others, watchdog.patience)
        if _ENGINE.value == "study":
            return study(module, path, workdir, watchdog, stop)
        launch.claim(workdir, lambda: claim(workdir, path, config, wanted), watchdog.patience)
        if _ENGINE.value == "local":
            return local(module, path, wanted, workdir, stop)
        return population(module, path, wanted, workdir, watchdog, stop)


if __name__ == "__main__":
    commands.run(main, config=True)
