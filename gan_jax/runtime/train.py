"""Training from beginning to end: sets up a run, executes the loop, and returns the result."""

import contextlib
import dataclasses
import errno
import json
import pathlib
from collections.abc import Callable, Iterator
from typing import Any, NotRequired, TypedDict

import jax
import numpy as np
from jax.sharding import Mesh

from gan_jax.buckets import BucketPath
from gan_jax.data import Source
from gan_jax.deprecated import arguments
from gan_jax.distributed import hosts
from gan_jax.distributed import mesh as meshes
from gan_jax.distributed.signals import StopRequest, stop_signals
from gan_jax.distributed.watchdog import Watchdog
from gan_jax.host import read_json, user_path, write_json
from gan_jax.runtime import environment
from gan_jax.runtime import identity as identities
from gan_jax.runtime import workdir as workdirs
from gan_jax.runtime.arrays import state_sha256
from gan_jax.runtime.checkpoint import Checkpointer
from gan_jax.runtime.evaluation import Evaluator, same_protocol
from gan_jax.runtime.experiment import Experiment
from gan_jax.runtime.logging import Logger, Silent, Watch
from gan_jax.runtime.loop import DIVERGED, DONE, Loop
from gan_jax.runtime.program import Carried, Start, build_start, compile_program
from gan_jax.runtime.progress import Progress, log
from gan_jax.runtime.rollback import Rollbacks
from gan_jax.runtime.trained import Trained
from gan_jax.types import InvalidInputError, Spec


@dataclasses.dataclass(frozen=True)
class Result:
    """The result of a run, which `result.json` holds too.

    Attributes:
      status: `done`, `stopped` by a signal, or `diverged`.
      step: iterations done.
      images: images seen, which are iterations times batch size.
      state_sha256: hash of the final state; empty for a diverged run.
      metrics: last line of the log.
      checkpoint: step of the last checkpoint; None if there is none.
      best_checkpoint: step of the checkpoint with the best `best_metric`; None if there is none.
      rollbacks: number of times the run went back to a checkpoint after a divergence.
      trained: final state, to sample from; None for a diverged run. It is not in `result.json`.
    """

    status: str
    step: int
    images: int
    state_sha256: str
    metrics: dict[str, Any]
    checkpoint: int | None
    best_checkpoint: int | None
    rollbacks: int
    trained: Trained | None = dataclasses.field(default=None, repr=False)

    def sample(self, n: int = 64, **options: Any) -> np.ndarray:
        """Draws samples from the final state, with the options of `Trained.sample`.

        Raises:
          InvalidInputError: if the run has diverged.
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
      experiment: experiment to run.
      workdir: directory of the run, or its URL in a bucket, such as `gs://bucket/run`. It receives `checkpoints/`,
        `data.json`, `metrics.jsonl`, `samples/`, `tensorboard/` and `result.json`; and, if it holds no experiment file,
        the experiment itself, for `gan_jax.load` and the commands.
      log: receives the messages for the user. By default the first process prints them, with a progress bar below them
        in a terminal or notebook.
      begin: returns what is carried at step 0, if there is no checkpoint.
      watchdog: ends the process when a dispatch does not end, or when another process has ended. It may be entered
        already.
      stop: holds requests to stop; by default SIGTERM and SIGINT make one.
      wandb_project: Weights & Biases project to log to; empty for none.
      config: configuration that is logged to Weights & Biases.
      evaluation_cache: cache directory of the `Evaluator` for metrics of samples; by default `workdir/evaluation`, or
        the user's cache directory if the workdir is in a bucket.
      watch: is called with each line of the log, in every process; it may request a stop through `stop`.

    Returns:
      The result of the run.

    Raises:
      InvalidInputError: for a batch size that the devices do not divide, data or checkpoints of another run, or storage
        that fails.
    """
    watchdog, workdir = watchdog or Watchdog(), user_path(workdir, "workdir", bucket=True)
    with watchdog, _telling(workdir), contextlib.ExitStack() as stack:
        stop = stop or stack.enter_context(stop_signals())
        keep = stack.enter_context(_held(experiment, workdir, log))
        mesh = meshes.make_mesh(fsdp=experiment.fsdp)
        meshes.check_batch_size(experiment.batch_size, mesh)
        source = experiment.open_source()
        log(source.summary())
        checkpointer = stack.enter_context(_checkpointer(experiment, workdir, watchdog.patience))
        stack.enter_context(jax.set_mesh(mesh))
        hosts.decide("data", lambda: note_data(source, workdir, bool(checkpointer.steps())), watchdog.patience)
        hosts.agree("data", {"fingerprint": source.fingerprint()}, watchdog.patience)
        start = build_start(experiment, source.spec, mesh)
        experiment.check_metric({*start.abstract["window"], "samples/diversity"})
        watchdog.beat("preparing metrics of samples")
        evaluator = make_evaluator(experiment, mesh, evaluation_cache or cache_in(workdir), log, watchdog)
        if evaluator:
            _note_protocol(evaluator.records, workdir, bool(checkpointer.steps()), watchdog)

        def last_good(every: int = 1) -> tuple[int, Carried]:
            # Rollbacks go back to scheduled checkpoints only, so that one that a signal saved does not change them.
            watchdog.beat("restoring")
            restored = checkpointer.restore_latest(start.abstract, log, every=every, timeout=watchdog.patience)
            return (0, begin(start)) if restored is None else restored

        step, carried = last_good()
        keep(step)  # only now, since a refused checkpoint belongs to the experiment that is stored there
        if step:
            log(f"continuing from the checkpoint of step {step:,}")
        if hosts.is_primary():
            (workdir / "result.json").unlink(missing_ok=True)  # outdated from here on
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
            with contextlib.closing(_logger(workdir, step, wandb_project, config, watch, log)) as logger:
                if step < experiment.steps:
                    status, step, carried, diverged = advance(step, carried, logger)
            result = _result(experiment, status, step, carried, logger, checkpointer, log)
            if status != DIVERGED or not rollbacks.allowed:
                break
            carried = {}  # frees the memory for the restored state
            again = rollbacks.take(*last_good(experiment.checkpoint_every), diverged, mesh, log)
            if again is None:
                break
            step, carried = again
        _close(result, experiment, workdir, log)
        names = tuple(source.class_names)
        trained = None if status == DIVERGED else Trained(experiment, carried["state"], step, mesh, names, source.spec)
    return dataclasses.replace(result, trained=trained)


