"""Trials of a sweep: points of its space as configs, commands, and members of a population."""

import dataclasses
import functools
import json
import pathlib
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from gan_jax import core, runtime, sweep
from gan_jax.data import Source
from gan_jax.distributed import signals
from gan_jax.runs import Config
from gan_jax.runtime.program import abstract_batches, init_state
from gan_jax.runtime.progress import log
from gan_jax.sweep.space import Space, extremes
from gan_jax.types import InvalidInputError

Point = Mapping[str, Any]
_ADDRESS = re.compile(r"0x[0-9a-f]+")


@dataclasses.dataclass(frozen=True)
class Job:
    """What a sweep is of, and what its process runs with.

    Attributes:
      module: the experiment file.
      path: of it.
      config: as resolved from file and flags.
      workdir: of the sweep.
      watchdog: of this process.
      stop: asks for a stop, by a signal or by a study.
      wish: the members that become runs of their own: `best`, `all`, `none`, or ids by commas.
    """

    module: Any
    path: pathlib.Path
    config: Config
    workdir: pathlib.Path
    watchdog: runtime.Watchdog
    stop: signals.StopRequest
    wish: str = "best"


def configured(config: Config, point: Point) -> Config:
    """The config of a trial.

    Raises:
      InvalidInputError: for a key that the config has not, or a value of another type.
    """
    made = config.copy_and_resolve_references()
    for key, value in point.items():
        if key not in made:
            raise InvalidInputError(f"sweep over {key!r}: the config has no such key; it has {', '.join(sorted(made))}")
        try:
            made[key] = float(value) if isinstance(made[key], float) and type(value) is int else value
        except TypeError as error:
            raise InvalidInputError(f"sweep over {key!r}: {value!r} does not fit: {error}") from error
    return made


def directory(workdir: pathlib.Path, trial: int) -> pathlib.Path:
    """The workdir of a trial in that of its sweep."""
    return workdir / "trials" / f"{trial:05d}"


def command(path: pathlib.Path, overrides: Mapping[str, Any], workdir: pathlib.Path) -> list[str]:
    """The command that runs a trial alone."""
    options = [f"--config.{key}={_text(value)}" for key, value in overrides.items()]
    return ["gan-jax", "train", f"--config={path}", f"--workdir={workdir}", *options]


def shown(words: Sequence[str]) -> str:
    """A command as one would type it."""
    return shlex.join(words)


def _text(value: Any) -> str:
    return repr(value) if isinstance(value, float) else str(value)


def show(workdir: pathlib.Path, rows: Sequence[Mapping[str, Any]], keys: Sequence[str], metric: str, mode: str) -> None:
    """Writes the table of a sweep and its pictures, and says where they are."""
    sweep.write_table(workdir, rows)
    made = sweep.draw(workdir, rows, keys, metric, mode) if metric else []
    log(f"results in {', '.join(str(path) for path in (workdir / 'results.csv', *made))}")


@dataclasses.dataclass(frozen=True)
class Members:
    """Trials as members of one population.

    Attributes:
      experiment: of all, but for seed and runtime hyperparameters.
      members: one for each point.
      names: by key of the config, the runtime hyperparameters that it decides.
    """

    experiment: runtime.Experiment
    members: list[sweep.Member]
    names: dict[str, list[str]]


def as_members(module: Any, config: Config, points: Sequence[Point]) -> Members:
    """Finds out what each trial's config makes of the game, and that it is data: seed and runtime hyperparameters.

    Every trial is built. What must be the same in all: the schedule, shapes and names of the state, and, for the
    extreme values of every key, the traced step itself, so that nothing that a config decides is left out unnoticed.

    Args:
      module: the experiment file.
      config: with the overrides of the command line.
      points: of the trials.

    Returns:
      The members.

    Raises:
      InvalidInputError: for what cannot vary in a population; the message names the key.
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
                f"{key!r} decides no runtime hyperparameter of the game (data, evaluation and pictures are shared by "
                "the members of a population): sweep over it with --engine=study or --engine=local"
            )
    members = []
    for point in points:
        trial = trial_of(point)
        base.check_schedule(trial)
        members.append((int(configured(config, point).seed), trial.values))
    varied = sorted({name for _, values in members for name, x in values.items() if x != base.values[name]})
    return Members(
        base.experiment,
        [sweep.Member(seed, {name: values[name] for name in varied}) for seed, values in members],
        names,
    )


def bounds(module: Any, config: Config, space: Space) -> dict[str, tuple[float, float]]:
    """The least and the most that a space makes of each runtime hyperparameter that it decides."""
    held = [member.hparams for member in as_members(module, config, extremes(space)).members]
    return {name: (min(x[name] for x in held), max(x[name] for x in held)) for name in held[0]}


def _extremes(points: Sequence[Point], key: str) -> list[Point]:
    """The points with the least and the most of a key, or with each of its values if they are no numbers."""
    found = {repr(point[key]): point for point in points}
    if key == "seed" or len(found) == 1:
        return []
    if all(isinstance(point[key], int | float) and not isinstance(point[key], bool) for point in points):
        ordered = sorted(found.values(), key=lambda point: point[key])
        return [ordered[0], ordered[-1]]
    return list(found.values())


class _Trial:
    """A point's experiment, and what the members of a population would have to share."""

    def __init__(self, experiment: runtime.Experiment, source: Source, point: Point) -> None:
        self.experiment, self.point, self.source = experiment, point, source

    def _start(self) -> core.GANState:
        return init_state(self.experiment, self.source.spec, jax.random.key(0))

    @functools.cached_property
    def values(self) -> dict[str, float]:
        """Every runtime hyperparameter."""
        return {name: float(value) for name, value in jax.jit(lambda: core.get_hparams(self._start()))().items()}

    @functools.cached_property
    def traced(self) -> str:
        """The step, as text, with the shapes of its state."""
        batches = abstract_batches(self.experiment, self.source.spec)
        state = jax.eval_shape(self._start).replace(frozen=self.experiment.frozen_networks.shapes())
        traced = jax.make_jaxpr(self.experiment.step)(state, batches)
        constants = [float(jnp.sum(jnp.abs(x))) for x in traced.consts if jnp.issubdtype(x.dtype, jnp.floating)]
        return f"{_ADDRESS.sub('', str(traced))}\n{constants}"

    def check_schedule(self, other: "_Trial") -> None:
        """Refuses a trial whose schedule differs."""
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
        """Refuses a trial in which a key decides more than runtime hyperparameters."""
        self.check_schedule(other)
        if self.traced != other.traced:
            raise InvalidInputError(
                f"{key}={other.point[key]!r} changes the program, not only runtime hyperparameters (shapes, layers, "
                "phases or constants of the step): members of a population share one program; sweep over it with "
                "--engine=study or --engine=local"
            )


def _built_once(module: Any, config: Config) -> Callable[[Point], _Trial]:
    """Builds the trial of a point at the first call for it, whatever its seed; all have the source of the first."""
    built: dict[str, _Trial] = {}

    def trial(point: Point) -> _Trial:
        name = json.dumps({key: value for key, value in point.items() if key != "seed"}, sort_keys=True, default=str)
        if name not in built:
            experiment = module.build(configured(config, point))
            source = next(iter(built.values())).source if built else experiment.open_source()
            built[name] = _Trial(experiment, source, point)
        return built[name]

    return trial
