"""Trials of a sweep: points of the search space as configs, as commands, and as members of a population."""

import dataclasses
import functools
import json
import pathlib
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypedDict

import jax
import jax.numpy as jnp

from gan_jax import core, runtime, sweep
from gan_jax.buckets import BucketPath
from gan_jax.data import Source
from gan_jax.distributed import signals
from gan_jax.host import read_json
from gan_jax.runs import Config, with_values
from gan_jax.runtime import board
from gan_jax.runtime.program import init_state, trace_step
from gan_jax.runtime.progress import log
from gan_jax.sweep.pictures import read_log
from gan_jax.sweep.space import Space, extremes
from gan_jax.types import InvalidInputError

Point = Mapping[str, Any]
_ADDRESS = re.compile(r"0x[0-9a-f]+")  # addresses of Python objects, which differ between two traces of one step


class SweepRecord(TypedDict):
    """The content of `sweep.json`: the points of all trials, and the search with its settings."""

    trials: list[dict[str, Any]]


class _Result(TypedDict):
    status: str
    step: int
    images: int
    metrics: dict[str, float]


def read_result(directory: pathlib.Path) -> Any:
    """Reads `result.json`: how the trial of a directory ended.

    Raises:
      InvalidInputError: if it is missing or damaged.
    """
    remedy = "remove it, and the trial is continued from its last checkpoint"
    return read_json(directory / "result.json", _Result, remedy=remedy)


@dataclasses.dataclass(frozen=True)
class Job:
    """A sweep, and what this process runs it with.

    Attributes:
      module: module of the experiment file.
      path: path of the experiment file.
      config: config as resolved from file and flags.
      workdir: workdir of the sweep.
      watchdog: watchdog of this process.
      stop: asks for a stop; set by a signal or by a study that prunes.
      wish: members to export as ordinary runs: `best`, `all`, `none`, or ids separated by commas.
    """

    module: Any
    path: pathlib.Path
    config: Config
    workdir: pathlib.Path
    watchdog: runtime.Watchdog
    stop: signals.StopRequest
    wish: str = "best"


def directory(workdir: pathlib.Path, trial: int) -> pathlib.Path:
    """Returns the workdir of a trial, inside the workdir of its sweep."""
    return workdir / "trials" / f"{trial:05d}"


def command(config: str, overrides: Mapping[str, Any], workdir: pathlib.Path) -> list[str]:
    """Returns the command, as words, that runs a trial as a process of its own."""
    options = [f"--config.{key}={_text(value)}" for key, value in overrides.items()]
    return ["gan-jax", "train", f"--config={config}", f"--workdir={workdir}", *options]


def shown(words: Sequence[str]) -> str:
    """Formats a command for a shell, with quotes where they are needed."""
    return shlex.join(words)


def _text(value: Any) -> str:
    return repr(value) if isinstance(value, float) else str(value)


def show(workdir: pathlib.Path, rows: Sequence[Mapping[str, Any]], keys: Sequence[str], metric: str, mode: str) -> None:
    """Writes the table and the pictures of a sweep, and logs their paths; no pictures without a metric."""
    sweep.write_table(workdir, rows)
    write_boards(workdir, rows, keys, metric)
    made = sweep.draw(workdir, rows, keys, metric, mode) if metric else []
    log(f"results in {', '.join(str(path) for path in (workdir / 'results.csv', *made))}")


def write_boards(workdir: pathlib.Path, rows: Sequence[Mapping[str, Any]], keys: Sequence[str], metric: str) -> None:
    """Writes a run for TensorBoard for each member of a population; trials of their own have written theirs."""
    if isinstance(workdir, BucketPath):  # each of them would be a request, and members/ has their logs
        return
    for row in rows:
        lines = read_log(workdir, row)
        place = workdir / board.BOARD / f"{row['trial']:05d}"
        if lines and not (directory(workdir, row["trial"]) / board.BOARD).exists():
            known = {key: row[key] for key in keys if key in row}
            board.write_run(place, workdir.name, known, lines, [metric] if metric else [])


@dataclasses.dataclass(frozen=True)
class Members:
    """The trials of a sweep as members of one population.

    Attributes:
      experiment: experiment that all trials share, except for seed and runtime hyperparameters.
      members: one member for each point.
      names: by key of the config, the names of the runtime hyperparameters that the key sets.
    """

    experiment: runtime.Experiment
    members: list[sweep.Member]
    names: dict[str, list[str]]