@contextlib.contextmanager
def _held(experiment: Experiment, workdir: pathlib.Path, log: Callable[[str], None]) -> Iterator[Callable[[int], None]]:
    """Locks and claims a workdir, unless the caller of `train` has. Yields a function that stores the experiment."""
    if not isinstance(experiment, Experiment):
        raise InvalidInputError(f"expected an Experiment, such as runs.build('digits'), not {experiment!r}")
    mine = hosts.is_primary() and workdirs.lock(workdir)
    try:
        claimed = not mine or (experiment.claim is not None and experiment.claim(experiment, workdir))
        yield lambda step: None if claimed else workdirs.keep(experiment, workdir, step, log)
    finally:
        if mine:
            workdirs.release(workdir)


def _close(result: Result, experiment: Experiment, workdir: pathlib.Path, log: Callable[[str], None]) -> None:
    """Writes `result.json`, and logs how the run ended."""
    log(_summary(result, experiment, workdir))
    if hosts.is_primary():
        facts = dataclasses.asdict(result)
        write_json(workdir / "result.json", {name: value for name, value in facts.items() if name != "trained"})


def _summary(result: Result, experiment: Experiment, workdir: pathlib.Path) -> str:
    """Describes how a run ended, in lines for the log."""
    lines = [f"{result.status}: step {result.step:,}, {result.images:,} images"]
    if result.state_sha256:
        lines.append(f"state_sha256 {result.state_sha256}")
    if result.best_checkpoint is not None:
        lines.append(f"best {experiment.best_metric}: the checkpoint of step {result.best_checkpoint:,}")
    if result.status == DIVERGED:
        kept = "no checkpoint was saved"
        if result.checkpoint:
            kept = f"the last good checkpoint, of step {result.checkpoint:,}, is kept in {workdir / 'checkpoints'}"
        lines.append(
            f"the run diverged; {kept}: continue with on_divergence=rollback, or train again in another workdir, with "
            "a lower learning rate or a larger penalty"
        )
    return "\n".join(lines)


def _result(
    experiment: Experiment,
    status: str,
    step: int,
    carried: Carried,
    logger: Silent,
    checkpointer: Checkpointer,
    log: Callable[[str], None],
) -> Result:
    return Result(
        status,
        step,
        step * experiment.batch_size,
        "" if status == DIVERGED else state_sha256(carried["state"]),
        logger.last,
        max(checkpointer.steps(), default=None),
        checkpointer.best_step(log),
        int(carried["rollbacks"]),
    )


def cache_in(workdir: pathlib.Path) -> pathlib.Path:
    """Returns the default cache directory of an `Evaluator`: in the workdir, unless that is in a bucket."""
    home = environment.cache_directory() if isinstance(workdir, BucketPath) else workdir
    return home / "evaluation"


def make_evaluator(
    experiment: Experiment,
    mesh: Mesh,
    cache: pathlib.Path,
    log: Callable[[str], None],
    watchdog: Watchdog,
) -> Evaluator | None:
    """Creates the evaluator of the experiment's metrics, if it has any. Call it with `jax.set_mesh(mesh)` in force."""
    wanted = experiment.wanted_metrics()
    if not wanted:
        return None
    return Evaluator(
        wanted, experiment.comparison, mesh, cache, functions=experiment.outputs, references=experiment.references,
        own=experiment.own_metrics, seed=experiment.seed, log=log, beat=watchdog.beat, patience=watchdog.patience,
    )  # fmt: skip


