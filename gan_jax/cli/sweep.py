r"""Trains many trials of one experiment, and finds the best by config.best_metric.

  gan-jax sweep --config=digits --workdir=runs/sweep --config.metrics=fcd2k \
    --config.evaluate_every=1000 --config.best_metric=eval/fcd2k

The config's sweep() lists the keys that vary and their values; --space replaces
it: --space='learning_rate=log(1e-4,1e-2);gamma=0.01,0.1;seed=0,1,2'.
--engine=population (the default) trains all trials as members of one compiled
program; during training --search=halving prunes members, and --search=pbt
(population-based training) replaces them. --engine=study makes this process a
worker of a study that any number of processes share, on any machine that sees
the workdir. --engine=local runs the trials one after another.
The same command continues a sweep. Exit codes are those of train.

The workdir gets results.csv and results.jsonl, with a row for each trial;
sweep.png and curves.png; and trials/NNNNN, ordinary runs to sample, evaluate
or continue (of a population, the members that --export selects).
"""

import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

import jax
from absl import flags

from gan_jax import runs, runtime, sweep
from gan_jax.buckets import BucketPath
from gan_jax.cli import flags as commands
from gan_jax.cli import kinds, launch, slices
from gan_jax.distributed import hosts, signals, topology
from gan_jax.host import read_json, write_json
from gan_jax.runs import workdir as workdirs
from gan_jax.runs.workdir import SWEEP_SAVED
from gan_jax.runtime import summary
from gan_jax.runtime.loop import STOPPED
from gan_jax.runtime.progress import log
from gan_jax.sweep import ahead, driver, trials, worker
from gan_jax.sweep import space as spaces
from gan_jax.sweep.trials import Job
from gan_jax.types import InvalidInputError

_WORKDIR = kinds.path("workdir", None, "directory of the sweep, or its URL: gs:// or s3://", bucket=True)
_ENGINE = flags.DEFINE_enum("engine", "population", ["population", "study", "local"], "what runs the trials")
_STORAGE = kinds.given("storage", "study: URL of a database; by default a journal file in the workdir is used")
_SAMPLER = flags.DEFINE_enum("sampler", "tpe", ["tpe", "random", "grid", "qmc"], "study: picks the next trial")
_PRUNER = flags.DEFINE_enum(
    "pruner", "none", ["none", "median", "asha", "hyperband"], "study: rule that ends trials early"
)
_POPULATION = flags.DEFINE_integer(
    "population",
    0,
    "study: trials that a worker takes at a time, as one program; 0 takes one alone",
    lower_bound=0,
    upper_bound=spaces.MOST_POINTS,
)
_SPACE = kinds.given("space", "what varies, instead of the config's sweep()")
_POINTS = flags.DEFINE_enum("points", "grid", ["grid", "random", "qmc"], "how points are chosen")
_GRID_SIZE = flags.DEFINE_integer(
    "grid_size", 3, "values per distribution in a grid", lower_bound=1, upper_bound=spaces.MOST_POINTS
)
_NUM_TRIALS = flags.DEFINE_integer(
    "num_trials", 16, "number of random or qmc points, or of study trials", lower_bound=1, upper_bound=10**9
)
_SWEEP_SEED = flags.DEFINE_integer(
    "sweep_seed", 0, "seed of drawn points, of a study's sampler, of pbt", lower_bound=0, upper_bound=2**63 - 1
)
_SEARCH = flags.DEFINE_enum("search", "none", ["none", "halving", "pbt"], "how a population searches")
_FIRST_RUNG = flags.DEFINE_integer(
    "first_rung",
    0,
    "halving, asha, hyperband: images of a trial up to the first rung; 0: 1/27 of its run",
    lower_bound=0,
    upper_bound=2**62,
)
_ETA = flags.DEFINE_integer(
    "eta", 3, "halving, asha, hyperband: one trial in ETA continues past each rung", lower_bound=2, upper_bound=2**20
)
_PBT_IMAGES = flags.DEFINE_integer(
    "pbt_images", 0, "pbt: images between decisions; 0: 1/10 of the run", lower_bound=0, upper_bound=2**62
)
_EXPORT = flags.DEFINE_string("export", "best", "trials to export: best, all, none, or ids as 3,7")
_DRY_RUN = flags.DEFINE_bool(
    "dry_run", False, "population: print data, trials and memory, compile the program, train nothing"
)
_TOPOLOGY = kinds.given("topology", slices.TEXT)
_PRINT = flags.DEFINE_bool("print_commands", False, "print the command of each trial, run nothing")