def as_members(module: Any, config: Config, points: Sequence[Point]) -> Members:
    """Turns trials into members of a population, and checks that they differ in seed and runtime hyperparameters alone.

    Every trial is built. All must have the same integer and text settings. For the extreme values of every key the
    traced step, which includes the shapes of the state, must be the same too: so no effect of a key on the program goes
    unnoticed.

    Args:
      module: module of the experiment file.
      config: config with the overrides of the command line.
      points: points of the trials.

    Returns:
      The members.

    Raises:
      InvalidInputError: for a key that cannot vary in a population; the message names the key.
    """
    trial_of = _built_once(module, config)
    base = trial_of(points[0])
    names = {}
    for key in points[0]:
        extremes = [trial_of({**points[0], key: point[key]}) for point in _extremes(points, key)]
        for trial in extremes:
            base.check(trial, key)
        names[key] = sorted({name for trial in extremes for name, x in trial.values.items() if x != base.values[name]})
    for key, decided in names.items():
        if key != "seed" and not decided and len({repr(point[key]) for point in points}) > 1:
            raise InvalidInputError(
                f"{key!r} sets no runtime hyperparameter of the game (data, evaluation and pictures are shared by "
                "the members of a population): sweep over it with --engine=study or --engine=local"
            )
    members = []
    for point in points:
        trial = trial_of(point)
        base.check_schedule(trial)
        members.append((int(with_values(config, point).seed), trial.values))
    varied = sorted({name for _, values in members for name, x in values.items() if x != base.values[name]})
    return Members(
        base.experiment,
        [sweep.Member(seed, {name: values[name] for name in varied}) for seed, values in members],
        names,
    )


def bounds(module: Any, config: Config, space: Space) -> dict[str, tuple[float, float]]:
    """Returns the range `(least, most)` of each runtime hyperparameter that a space varies, by name."""
    held = [member.hparams for member in as_members(module, config, extremes(space)).members]
    return {name: (min(x[name] for x in held), max(x[name] for x in held)) for name in held[0]}


def _extremes(points: Sequence[Point], key: str) -> list[Point]:
    """Returns the points with the smallest and largest value of a key; one point per value if they are not numbers.

    Returns none for the seed, and for a key with a single value.
    """
    found = {repr(point[key]): point for point in points}
    if key == "seed" or len(found) == 1:
        return []
    if all(isinstance(point[key], int | float) and not isinstance(point[key], bool) for point in points):
        ordered = sorted(found.values(), key=lambda point: point[key])
        return [ordered[0], ordered[-1]]
    return list(found.values())


class _Trial:
    """The experiment of a point, with what must be equal in all members of a population."""

    def __init__(self, experiment: runtime.Experiment, source: Source, point: Point) -> None:
        self.experiment, self.point, self.source = experiment, point, source

    def _start(self) -> core.GANState:
        return init_state(self.experiment, self.source.spec, jax.random.key(0))

    @functools.cached_property
    def values(self) -> dict[str, float]:
        """All runtime hyperparameters of the game at step 0, by name."""
        return {name: float(value) for name, value in jax.jit(lambda: core.get_hparams(self._start()))().items()}

    @functools.cached_property
    def traced(self) -> str:
        """The traced step as text, which includes the shapes of the state."""
        traced = trace_step(self.experiment, jax.eval_shape(self._start), self.source.spec).jaxpr
        # The text does not show the values of array constants, so a sum over each one is compared too.
        constants = [float(jnp.sum(jnp.abs(x))) for x in traced.consts if jnp.issubdtype(x.dtype, jnp.floating)]
        return f"{_ADDRESS.sub('', str(traced))}\n{constants}"

    def check_schedule(self, other: "_Trial") -> None:
        """Raises InvalidInputError if an integer or text setting of another trial differs, other than its seed."""
        mine, theirs = (
            {n: x for n, x in vars(t.experiment).items() if isinstance(x, int | str)} for t in (self, other)
        )
        changed = sorted(name for name in mine if mine[name] != theirs[name] and name != "seed")
        if changed:
            raise InvalidInputError(
                f"{', '.join(f'{name}={theirs[name]!r}' for name in changed)} of the trial {dict(other.point)}: "
                f"members of a population share {', '.join(changed)}; sweep over it with --engine=study or "
                "--engine=local"
            )

    def check(self, other: "_Trial", key: str) -> None:
        """Raises InvalidInputError if another value of `key` changes more than runtime hyperparameters."""
        self.check_schedule(other)
        if self.traced != other.traced:
            raise InvalidInputError(
                f"{key}={other.point[key]!r} changes the program, not only runtime hyperparameters (shapes, layers, "
                "phases or constants of the step): members of a population share one program; sweep over it with "
                "--engine=study or --engine=local"
            )


def _built_once(module: Any, config: Config) -> Callable[[Point], _Trial]:
    """Returns a cached function that builds the trial of a point; all trials share the data source of the first.

    Points that differ in the seed alone share one trial, since the seed does not change the program.
    """
    built: dict[str, _Trial] = {}

    def trial(point: Point) -> _Trial:
        name = json.dumps({key: value for key, value in point.items() if key != "seed"}, sort_keys=True, default=str)
        if name not in built:
            experiment = module.build(with_values(config, point))
            source = next(iter(built.values())).source if built else experiment.open_source()
            built[name] = _Trial(experiment, source, point)
        return built[name]

    return trial
