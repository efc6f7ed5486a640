"""The directory of a run: one process at a time writes there, and it keeps the experiment for those who load it."""

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
_locks: dict[pathlib.Path, Any] = {}  # held until the process ends, however it ends


def lock(workdir: pathlib.Path) -> bool:
    """Reserves a workdir for this process until it ends or calls `release`.

    Args:
      workdir: of the run; made if missing.

    Returns:
      Whether it was free; False where this process has it already.

    Raises:
      InvalidInputError: if another process has it, or it cannot be written.
    """
    if workdir.absolute() in _locks:
        return False
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        file = (workdir / "lock").open("a+")
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
    """Lets other processes have a workdir that this one has locked."""
    if workdir.absolute() in _locks:
        _locks.pop(workdir.absolute()).close()


def keep(experiment: Experiment, workdir: pathlib.Path, log: Callable[[str], None]) -> None:
    """Writes an experiment that comes from no file, such as a notebook's, into its workdir, where `load` finds it.

    Args:
      experiment: what is trained there.
      workdir: of the run.
      log: gets the message where an experiment cannot be written; it can still be trained.
    """
    if (workdir / EXPERIMENT_FILE).is_file():
        return
    fields = {field.name: getattr(experiment, field.name) for field in dataclasses.fields(experiment)}
    try:
        content = cloudpickle.dumps(fields)
    except (pickle.PicklingError, TypeError, AttributeError) as error:
        log(
            f"this experiment cannot be kept in {workdir} ({error}): the run will train and continue, but neither "
            "`gan_jax.load` nor the commands will know what it was. Write it as an experiment file to have them"
        )
        return
    with replacing(workdir / PICKLED, "wb") as file:
        file.write(content)
    config = {name: fields[name] for name in settings()}
    write_json(workdir / "config.json", {"config": config, "config_file": PICKLED, **environment.record()})


def kept(workdir: pathlib.Path) -> Experiment:
    """Reads what `keep` has written. Like an experiment file this runs code: read only what you trust.

    Raises:
      InvalidInputError: if it cannot be read, as with other versions of Python or of the packages.
    """
    path = workdir / PICKLED
    try:
        return Experiment(**pickle.loads(path.read_bytes()))
    except Exception as error:  # whatever the classes in it raise
        raise InvalidInputError(
            f"{path} cannot be read ({type(error).__name__}: {error}): expected the versions that "
            f"{workdir / 'config.json'} names"
        ) from error
