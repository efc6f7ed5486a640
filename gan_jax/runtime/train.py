"""Training from beginning to end: open what a run needs, loop, and say how it ended."""

import contextlib
import dataclasses
import errno
import json
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from gan_jax.data import Source
from gan_jax.deprecated import arguments
from gan_jax.distributed import hosts
from gan_jax.distributed import mesh as meshes
from gan_jax.distributed.signals import StopRequest, stop_signals
from gan_jax.distributed.watchdog import Watchdog
from gan_jax.host import write_json
from gan_jax.runtime import workdir as workdirs
from gan_jax.runtime.checkpoint import Checkpointer, state_sha256
from gan_jax.runtime.evaluation import Evaluator
from gan_jax.runtime.experiment import EVALUATED, Experiment
from gan_jax.runtime.logging import Logger, Silent, Watch
from gan_jax.runtime.loop import DIVERGED, DONE, Loop
from gan_jax.runtime.program import Carried, Start, build_start, compile_program
from gan_jax.runtime.progress import Progress, log
from gan_jax.runtime.rollback import Rollbacks
from gan_jax.runtime.trained import Trained
from gan_jax.types import InvalidInputError


@dataclasses.dataclass(frozen=True)
class Result:
    """How a run ended; also what `result.json` holds.

    Attributes:
      status: `done`, `stopped` by a signal, or `diverged`.
      step: iterations done.
      images: iterations times batch size.
      state_sha256: of the final state; empty for a diverged run.
      metrics: the last line of the log.
      checkpoint: step of the last checkpoint; None if there is none.
      best_checkpoint: step of that with the best `best_metric`; None without one.
      rollbacks: how often the run went back to a checkpoint after a divergence.
      trained: the final state, to sample from; None for a diverged run. It is not in `result.json`.
    """

    status: str
    step: int
    images: int
    state_sha256: str
    metrics: dict[str, Any]
    checkpoint: int | None
    best_checkpoint: int | None
    rollbacks: int
    trained: Trained | None = None

    def sample(self, n: int = 64, **options: Any) -> np.ndarray:
        """Draws samples of the final state; see `Trained.sample`.

        Raises:
          InvalidInputError: for a run that has diverged.
        """
        if self.trained is None:
            raise InvalidInputError("the run has diverged: load one of its checkpoints with gan_jax.load(workdir)")
        return self.trained.sample(n, **options)


