"""The workdir of a run: a lock, so that one process at a time writes there, and the stored experiment."""

import dataclasses
import fcntl
import os
import pathlib
import pickle
import socket
from collections.abc import Callable
from typing import Any

import cloudpickle

from gan_jax.host import replacing, write_json
from gan_jax.runtime import environment
from gan_jax.runtime.experiment import Experiment, settings
from gan_jax.types import InvalidInputError

EXPERIMENT_FILE, PICKLED = "experiment.py", "experiment.pickle"
_locks: dict[pathlib.Path, Any] = {}  # open files; the system releases their locks however the process ends


def lock(workdir: pathlib.Path) -> bool:
    """Locks a workdir for this process until the process ends or calls `release`.

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
        file = (workdir / "lock").open("a+", encoding="utf-8")
    except OSError as error:
        raise InvalidInputError(f"workdir {str(workdir)!r} cannot be written: {error}") from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.seek(0)
        raise InvalidInputError(
            f"workdir {str(workdir)!r} is in use by another run ({file.read().strip()}): wait for it, stop it, or "
            "choose another --workdir"
        ) from error
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
    file.flush()
    _locks[workdir.absolute()] = file
    return True


def release(workdir: pathlib.Path) -> None:
    """Releases the lock of a workdir, if this process holds it."""
    if workdir.absolute() in _locks:
        _locks.pop(workdir.absolute()).close()


def keep(experiment: Experiment, workdir: pathlib.Path, log: Callable[[str], None]) -> None:
    """Stores an experiment that has no file, such as one of a notebook, in its workdir, where `gan_jax.load` finds it.

    Args:
      experiment: experiment that is trained there.
      workdir: workdir of the run.
      log: receives a message if the experiment cannot be stored; it can still be trained.
    """
    if (workdir / EXPERIMENT_FILE).is_file():
        return
    fields = {field.name: getattr(experiment, field.name) for field in dataclasses.fields(experiment)}
    try:
        content = cloudpickle.dumps(fields)
    except (pickle.PicklingError, TypeError, AttributeError) as error:
        log(
            f"this experiment cannot be kept in {workdir} ({error}): the run will train and can be continued, but "
            "`gan_jax.load` and the commands cannot open it. Write it as an experiment file if you need them"
        )
        return
    with replacing(workdir / PICKLED, "wb") as file:
        file.write(content)
    config = {name: fields[name] for name in settings()}
    write_json(workdir / "config.json", {"config": config, "config_file": PICKLED, **environment.record()})


def kept(workdir: pathlib.Path) -> Experiment:
    """Reads the experiment that `keep` stored. This runs code, like an experiment file: read only what you trust.

    Raises:
      InvalidInputError: if it cannot be read, for example with other versions of Python or of the packages.
    """
    path = workdir / PICKLED
    try:
        return Experiment(**pickle.loads(path.read_bytes()))
    except Exception as error:  # unpickling can raise any error of the stored classes
        raise InvalidInputError(
            f"{path} cannot be read ({type(error).__name__}: {error}): expected the versions that "
            f"{workdir / 'config.json'} names"
        ) from error