_SHARED = (  # flags that must be the same in all processes
    _ENGINE, _STORAGE, _SAMPLER, _PRUNER, _POPULATION, _SPACE, _POINTS, _GRID_SIZE, _NUM_TRIALS, _SWEEP_SEED, _SEARCH,
    _FIRST_RUNG, _ETA, _PBT_IMAGES, _EXPORT, _DRY_RUN, _TOPOLOGY,
)  # fmt: skip
_ONLY = {  # flags that only some engines use
    ("population",): (_SEARCH, _PBT_IMAGES, _DRY_RUN, _TOPOLOGY),
    ("study",): (_STORAGE, _SAMPLER, _PRUNER, _POPULATION),
    ("population", "local"): (_POINTS,),
    ("population", "study"): (_FIRST_RUNG, _ETA, _EXPORT),
}


def check() -> list[spaces.Point]:
    """Returns the trials, none for a study; refuses flags and spaces that no sweep of this config can have."""
    _, module, config = commands.experiment_file()
    check_flags()
    if _WORKDIR.value is None and (_PRINT.value or not _DRY_RUN.value):
        raise InvalidInputError("--workdir is missing: a directory for the sweep, such as --workdir=runs/sweep")
    space = space_of(module, config)
    return points(space) if _PRINT.value or _ENGINE.value != "study" else []


def check_flags() -> None:
    """Refuses flags that the chosen engine, points, sampler, pruner or search would ignore."""
    for engines, some in _ONLY.items():
        for flag in some:
            if flag.present and _ENGINE.value not in engines:
                raise InvalidInputError(
                    f"--{flag.name} is for --engine={' or '.join(engines)}; this is --engine={_ENGINE.value}"
                )
    in_study = _ENGINE.value == "study"
    if _PRINT.value and (in_study or _SEARCH.value != "none"):
        raise InvalidInputError(
            "--print_commands is for trials that are known in advance and train to their ends: not for --engine=study "
            "or --search"
        )
    if _NUM_TRIALS.present and not in_study and _POINTS.value == "grid":
        raise InvalidInputError("--num_trials is for --points=random or qmc, or --engine=study; a grid has --grid_size")
    if _GRID_SIZE.present and (_SAMPLER.value if in_study else _POINTS.value) != "grid":
        raise InvalidInputError("--grid_size is for --points=grid, or --sampler=grid of a study")
    if _PBT_IMAGES.present and _SEARCH.value != "pbt":
        raise InvalidInputError("--pbt_images is for --search=pbt")
    rungs = _SEARCH.value == "halving" or _PRUNER.value in ("asha", "hyperband")
    if (_FIRST_RUNG.present or _ETA.present) and not rungs:
        raise InvalidInputError("--first_rung and --eta are for --search=halving, --pruner=asha and --pruner=hyperband")


def space_of(module: Any, config: runs.Config) -> spaces.Space:
    """Returns the sweep's space, from --space or the config's `sweep()`; refuses values that the config cannot take."""
    if not _SPACE.value and not hasattr(module, "sweep"):
        raise InvalidInputError("this config has no sweep(): say what varies by --space='learning_rate=log(1e-4,1e-2)'")
    space = spaces.parse(_SPACE.value) if _SPACE.value else spaces.checked(module.sweep())
    try:
        for point in spaces.extremes(space):
            runs.with_values(config, point)
    except InvalidInputError as error:
        raise InvalidInputError(f"{'--space' if _SPACE.value else 'sweep() of this config'}: {error}") from error
    return space


def points(space: spaces.Space) -> list[spaces.Point]:
    """Returns the trials of a sweep without a study, as points of the space."""
    if _POINTS.value == "grid":
        return spaces.grid(space, _GRID_SIZE.value)
    draw = spaces.random if _POINTS.value == "random" else spaces.qmc
    return draw(space, _NUM_TRIALS.value, _SWEEP_SEED.value)