@arguments(say="log")
def train(
    experiment: Experiment,
    workdir: str | pathlib.Path,
    *,
    log: Callable[[str], None] = log,
    begin: Callable[[Start], Carried] = lambda start: start.init(),
    watchdog: Watchdog | None = None,
    stop: StopRequest | None = None,
    wandb_project: str = "",
    config: Any = None,
    evaluation_cache: pathlib.Path | None = None,
    watch: Watch = lambda record: None,
) -> Result:
    """Trains an experiment to its end, from the newest checkpoint in `workdir` if there is one.

    In a run of several processes all of them call it, with the same arguments and a `workdir` that all of them see.

    Args:
      experiment: what to run.
      workdir: gets `checkpoints/`, `data.json`, `metrics.jsonl`, `samples/`, `tensorboard/` and `result.json`; and, if
        it holds no experiment file, the experiment itself, for `gan_jax.load` and the commands.
      log: gets the messages for the person watching; by default they are printed by the first process, and on a
        terminal or in a notebook a bar moves below them.
      begin: makes what is carried at step 0, where there is no checkpoint.
      watchdog: ends the process when a dispatch does not end, or another process does; entered here if it is not yet.
      stop: asks for a stop; by default SIGTERM and SIGINT do.
      wandb_project: see `Logger`.
      config: see `Logger`.
      evaluation_cache: directory of what metrics of samples need, see `Evaluator`; `workdir/evaluation` by default.
      watch: gets each line of the log, in every process; it may ask for a stop through `stop`.

    Returns:
      How it ended.

    Raises:
      InvalidInputError: for a batch size that the devices don't divide, data or checkpoints of something else, or
        storage that fails.
    """
    watchdog, workdir = watchdog or Watchdog(), pathlib.Path(workdir)
    with watchdog, _telling(workdir), contextlib.ExitStack() as stack:
        stop = stop or stack.enter_context(stop_signals())
        stack.enter_context(_held(experiment, workdir, log))
        mesh = meshes.make_mesh(fsdp=experiment.fsdp)
        meshes.check_batch_size(experiment.batch_size, mesh)
        source = experiment.open_source()
        log(source.summary())
        checkpointer = stack.enter_context(_checkpointer(experiment, workdir))
        stack.enter_context(jax.set_mesh(mesh))
        hosts.decide("data", lambda: note_data(source, workdir, bool(checkpointer.steps())), watchdog.patience)
        hosts.agree("data", {"fingerprint": source.fingerprint()}, watchdog.patience)
        start = build_start(experiment, source.spec, mesh)
        watchdog.beat("preparing metrics of samples")
        evaluator = make_evaluator(experiment, mesh, evaluation_cache or workdir / "evaluation", log, watchdog)
        if evaluator:
            _note_protocol(evaluator.records, workdir, bool(checkpointer.steps()), watchdog)
        evaluated = {f"{EVALUATED}{name}" for name in evaluator.values} if evaluator else set[str]()
        experiment.check_metric({*start.abstract["window"], "samples/diversity"} | evaluated)

        def last_good(every: int = 1) -> tuple[int, Carried]:
            watchdog.beat("restoring")
            restored = checkpointer.restore_latest(start.abstract, log, every=every, timeout=watchdog.patience)
            return (0, begin(start)) if restored is None else restored

        step, carried = last_good()
        if step:
            log(f"continuing from the checkpoint of step {step:,}")
        if hosts.is_primary():
            (workdir / "result.json").unlink(missing_ok=True)  # what it tells is about to change
        status, vote, diverged = DONE, hosts.Vote(mesh), (0, "")
        rollbacks = Rollbacks(workdir / "rollbacks.json", experiment.allowed_rollbacks())

        def advance(step: int, carried: Carried, logger: Silent) -> tuple[str, int, Carried, tuple[int, str]]:
            watchdog.beat("compiling")
            program = compile_program(experiment, source, mesh, start, step, log)
            with contextlib.closing(Progress(step, experiment.steps, log)) as progress:
                loop = Loop(experiment, program, checkpointer, logger, stop, vote, watchdog, log, progress, evaluator)
                ended = loop.run(step, carried)
            checkpointer.wait()
            return *ended, loop.diverged

        while True:
            with contextlib.closing(_logger(workdir, step, wandb_project, config, watch)) as logger:
                if step < experiment.steps:
                    status, step, carried, diverged = advance(step, carried, logger)
            result = _result(experiment, status, step, carried, logger, checkpointer)
            if status != DIVERGED or not rollbacks.allowed:
                break
            carried = {}  # room for what is restored: a checkpoint on schedule, so that a signal changes nothing
            again = rollbacks.take(*last_good(experiment.checkpoint_every), diverged, mesh, log)
            if again is None:
                break
            step, carried = again
        _write_result(workdir, result)
        if status == DIVERGED:
            return result
        trained = Trained(experiment, carried["state"], step, mesh, tuple(source.class_names))
    return dataclasses.replace(result, trained=trained)


@contextlib.contextmanager
def _held(experiment: Experiment, workdir: pathlib.Path, log: Callable[[str], None]) -> Iterator[None]:
    """Keeps other processes out of a workdir, unless the caller of `train` does, and the experiment in it."""
    mine = hosts.is_primary() and workdirs.lock(workdir)
    try:
        if mine:
            workdirs.keep(experiment, workdir, log)
        yield
    finally:
        if mine:
            workdirs.release(workdir)


def _write_result(workdir: pathlib.Path, result: Result) -> None:
    if hosts.is_primary():
        facts = dataclasses.asdict(result)
        write_json(workdir / "result.json", {name: value for name, value in facts.items() if name != "trained"})


