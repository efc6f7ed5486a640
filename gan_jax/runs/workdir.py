"""Claiming the workdir of a run, which keeps the run's config and a copy of its experiment file."""

import hashlib
import json
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

from gan_jax.distributed import hosts
from gan_jax.host import replacing, write_json
from gan_jax.runs.experiment_file import same_experiment
from gan_jax.runs.settings import Config, is_free
from gan_jax.runtime import environment
from gan_jax.runtime.identity import SAVED, SWEEP_SAVED, check_not_lost, saved_steps
from gan_jax.runtime.progress import log
from gan_jax.runtime.workdir import EXPERIMENT_FILE, PICKLED, history, lock, note_environment, read_record
from gan_jax.types import InvalidInputError

__all__ = ["SAVED", "SWEEP_SAVED", "agree", "claim", "claim_together", "has_begun", "read_record"]


def has_begun(workdir: pathlib.Path, saved: Sequence[str] = SAVED) -> bool:
    """Whether the workdir has a checkpoint. Until it has one, the same workdir may be used with other flags."""
    return bool(saved_steps(workdir, saved))


def claim(
    workdir: pathlib.Path,
    module_path: pathlib.Path,
    config: Config,
    *,
    init_from: dict[str, Any] | None = None,
    saved: Sequence[str] = SAVED,
) -> None:
    """Claims a new workdir for this run, or checks that an existing one belongs to it.

    Writes `config.json` and a copy of the experiment file. `config.json` describes the process that runs it now: its
    config, versions, devices and command. When a resume changes any of these, the earlier record is appended to
    `history` in the same file.

    Args:
      workdir: directory of the run; created if missing.
      module_path: path of the experiment file.
      config: config as resolved from the file and the flags.
      init_from: record of --init_from: the run whose networks this run starts with; None without it.
      saved: glob patterns of the checkpoints, which tell whether the run has begun.

    Raises:
      InvalidInputError: if the workdir was made by another config (the message lists the differences), is in use by
        another run, or cannot be written.
    """
    lock(workdir)
    check_not_lost(workdir, saved)
    resolved = json.loads(config.to_json_best_effort())
    facts = dict[str, Any](config=resolved, config_file=module_path.name, init_from=init_from) | environment.record()
    begun = read_record(workdir) if has_begun(workdir, saved) else None
    if begun is not None:
        if begun["config_file"] == PICKLED:
            raise InvalidInputError(
                f"workdir {str(workdir)!r} was trained from Python, with an experiment that is in no file: continue it "
                "from Python by runtime.train(experiment, workdir), or choose another --workdir"
            )
        if init_from not in (None, begun.get("init_from")):
            raise InvalidInputError(
                f"workdir {str(workdir)!r} has checkpoints already, and did not begin from {init_from}: leave "
                "--init_from out to continue it, or choose another --workdir to start a new run"
            )
        _check_same(workdir, module_path, begun["config"], resolved)
        facts |= {"config_file": begun["config_file"], "init_from": begun.get("init_from")}
        note_environment(begun, facts, log)
        facts["history"] = history(begun, facts)
    try:
        if begun is None:
            with replacing(workdir / EXPERIMENT_FILE, "wb") as file:
                file.write(module_path.read_bytes())
            (workdir / PICKLED).unlink(missing_ok=True)
        write_json(workdir / "config.json", facts)
    except OSError as error:
        raise InvalidInputError(f"workdir {str(workdir)!r} cannot be written: {error}") from error


def _check_same(
    workdir: pathlib.Path, module_path: pathlib.Path, earlier: dict[str, Any], resolved: dict[str, Any]
) -> None:
    """Raises if a config or an experiment file differs from the one that a run has begun with."""
    changed = [
        f"config.{key}: {earlier.get(key, 'absent')!r} there, {resolved.get(key, 'absent')!r} now"
        for key in sorted(earlier.keys() | resolved.keys())
        if not is_free(key) and earlier.get(key, object) != resolved.get(key, object)
    ]
    kept = workdir / EXPERIMENT_FILE
    if not kept.is_file():
        changed.append(f"{kept}, the copy of its experiment file, is missing")
    elif not same_experiment(kept.read_text(encoding="utf-8"), module_path.read_text(encoding="utf-8")):
        changed.append(f"the experiment file: {module_path} is not the one kept as {kept} (diff them)")
    if changed:
        raise InvalidInputError(
            f"workdir {str(workdir)!r} was made by another config:\n  " + "\n  ".join(changed) + "\n"
            "go back to that config, or choose another --workdir"
        )


def agree(config: Config, module: pathlib.Path, others: dict[str, Any], patience: float) -> None:
    """Checks that all processes run the same code with the same config and flags.

    It is called before anything is compiled: processes that run different programs would hang in their collectives.

    Args:
      config: config as resolved from the file and the flags.
      module: path of the experiment file.
      others: values of other flags, by name.
      patience: seconds to wait for the other processes.

    Raises:
      InvalidInputError: if the processes differ; the message lists the differences.
    """
    facts = environment.versions() | environment.circumstances()
    facts |= {f"config.{key}": json.dumps(value) for key, value in config.to_dict().items()}
    facts |= {f"--{name}": value for name, value in others.items()}
    facts["experiment file"] = hashlib.sha256(module.read_bytes()).hexdigest()
    hosts.agree("code and config", facts, patience)


def claim_together(workdir: pathlib.Path, take: Callable[[], None], patience: float) -> None:
    """Lets process 0 claim the workdir, and checks that the other processes see the same directory.

    Args:
      workdir: directory of the run.
      take: claims the workdir, as `claim` does; called in process 0 only.
      patience: seconds to wait for process 0.

    Raises:
      InvalidInputError: if this process sees another directory under that name.
    """

    def taken() -> str:
        take()
        return _digest(workdir)

    # config.json contains what process 0 has just written only if both see the same directory.
    if hosts.decide("workdir", taken, patience) != _digest(workdir):
        raise InvalidInputError(
            f"workdir {str(workdir)!r} is not the directory that process 0 sees under this name: it must be on storage "
            "that all processes share (a bucket, NFS, Filestore, Lustre)"
        )


def _digest(workdir: pathlib.Path) -> str:
    record = workdir / "config.json"
    return hashlib.sha256(record.read_bytes()).hexdigest() if record.is_file() else "missing"