def iterations(settings: runtime.Experiment, flag: flags.FlagHolder[int], share: int) -> int:
    """Converts images to iterations, rounded up to a multiple of the interval at which trials are compared.

    Args:
      settings: the experiment.
      flag: the flag that gives the number of images; 0 for the default.
      share: the default is a `share`-th of the run.

    Returns:
      The number of iterations.

    Raises:
      InvalidInputError: if the run ends before, or with, that iteration.
    """
    unit = settings.evaluate_every or settings.report_every
    wanted = flag.value / settings.batch_size if flag.value else settings.steps / share
    found = max(unit, int(-(-wanted // unit) * unit))
    if found >= settings.steps:
        raise InvalidInputError(
            f"--{flag.name}: nothing would be decided before the end: the first decision is after "
            f"{found * settings.batch_size:,} images, and the run has {settings.steps * settings.batch_size:,}; "
            "expected fewer images, and more frequent evaluations "
            f"(config.{'evaluate_every' if settings.evaluate_every else 'report_every'}={unit})"
        )
    return found


def search(settings: runtime.Experiment) -> sweep.Halving | sweep.PopulationBased | None:
    """Returns the search that --search selects; None for none."""
    if _SEARCH.value == "halving":
        return sweep.Halving(iterations(settings, _FIRST_RUNG, 27), _ETA.value)
    if _SEARCH.value == "pbt":
        return sweep.PopulationBased(iterations(settings, _PBT_IMAGES, 10), _SWEEP_SEED.value)
    return None


def overridden() -> dict[str, Any]:
    """Returns the config values that the command line overrides, by key."""
    given = [word.partition("=")[0].removeprefix("--config.") for word in sys.argv[1:] if word.startswith("--config.")]
    return {key: flags.FLAGS.config[key] for key in given}


def _named(path: pathlib.Path) -> str:
    """Returns the value of --config for a file: its name if it is a shipped config, else its path."""
    return path.stem if runs.shipped().get(path.stem) == path else str(path)


def claim(job: Job, wanted: Sequence[spaces.Point], chosen: sweep.Halving | sweep.PopulationBased | None) -> None:
    """Claims the workdir and writes `sweep.json`; refuses a workdir in which another sweep has saved something."""
    record, settings = job.workdir / "sweep.json", job.module.build(job.config)
    by = [settings.best_metric, settings.best(), settings.evaluate_every or settings.report_every]
    now: dict[str, Any] = {"search": type(chosen).__name__ if chosen else "none"}
    now |= dataclasses.asdict(chosen) | {"by": by} if chosen else {}
    now |= {"trials": list(wanted)}
    now = json.loads(json.dumps(now))  # as it will be read back: tuples become lists
    if workdirs.has_begun(job.workdir, SWEEP_SAVED):
        remedy = "restore it from a copy of this workdir, or start again in another one"
        before = read_json(record, trials.SweepRecord, remedy=remedy)
        flat = [x | {f"trial {i}": point for i, point in enumerate(x["trials"])} for x in (before, now)]
        changed = [
            f"{key}: {flat[0].get(key, 'absent')!r} there, {flat[1].get(key, 'absent')!r} now"
            for key in flat[0] | flat[1]
            if key != "trials" and flat[0].get(key) != flat[1].get(key)
        ]
        if changed:
            raise InvalidInputError(
                f"workdir {str(job.workdir)!r} has another sweep:\n  " + "\n  ".join(changed[:20]) + "\n"
                "continue that with its own flags, or use another --workdir"
            )
    runs.claim(job.workdir, job.path, job.config, saved=SWEEP_SAVED)
    write_json(record, now)


def population(job: Job, wanted: Sequence[spaces.Point]) -> int:
    """Trains all trials as one program, and exports those that --export selects; returns the exit code."""
    made = trials.as_members(job.module, job.config, wanted)
    driver.wished(job.wish, range(len(wanted)))  # an unknown --export is refused before anything runs
    chosen = search(made.experiment)
    if isinstance(chosen, sweep.PopulationBased):
        chosen = dataclasses.replace(
            chosen, bounds=trials.bounds(job.module, job.config, space_of(job.module, job.config))
        )
    runs.claim_together(job.workdir, lambda: claim(job, wanted, chosen), job.watchdog.patience)
    outcomes = driver.train(job, made, wanted, chosen)
    statuses = {outcome.status for outcome in outcomes}
    if "stopped" in statuses:
        return commands.STOPPED
    driver.export(job, made, outcomes, wanted)
    return commands.DIVERGED if statuses == {"diverged"} else commands.DONE


def dry_run(
    module: Any, config: runs.Config, wanted: Sequence[spaces.Point], compiled_for: topology.Slice | None
) -> int:
    """Compiles the population that trains all trials, here or for a slice of TPUs, and prints what it needs."""
    made = trials.as_members(module, config, wanted)
    log(f"{len(wanted)} trials of {', '.join(wanted[0])}")
    if compiled_for is not None:
        slices.population(made, config, compiled_for)
        return commands.DONE
    source = made.experiment.open_source()
    log(source.summary())
    lowered = ahead.lower(made.experiment, source, made.members, jax.devices())
    log("compiling ...")
    began = time.monotonic()
    compiled = lowered.lowered.compile()
    log(f"compiled in {time.monotonic() - began:.1f} s; {lowered.iterations} iterations in one dispatch")
    log(summary.memory_line(lowered.lowered.args_info, compiled.memory_analysis()))
    return commands.DONE


def study(job: Job) -> int:
    """Works on a study shared with other workers until no trials are left; returns the exit code."""
    config, space = job.config, space_of(job.module, job.config)
    settings = job.module.build(config)
    if not settings.best_metric:
        raise InvalidInputError(
            "config.best_metric is empty: a study optimises it; give one, such as --config.best_metric=eval/fcd2k"
        )
    if job.wish not in ("best", "all", "none"):
        raise InvalidInputError(f"--export={job.wish}: expected best, all or none for the populations of a study")
    if _POPULATION.value:
        trials.as_members(job.module, config, spaces.extremes(space))  # refuses a key that cannot vary before any run
    names = runtime.logged_names(settings, settings.open_source().spec)
    settings.check_metric([*names, "samples/diversity"])  # else every trial would be refused, one after another
    shared = None
    if isinstance(job.workdir, BucketPath) and not _STORAGE.value:
        raise InvalidInputError(
            f"--workdir={job.workdir}: a study whose workdir is in a bucket needs a database, as a journal cannot be "
            "appended to there: add --storage=URL, such as postgresql://USER@HOST/NAME"
        )
    if hosts.is_primary():
        try:
            from gan_jax.sweep.study import Study  # noqa: PLC0415 - an optional dependency
        except ImportError as error:
            raise InvalidInputError(f"--engine=study needs optuna ({error}): pip install -e '.[sweep]'") from error
        job.workdir.mkdir(parents=True, exist_ok=True)
        rungs = _PRUNER.value in ("asha", "hyperband")
        first = iterations(settings, _FIRST_RUNG, 27) * settings.batch_size if rungs else 1
        pruned = {"pruner": _PRUNER.value, "mode": settings.best()}
        pruned |= {"first_rung": first, "eta": _ETA.value} if rungs else {}
        shared = Study(
            job.workdir, space, facts=worker.facts(job.path, config, space) | pruned, num_trials=_NUM_TRIALS.value,
            mode=settings.best(), metric=settings.best_metric, storage=_STORAGE.value or "",
            sampler=_SAMPLER.value, pruner=_PRUNER.value,
            first_rung=first, last=settings.steps * settings.batch_size, eta=_ETA.value,
            grid_size=_GRID_SIZE.value, seed=_SWEEP_SEED.value, log=log,
        )  # fmt: skip
    ended = worker.Worker(job, shared, settings, _POPULATION.value).run()
    return commands.STOPPED if ended == STOPPED else commands.DONE


def local(job: Job, wanted: Sequence[spaces.Point]) -> int:
    """Runs the trials one after another, each in its own process that has all devices; returns the exit code."""
    claim(job, wanted, None)
    rows, failed, ran, began = [], 0, 0, time.monotonic()
    for index, point in enumerate(wanted):
        directory = trials.directory(job.workdir, index)
        result = directory / "result.json"
        if not result.exists() or trials.read_result(directory)["status"] == "stopped":
            words = trials.command(_named(job.path), overridden() | point, directory) + launch.passed_on()
            left = f", ETA {runtime.duration((time.monotonic() - began) / ran * (len(wanted) - index))}" if ran else ""
            log(f"trial {index} of {len(wanted)}: {dict(point)}; {failed} failed{left}")
            code = _run(words, job.stop)
            if code == commands.STOPPED or job.stop.asked:
                return commands.STOPPED
            failed, ran = failed + (code not in (commands.DONE, commands.DIVERGED)), ran + 1
        if result.exists():
            found: Any = trials.read_result(directory)
            metrics = {name: value for name, value in found["metrics"].items() if name not in ("step", "images")}
            rows.append({"trial": index, **point, **{x: found[x] for x in ("status", "step", "images")}, **metrics})
        else:
            rows.append({"trial": index, **point, "status": "failed", "step": 0, "images": 0})
        sweep.write_table(job.workdir, rows)
    settings = job.module.build(job.config)
    trials.show(job.workdir, rows, list(wanted[0]), settings.best_metric, settings.best())
    best = sweep.best(rows, settings.best_metric, settings.best()) if settings.best_metric else None
    row = {} if best is None else rows[best]
    shown = f"; best {settings.best_metric} {row[settings.best_metric]:.6g}, trial {row['trial']}" if row else ""
    log(f"{len(rows)} trials, {failed} failed{shown}")
    if failed:
        return commands.BAD_INPUT
    return commands.DIVERGED if {row["status"] for row in rows} == {"diverged"} else commands.DONE


def _run(words: Sequence[str], stop: signals.StopRequest) -> int:
    """Runs a command in a child process, forwards SIGTERM to it, and returns its exit code."""
    process = subprocess.Popen([sys.executable, "-m", "gan_jax", *words[1:]])
    told = False
    while True:
        try:
            return process.wait(timeout=0.5)
        except subprocess.TimeoutExpired:
            if stop.signal == signal.SIGTERM and not told:  # a terminal sends SIGINT to both processes
                process.send_signal(signal.SIGTERM)
                told = True


def main() -> int:
    """Runs the command."""
    path, module, config = commands.experiment_file()
    compiled_for, wanted = slices.check(_TOPOLOGY.value, _DRY_RUN.value), check()
    workdir = pathlib.Path() if _WORKDIR.value is None else kinds.place(_WORKDIR)  # a dry run needs none
    if _PRINT.value:
        for index, point in enumerate(wanted):
            words = trials.command(_named(path), overridden() | point, trials.directory(workdir, index))
            print(trials.shown(words + launch.passed_on()))
        return commands.DONE
    if _ENGINE.value == "local":
        if launch.is_one_of_several():
            raise InvalidInputError(
                "--engine=local is for one process; several processes share trials with --engine=study"
            )
        jax.config.update("jax_platforms", "cpu")  # a TPU serves one process at a time: leave it to the trials
        with signals.stop_signals() as stop:
            return local(Job(module, path, config, workdir, runtime.Watchdog(), stop), wanted)
    if (_ENGINE.value == "population" or _POPULATION.value) and "device_count" not in os.environ.get("XLA_FLAGS", ""):
        # On CPUs every core becomes a device, since the products of a member run on one core.
        jax.config.update("jax_num_cpu_devices", len(os.sched_getaffinity(0)))
    with launch.launched() as watchdog, signals.stop_signals() as stop:
        workdirs.agree(config, path, {flag.name: flag.value for flag in _SHARED}, watchdog.patience)
        if _DRY_RUN.value:
            return dry_run(module, config, wanted, compiled_for)
        job = Job(module, path, config, workdir, watchdog, stop, _EXPORT.value)
        return study(job) if _ENGINE.value == "study" else population(job, wanted)