def _result(
    experiment: Experiment, status: str, step: int, carried: Carried, logger: Silent, checkpointer: Checkpointer
) -> Result:
    return Result(
        status,
        step,
        step * experiment.batch_size,
        "" if status == DIVERGED else state_sha256(carried["state"]),
        logger.last,
        max(checkpointer.steps(), default=None),
        checkpointer.best_step(),
        int(carried["rollbacks"]),
    )


def make_evaluator(
    experiment: Experiment,
    mesh: Mesh,
    cache: pathlib.Path,
    log: Callable[[str], None],
    watchdog: Watchdog,
) -> Evaluator | None:
    """What computes the metrics that the experiment wants; call it with `jax.set_mesh(mesh)` in force."""
    wanted = experiment.wanted_metrics()
    if not wanted:
        return None
    return Evaluator(
        wanted, experiment.comparison, mesh, cache, functions=experiment.outputs, own=experiment.own_metrics,
        seed=experiment.seed, log=log, beat=watchdog.beat, patience=watchdog.patience,
    )  # fmt: skip


def _note_protocol(records: dict[str, Any], workdir: pathlib.Path, resuming: bool, watchdog: Watchdog) -> None:
    """Keeps the protocols of `eval/` in the log; refuses to go on with a metric under another one."""

    def note() -> dict[str, list[Any]]:
        path = workdir / "evaluation.json"
        before = json.loads(path.read_text()) if resuming and path.exists() else {}
        now = json.loads(json.dumps(records))
        changed = {name: [before[name], now[name]] for name in before.keys() & now.keys() if before[name] != now[name]}
        if not changed:
            write_json(path, before | now)
        return changed

    changed = hosts.decide("protocol of metrics", note, watchdog.patience)
    for name, (before, now) in changed.items():
        raise InvalidInputError(
            f"metric {name!r} would no longer be comparable with what the log has: it was under {before}, and would be "
            f"under {now}. Restore the cache or reference of before, or remove {workdir / 'evaluation.json'} to accept"
        )


def _checkpointer(experiment: Experiment, workdir: pathlib.Path) -> Checkpointer:
    return Checkpointer(
        workdir / "checkpoints",
        keep_last=experiment.keep_last,
        every=experiment.checkpoint_every,
        keep_every=experiment.keep_every,
        best_metric=experiment.best_metric,
        best_mode=experiment.best(),
        about=experiment.about(),
    )


def _logger(workdir: pathlib.Path, step: int, wandb_project: str, config: Any, watch: Watch) -> Silent:
    if not hosts.is_primary():
        return Silent(watch)
    return Logger(workdir, step, wandb_project=wandb_project, config=config, watch=watch)


@contextlib.contextmanager
def _telling(workdir: pathlib.Path) -> Iterator[None]:
    """Tells the other processes of an error here, and the person what to do where a disk is full."""
    try:
        try:
            yield
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS):
                raise
            raise InvalidInputError(
                f"workdir {str(workdir)!r} could not be written: {error}; the checkpoints are untouched: make room or "
                "mend the storage, and run the same command again"
            ) from error
    except Exception as error:
        hosts.announce(error)
        raise


def note_data(source: Source, workdir: pathlib.Path, resuming: bool) -> None:
    """Keeps what the data are, for sampling without them; refuses to go on with others.

    Raises:
      InvalidInputError: if a run that is continued had other data.
    """
    record = workdir / "data.json"
    facts = {
        "spec": {name: {"shape": list(x.shape), "dtype": str(x.dtype)} for name, x in source.spec.items()},
        "fingerprint": source.fingerprint(),
        "summary": source.summary(),
        "class_names": list(source.class_names),
    }
    if resuming and record.exists():
        before = json.loads(record.read_text())
        if before["fingerprint"] != facts["fingerprint"]:
            raise InvalidInputError(
                f"the data are not those that {workdir} was trained on.\nThere: {before['summary']}\nNow: "
                f"{facts['summary']}\nContinue with the data of before, or train in another workdir"
            )
    write_json(record, facts)
