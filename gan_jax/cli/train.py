"""Trains a GAN, or continues a run where it stopped.

  gan-jax train --config=digits --workdir=runs/digits --config.steps=2000

--config names a shipped config (digits by default) or an experiment file.
--config.KEY=VALUE overrides its keys. The same command continues a run, and so
does --workdir alone.

A workdir has a copy of its experiment file, which continuing runs: use only
workdirs of people whose code you would run.

Exit codes: 0 done; 1 a bug; 2 bad flag, config, data or storage; 3 diverged;
69 another process is missing, or a step did not end (134 if JAX ends this one
first); 75 stopped by a signal, after saving; 130 interrupted before there was
anything to save; 141 the reader of its output has gone, as after `| head`.
After 69, 75, 130, 134 and 141 the same command continues the run.
"""

import pathlib
from typing import Any

import jax
from absl import flags

from gan_jax import runs, runtime
from gan_jax.cli import flags as commands
from gan_jax.cli import kinds, launch, slices
from gan_jax.distributed import signals
from gan_jax.runs.workdir import agree, has_begun
from gan_jax.runtime import environment
from gan_jax.runtime.loop import DIVERGED, DONE, STOPPED
from gan_jax.runtime.program import build_start, compile_program
from gan_jax.runtime.progress import log
from gan_jax.types import InvalidInputError

_WORKDIR = kinds.path("workdir", None, "directory of the run, or its URL: gs:// or s3://", bucket=True)
_DRY_RUN = flags.DEFINE_bool("dry_run", False, "print data, parameters and memory, compile the program, train nothing")
_TOPOLOGY = kinds.given("topology", slices.TEXT)
_WANDB = flags.DEFINE_string("wandb_project", "", "log to this Weights & Biases project too")
_INIT_FROM = kinds.path(
    "init_from", None, "fine-tune: workdir of the run whose networks this run starts with, at step 0", bucket=True
)
_INIT_STEP = flags.DEFINE_integer(
    "init_step",
    None,
    "step of the checkpoint of --init_from; the newest by default",
    lower_bound=0,
    upper_bound=2**63 - 1,
)
_INIT_PLAYERS = flags.DEFINE_list(
    "init_players",
    [],
    "OURS=THEIRS,...: players of this run and the players or averages of --init_from that they start as, such as "
    "student=ema.generator,critic=generator; others are newly initialised. By default every player starts as the one "
    "of the same name",
)
_EXIT = {DONE: commands.DONE, STOPPED: commands.STOPPED, DIVERGED: commands.DIVERGED}


def dry_run(experiment: runtime.Experiment) -> None:
    """Does everything up to the first iteration: opens the data, prints what a run needs, and compiles the program."""
    mesh = runtime.make_mesh(fsdp=experiment.fsdp)
    source = experiment.open_source()
    log(source.summary())
    with jax.set_mesh(mesh):
        start = build_start(experiment, source.spec, mesh)
        experiment.check_metric({*start.abstract["window"], "samples/diversity"})
        compile_program(experiment, source, mesh, start, 0, log)


def _fill() -> dict[str, str]:
    """Parses --init_players into the argument `fill` of `runtime.init_from`."""
    pairs = [pair.split("=") for pair in _INIT_PLAYERS.value]
    if any(len(pair) != 2 or not all(pair) for pair in pairs) or len({pair[0] for pair in pairs}) < len(pairs):
        raise InvalidInputError(
            f"--init_players={','.join(_INIT_PLAYERS.value)}: expected OURS=THEIRS,..., OURS each once"
        )
    if pairs and not _INIT_FROM.value:
        raise InvalidInputError("--init_players needs --init_from=WORKDIR, the run that has the players THEIRS")
    return dict(pairs)  # type: ignore[arg-type]  # pairs, as checked above


def _begun_from() -> dict[str, Any] | None:
    """Returns what config.json records about --init_from; None without it."""
    fill = _fill()
    if _INIT_STEP.value is not None and not _INIT_FROM.value:
        raise InvalidInputError(f"--init_step={_INIT_STEP.value} needs --init_from=WORKDIR, the run of that checkpoint")
    source = {"workdir": _INIT_FROM.value, "step": _INIT_STEP.value} | ({"players": fill} if fill else {})
    return source if _INIT_FROM.value else None


def train(
    experiment: runtime.Experiment, workdir: pathlib.Path, watchdog: runtime.Watchdog, stop: signals.StopRequest
) -> int:
    """Trains, and returns the exit code."""
    options: dict[str, Any] = {"log": log, "watchdog": watchdog, "stop": stop, "wandb_project": _WANDB.value}
    if _INIT_FROM.value:
        checkpoints = kinds.place(_INIT_FROM) / "checkpoints"
        if not checkpoints.is_dir():
            raise InvalidInputError(f"--init_from={_INIT_FROM.value}: no workdir of a run; it has no {checkpoints}")
        record = workdir / "init_from.json"
        options["begin"] = runtime.init_from(checkpoints, _INIT_STEP.value, fill=_fill(), record=record, log=log)
    config = flags.FLAGS.config.to_dict()
    result = runtime.train(
        experiment, workdir, config=config, evaluation_cache=environment.cache_directory() / "evaluation", **options
    )
    return _EXIT[result.status]


def check() -> None:
    """Refuses flags that contradict each other, before anything is read."""
    _begun_from()
    if _WORKDIR.value is None and not _DRY_RUN.value:
        raise InvalidInputError(
            "--workdir is missing: a directory for checkpoints and logs, such as --workdir=runs/digits"
        )


def main() -> int:
    """Runs the command."""
    path, module, config = commands.experiment_file()
    compiled_for = slices.check(_TOPOLOGY.value, _DRY_RUN.value)
    check()
    with launch.launched() as watchdog, signals.stop_signals() as stop:
        others = {flag.name: flag.value for flag in (_DRY_RUN, _TOPOLOGY, _INIT_FROM, _INIT_STEP, _INIT_PLAYERS)}
        agree(config, path, others, watchdog.patience)
        experiment = module.build(config)
        if _DRY_RUN.value:
            if compiled_for is None:
                dry_run(experiment)
            else:
                slices.train(experiment, config, compiled_for)
            return commands.DONE
        workdir, begun = kinds.place(_WORKDIR), _begun_from()
        is_new = not has_begun(workdir)
        runs.claim_together(workdir, lambda: runs.claim(workdir, path, config, init_from=begun), watchdog.patience)
        if is_new:
            log(f"new run of {commands.chosen()} in {workdir}")
        return train(experiment, workdir, watchdog, stop)
