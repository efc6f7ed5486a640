"""The workdir of a run: a lock, so that one process at a time writes there, and the stored experiment."""

import dataclasses
import json
import pathlib
import pickle
import platform
from collections.abc import Callable, Mapping
from typing import Any, NotRequired, TypedDict

import cloudpickle

from gan_jax import buckets
from gan_jax.host import FileLock, read_json, replacing, take_lock, write_json
from gan_jax.runtime import environment
from gan_jax.runtime.experiment import Experiment, settings
from gan_jax.runtime.progress import log
from gan_jax.types import InvalidInputError

EXPERIMENT_FILE, PICKLED = "experiment.py", "experiment.pickle"
_LARGE = 2**20  # bytes of a stored experiment from which on the log says so
_locks: dict[pathlib.Path, FileLock | buckets.Lease] = {}


def lock(workdir: pathlib.Path) -> bool:
    """Locks a workdir for this process until the process ends or calls `release`; one in a bucket by a lease.

    Args:
      workdir: workdir of the run; created if missing.

    Returns:
      Whether this call took the lock; False if this process holds it already.

    Raises:
      InvalidInputError: if another process holds the lock, or the workdir cannot be written.
    """
    if workdir.absolute() in _locks:
        return False
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        with buckets.telling(f"workdir {str(workdir)!r}"):
            found = take_lock(workdir / "lock", told=True, log=log)
    except OSError as error:
        raise InvalidInputError(f"workdir {str(workdir)!r} cannot be written: {error}") from error
    if isinstance(found, str):
        raise InvalidInputError(
            f"workdir {str(workdir)!r} is in use by another run ({found}): wait for it, stop it, or choose another "
            "--workdir"
        )
    _locks[workdir.absolute()] = found
    return True


def release(workdir: pathlib.Path) -> None:
    """Releases the lock of a workdir, if this process holds it."""
    if workdir.absolute() in _locks:
        held = _locks.pop(workdir.absolute())
        if isinstance(held, buckets.Lease):
            buckets.close(f"{workdir}/")
        held.release()


class RunRecord(TypedDict):
    """The content of `config.json`."""

    config: dict[str, Any]
    config_file: str
    versions: NotRequired[dict[str, str]]
    platform: NotRequired[str]
    init_from: NotRequired[dict[str, Any] | None]
    history: NotRequired[list[dict[str, Any]]]


def read_record(workdir: pathlib.Path) -> RunRecord:
    """Reads `config.json`, which describes the run of a workdir.

    Raises:
      InvalidInputError: if it is missing or damaged.
    """
    remedy = f"is {workdir} the workdir of a run? If so, restore the file from a copy: the checkpoints need its config"
    return read_json(workdir / "config.json", RunRecord, remedy=remedy)


def history(before: RunRecord, now: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns the earlier records of a run: those of `before`, and `before` itself if `now` differs from it."""
    stored = {name: value for name, value in before.items() if name != "history"}
    return before.get("history", []) + ([] if stored == json.loads(json.dumps(now)) else [stored])


def note_environment(before: Mapping[str, Any], now: Mapping[str, Any], log: Callable[[str], None]) -> None:
    """Logs which versions, or which platform, a run is continued with that are not those of its record."""
    if changed := environment.differences(before, now):
        log(f"continuing under other versions than before, which may round differently: {changed}")


def keep(experiment: Experiment, workdir: pathlib.Path, step: int, log: Callable[[str], None]) -> None:
    """Stores an experiment that has no file, such as one of a notebook, in its workdir, where `gan_jax.load` finds it.

    Args:
      experiment: experiment that is trained there.
      workdir: workdir of the run.
      step: iterations done before.
      log: receives what the user should know: that the experiment cannot be stored, that much is stored with it, or
        that a run is continued with hyperparameters that nothing can compare.
    """
    filed = (workdir / EXPERIMENT_FILE).is_file()
    if step:
        log(
            f"continuing with an experiment of this Python program: whether it is that of {workdir} is checked by its "
            "networks, phases, seed and batch size, not by its hyperparameters or code"
            + (f"; {workdir / EXPERIMENT_FILE} is kept" if filed else "")
        )
        if filed:
            return
    (workdir / EXPERIMENT_FILE).unlink(missing_ok=True)  # of a run that has saved nothing
    fields = {field.name: getattr(experiment, field.name) for field in dataclasses.fields(experiment)}
    del fields["claim"]
    try:
        content = cloudpickle.dumps(fields)
    except (pickle.PicklingError, TypeError, AttributeError) as error:
        log(
            f"this experiment cannot be kept in {workdir} ({error}): the run will train and can be continued, but "
            "`gan_jax.load` and the commands cannot open it. Write it as an experiment file if you need them"
        )
        return
    if len(content) > _LARGE:
        log(f"{workdir / PICKLED} has {len(content):,} bytes: arrays that the experiment's functions use are in it")
    with replacing(workdir / PICKLED, "wb") as file:
        file.write(content)
    facts: dict[str, Any] = {"config": {name: fields[name] for name in settings()}, "config_file": PICKLED}
    facts |= environment.record()
    if step and (workdir / "config.json").exists():
        stored = read_record(workdir)
        note_environment(stored, facts, log)
        facts["history"] = history(stored, facts)
    write_json(workdir / "config.json", facts)


def kept(workdir: pathlib.Path) -> Experiment:
    """Reads the experiment that `keep` stored. This runs code, like an experiment file: read only what you trust.

    Raises:
      InvalidInputError: if it cannot be read, for example with other versions of Python or of the packages.
    """
    path = workdir / PICKLED
    stored = read_record(workdir).get("versions", {}).get("python", "an unknown version")
    if stored.split(".")[:2] != platform.python_version().split(".")[:2]:  # its bytecode would crash another Python
        raise InvalidInputError(
            f"{path} is of Python {stored}, and this is {platform.python_version()}: open it with Python {stored}, or "
            "write the experiment as an experiment file, which every version reads"
        )
    try:
        return Experiment(**pickle.loads(path.read_bytes()))
    except ModuleNotFoundError as error:
        raise InvalidInputError(
            f"{path} needs the module {error.name!r}, which is not found here: start Python in the directory of that "
            "module, or add the directory to PYTHONPATH"
        ) from error
    except Exception as error:  # unpickling can raise any error of the stored classes
        raise InvalidInputError(
            f"{path} cannot be read ({type(error).__name__}: {error}): expected the versions that "
            f"{workdir / 'config.json'} names"
        ) from error
