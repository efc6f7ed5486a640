"""Trials as the members of one population: their training, their table, and those that become runs of their own."""

import math
from collections.abc import Sequence
from typing import Any

from gan_jax import runs, runtime, sweep
from gan_jax.distributed import hosts
from gan_jax.runtime import environment
from gan_jax.runtime.progress import log
from gan_jax.runtime.workdir import release
from gan_jax.sweep import trials
from gan_jax.sweep.space import Point
from gan_jax.sweep.trials import Job
from gan_jax.types import InvalidInputError


def train(job: Job, made: trials.Members, points: Sequence[Point], search: sweep.Search | None) -> list[sweep.Outcome]:
    """Trains all trials as one program, keeps their table up to date, and draws it."""
    for key, names in made.names.items():
        if names:
            log(f"{key} decides {', '.join(names)}")
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
    keys = varied if changed else list(points[0])  # a search moved what the trials began with
    if hosts.is_primary():
        trials.show(job.workdir, found, keys, settings.best_metric, settings.best())
    if best is not None:
        values = {key: found[best][key] for key in keys}
        log(f"best {settings.best_metric}: {found[best][settings.best_metric]:.6g}, member {best}, {values}")
    log(f"{len(found)} members: {', '.join(f'{statuses.count(x)} {x}' for x in sorted(set(statuses)))}")
    return outcomes


def _row(outcome: sweep.Outcome, point: Point, made: trials.Members) -> dict[str, Any]:
    """What the table says of a trial."""
    varied = {name: value for name, value in outcome.hparams.items() if name in made.members[0].hparams}
    metrics = {name: value for name, value in outcome.metrics.items() if name not in ("step", "images")}
    facts = {"status": outcome.status, "step": outcome.step, "images": outcome.images}
    return {"trial": outcome.member, **point, **facts, **varied, **metrics}


def wished(wish: str, members: Sequence[int]) -> list[int]:
    """The members that are wished for by name; all or none where no name is.

    Raises:
      InvalidInputError: for one that is not among them.
    """
    if wish in ("best", "none", "all"):
        return list(members) if wish == "all" else []
    words = [word.strip() for word in wish.split(",")]
    if unknown := [word for word in words if not word.isdigit() or int(word) not in members]:
        raise InvalidInputError(
            f"--export={wish}: {', '.join(unknown)} is no trial that has a state; expected best, all, none, or some of "
            f"{', '.join(map(str, members)) or 'those that have: there are none'}"
        )
    return [int(word) for word in words]


def _to_export(job: Job, outcomes: Sequence[sweep.Outcome], settings: runtime.Experiment) -> list[int]:
    """The trials that are wished for and are not runs of their own yet, or were when they had done less."""
    rows = [{"status": one.status, "images": one.images, **one.metrics} for one in outcomes]
    best = sweep.best(rows, settings.best_metric, settings.best()) if job.wish == "best" else None
    known = [outcome.member for outcome in outcomes if outcome.step > 0]
    chosen = wished(job.wish, known) if best is None else [best]

    def done(index: int) -> int:
        kept = (trials.directory(job.workdir, index) / "checkpoints").glob("[0-9]*")
        return max((int(path.name) for path in kept if path.name.isdigit()), default=0)

    return [index for index in chosen if done(index) < outcomes[index].step]


def export(job: Job, made: trials.Members, outcomes: Sequence[sweep.Outcome], points: Sequence[Point]) -> None:
    """Makes ordinary runs of the trials that are wished for."""
    chosen = hosts.decide("export", lambda: _to_export(job, outcomes, made.experiment), job.watchdog.patience)
    configs = {index: trials.configured(job.config, points[index]) for index in chosen}
    for index, config in configs.items():
        if hosts.is_primary():
            runs.claim(trials.directory(job.workdir, index), job.path, config)
    sweep.export(
        made.experiment, made.experiment.open_source(), made.members, [outcomes[index] for index in chosen],
        job.workdir, lambda index: trials.directory(job.workdir, index), lambda index: job.module.build(configs[index]),
    )  # fmt: skip
    for index in chosen:
        release(trials.directory(job.workdir, index))
        log(f"member {index} is a run of its own in {trials.directory(job.workdir, index)}")
