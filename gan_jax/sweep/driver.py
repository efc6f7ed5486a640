"""The population engine of a sweep: trains trials as members of one population, writes the table, exports runs."""

import math
from collections.abc import Sequence
from typing import Any

from gan_jax import runs, runtime, sweep
from gan_jax.distributed import hosts
from gan_jax.runtime import environment
from gan_jax.runtime.identity import saved_steps
from gan_jax.runtime.progress import log
from gan_jax.runtime.workdir import release
from gan_jax.sweep import trials
from gan_jax.sweep.space import Point
from gan_jax.sweep.trials import Job
from gan_jax.types import InvalidInputError


def train(job: Job, made: trials.Members, points: Sequence[Point], search: sweep.Search | None) -> list[sweep.Outcome]:
    """Trains all trials as one program.

    Rewrites the table of results after every report, draws the pictures at the end, and logs the best trial.

    Args:
      job: the sweep.
      made: the trials as members of a population.
      points: the point of each trial.
      search: prunes and changes members; None for none.

    Returns:
      How each member ended, in the order of the points.
    """
    for key, names in made.names.items():
        if names:
            log(f"config.{key} sets the hyperparameters {', '.join(names)}")
    settings = made.experiment

    def rows(outcomes: Sequence[sweep.Outcome]) -> list[dict[str, Any]]:
        return [_row(outcome, points[outcome.member], made) for outcome in outcomes]

    outcomes = sweep.train_population(
        settings, made.members, job.workdir, search=search, log=log, stop=job.stop, watchdog=job.watchdog,
        watch=lambda so_far: sweep.write_table(job.workdir, rows(so_far)),
        evaluation_cache=environment.cache_directory() / "evaluation",
    )  # fmt: skip
    found, statuses = rows(outcomes), [outcome.status for outcome in outcomes]
    best = sweep.best(found, settings.best_metric, settings.best())
    varied = list(made.members[0].hparams)
    changed = any(
        not math.isclose(outcome.hparams[name], made.members[outcome.member].hparams[name], rel_tol=1e-6)
        for outcome in outcomes
        for name in varied
    )
    keys = (
        list(map(_column, varied)) if changed else list(points[0])
    )  # after a search has changed values, show the final ones
    if hosts.is_primary():
        trials.show(job.workdir, found, keys, settings.best_metric, settings.best())
    if best is not None:
        values = {key: found[best][key] for key in keys}
        log(f"best {settings.best_metric}: {found[best][settings.best_metric]:.6g}, member {best}, {values}")
    log(f"{len(found)} members: {', '.join(f'{statuses.count(x)} {x}' for x in sorted(set(statuses)))}")
    if not settings.best_metric:
        log(
            "config.best_metric is empty: no trial is the best, so there are no pictures and --export=best exports "
            "none.\nSet it, such as --config.metrics=fcd2k --config.evaluate_every=1000 "
            "--config.best_metric=eval/fcd2k,\nor export all trials by --export=all"
        )
    return outcomes


def _row(outcome: sweep.Outcome, point: Point, made: trials.Members) -> dict[str, Any]:
    """Returns a trial's row of the table: its point, how it ended, its metrics and its final hyperparameters.

    The latter are named as in logs, because a hyperparameter may have the name of a key of the config.
    """
    varied = {_column(name): outcome.hparams[name] for name in made.members[0].hparams}
    metrics = {name: value for name, value in outcome.metrics.items() if name not in ("step", "images")}
    facts = {"status": outcome.status, "step": outcome.step, "images": outcome.images}
    return {"trial": outcome.member, **point, **facts, **metrics, **varied}


def _column(name: str) -> str:
    return f"hparams/{name}"


def wished(wish: str, members: Sequence[int]) -> list[int]:
    """Returns the member ids that `--export` lists: all ids for `all`, none for `best` and `none`.

    Args:
      wish: value of `--export`.
      members: ids of the members that can be exported.

    Returns:
      The ids.

    Raises:
      InvalidInputError: for an id that is not in `members`.
    """
    if wish in ("best", "none", "all"):
        return list(members) if wish == "all" else []
    words = [word.strip() for word in wish.split(",")]
    if unknown := [word for word in words if not word.isdecimal() or int(word) not in members]:
        raise InvalidInputError(
            f"--export={wish}: {', '.join(unknown)} is not a trial that can be exported; expected best, all, none, or "
            f"ids among {', '.join(map(str, members)) or 'those with a saved state: there are none'}"
        )
    return [int(word) for word in words]


def _to_export(job: Job, outcomes: Sequence[sweep.Outcome], settings: runtime.Experiment) -> list[int]:
    """Returns the requested trials that have not been exported yet, or only at an earlier step."""
    rows = [{"status": one.status, "images": one.images, **one.metrics} for one in outcomes]
    best = sweep.best(rows, settings.best_metric, settings.best()) if job.wish == "best" else None
    known = [outcome.member for outcome in outcomes if outcome.step > 0]
    chosen = wished(job.wish, known) if best is None else [best]

    def done(index: int) -> int:
        return max(saved_steps(trials.directory(job.workdir, index)), default=0)

    return [index for index in chosen if done(index) < outcomes[index].step]


def export(job: Job, made: trials.Members, outcomes: Sequence[sweep.Outcome], points: Sequence[Point]) -> None:
    """Makes ordinary runs of the trials that `job.wish` requests, each in a workdir of its own.

    Args:
      job: the sweep.
      made: the trials as members of a population.
      outcomes: how each member ended, from `train`.
      points: the point of each trial.
    """
    # Process 0 decides: all processes must restore and save the same members, in the same order.
    chosen = hosts.decide("export", lambda: _to_export(job, outcomes, made.experiment), job.watchdog.patience)
    configs = {index: runs.with_values(job.config, points[index]) for index in chosen}
    for index, config in configs.items():
        if hosts.is_primary():
            runs.claim(trials.directory(job.workdir, index), job.path, config)
    sweep.export(
        made.experiment, made.experiment.open_source(), made.members, [outcomes[index] for index in chosen],
        job.workdir, lambda index: trials.directory(job.workdir, index),
        lambda index: job.module.build(configs[index]),
    )  # fmt: skip
    for index in chosen:
        release(trials.directory(job.workdir, index))
        log(f"member {index} is exported as a run of its own: {trials.directory(job.workdir, index)}")