def _note_protocol(records: dict[str, Any], workdir: pathlib.Path, resuming: bool, watchdog: Watchdog) -> None:
    """Records the protocols of the `eval/` metrics in `evaluation.json`; raises if a metric's protocol has changed."""

    def note() -> dict[str, list[Any]]:
        path = workdir / "evaluation.json"
        remedy = "restore it from a copy, or remove it to accept the metrics' protocols as they are now"
        before = read_json(path, dict[str, Any], remedy=remedy) if resuming and path.exists() else {}
        now = json.loads(json.dumps(records))  # as it will be read back: tuples become lists
        changed = {
            name: [before[name], now[name]]
            for name in before.keys() & now.keys()
            if not same_protocol(before[name], now[name])
        }
        if not changed:
            write_json(path, before | now)
        return changed

    changed = hosts.decide("protocol of metrics", note, watchdog.patience)
    for name, (before, now) in changed.items():
        raise InvalidInputError(
            f"metric {name!r} would no longer be comparable with its values in the log: its protocol was {before}, and "
            f"is now {now}. Restore the previous cache or reference, or remove {workdir / 'evaluation.json'} to accept "
            "the change"
        )


def _checkpointer(experiment: Experiment, workdir: pathlib.Path, patience: float) -> Checkpointer:
    return Checkpointer(
        workdir / "checkpoints",
        keep_last=experiment.keep_last,
        every=experiment.checkpoint_every,
        keep_every=experiment.keep_every,
        best_metric=experiment.best_metric,
        best_mode=experiment.best(),
        about=experiment.about(),
        identity=identities.begin(workdir, patience),
    )


def _logger(
    workdir: pathlib.Path, step: int, wandb_project: str, config: Any, watch: Watch, log: Callable[[str], None]
) -> Silent:
    if not hosts.is_primary():
        return Silent(watch)
    return Logger(workdir, step, wandb_project=wandb_project, config=config, watch=watch, log=log)


@contextlib.contextmanager
def _telling(workdir: pathlib.Path) -> Iterator[None]:
    """Announces an error to the other processes; for storage that cannot be written, the error says what to do."""
    try:
        try:
            yield
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS):
                raise
            raise InvalidInputError(
                f"workdir {str(workdir)!r} could not be written: {error}; the checkpoints are untouched: free some "
                "space or fix the storage, and run the same command again"
            ) from error
    except Exception as error:
        hosts.announce(error)
        raise


class Shape(TypedDict):
    """Shape and dtype of one array, as JSON."""

    shape: list[int]
    dtype: str


class DataRecord(TypedDict):
    """The content of `data.json`: the data of a run. Version 0.1 wrote no names of classes."""

    spec: dict[str, Shape]
    fingerprint: str
    summary: str
    class_names: NotRequired[list[str]]


def read_data(workdir: pathlib.Path) -> DataRecord:
    """Reads what `note_data` has recorded about the data of a run.

    Raises:
      InvalidInputError: if the record is missing or damaged.
    """
    remedy = f"is {workdir} the workdir of a run? If so, restore the file from a copy: it says what the run has seen"
    return read_json(workdir / "data.json", DataRecord, remedy=remedy)


def data_spec(workdir: pathlib.Path) -> Spec:
    """Returns shape and dtype of each array of one example of a run's data, from `data.json`."""
    shapes = read_data(workdir)["spec"]
    try:
        if any(length < 0 for x in shapes.values() for length in x["shape"]):
            raise ValueError("a negative length")
        return {name: jax.ShapeDtypeStruct(x["shape"], x["dtype"]) for name, x in shapes.items()}
    except (TypeError, ValueError) as error:
        raise InvalidInputError(
            f"{workdir / 'data.json'} is damaged: {shapes} are no arrays ({error}); restore it from a copy"
        ) from error


def note_data(source: Source, workdir: pathlib.Path, resuming: bool) -> None:
    """Records a description of the data in `data.json`, so that sampling needs no data.

    Args:
      source: data source of the run.
      workdir: workdir of the run.
      resuming: whether the run continues from a checkpoint; then its data must be the recorded ones.

    Raises:
      InvalidInputError: if a run that is continued had other data, or its `data.json` is missing or damaged.
    """
    record = workdir / "data.json"
    facts = {
        "spec": {name: {"shape": list(x.shape), "dtype": str(x.dtype)} for name, x in source.spec.items()},
        "fingerprint": source.fingerprint(),
        "summary": source.summary(),
        "class_names": list(source.class_names),
    }
    if resuming:
        before = read_data(workdir)
        if before["fingerprint"] != facts["fingerprint"]:
            raise InvalidInputError(
                f"the data are not those that {workdir} was trained on.\nThere: {before['summary']}\nNow: "
                f"{facts['summary']}\nContinue with the previous data, or train in another workdir"
            )
    write_json(record, facts)
