"""Manifests of checkpoints: step, run, experiment, metrics and the hash of every file, sealed by their own hash."""

import hashlib
import json
import os
import pathlib
from typing import Any, NotRequired, TypedDict

from gan_jax.buckets import StorageError
from gan_jax.host import misfit, read_json, write_json
from gan_jax.runtime.identity import MANIFEST as NAME
from gan_jax.runtime.identity import Identity
from gan_jax.types import InvalidInputError

# Files that the manifest does not cover: itself, and those that Orbax writes later, while it commits the checkpoint.
ORBAX = "_CHECKPOINT_METADATA"
_UNSEALED = {NAME, ORBAX, "commit_success.txt"}
_METRICS = "metrics/metrics"  # file in which checkpoints of version 0.1 keep their metrics


class Manifest(TypedDict):
    """The content of a manifest. Those of version 0.1 have no step, run and metrics."""

    about: dict[str, Any] | None
    files: dict[str, list[Any]]
    sha256: str
    step: NotRequired[int]
    run: NotRequired[str | None]
    metrics: NotRequired[dict[str, Any]]


class _Orbax(TypedDict):
    """What Orbax requires of its own record of a checkpoint."""

    item_handlers: NotRequired[dict[str, str] | str | None]
    metrics: NotRequired[dict[str, Any] | None]
    performance_metrics: NotRequired[dict[str, float] | None]
    init_timestamp_nsecs: NotRequired[int | None]
    commit_timestamp_nsecs: NotRequired[int | None]
    custom_metadata: NotRequired[dict[str, Any] | None]


def write(
    directory: pathlib.Path,
    *,
    step: int,
    run: str | None,
    about: dict[str, Any] | None,
    metrics: dict[str, Any],
) -> None:
    """Writes the manifest of a checkpoint, whose other files are complete.

    Args:
      directory: directory of the checkpoint, which may still have a temporary name.
      step: step of the checkpoint.
      run: name of the run that saves it; None for a tree that belongs to no run.
      about: description of the experiment.
      metrics: values by which the best checkpoint is chosen.
    """
    body = {"about": about, "files": _files(directory), "step": step, "run": run, "metrics": metrics}
    write_json(directory / NAME, body | {"sha256": _hash(body)})


def read(directory: pathlib.Path) -> Manifest:
    """Reads the manifest of a checkpoint, and checks its seal; the other files are not looked at.

    Raises:
      OSError: if the manifest is missing, damaged or has changed.
    """
    try:
        found = read_json(directory / NAME, Manifest, remedy="restore the whole checkpoint from a copy")
    except StorageError:
        raise
    except InvalidInputError as error:
        raise OSError(f"its manifest {NAME} is missing or damaged ({error})") from error
    if found["sha256"] != _hash({key: value for key, value in found.items() if key != "sha256"}):
        raise OSError(f"its manifest {NAME} has changed")
    return found


def fault(directory: pathlib.Path, identity: Identity | None) -> str:
    """Describes what is wrong with the files of a checkpoint; empty if they are intact.

    Args:
      directory: directory of the checkpoint; its name is the step.
      identity: identity of the run whose checkpoint it must be; None for any.
    """
    try:
        manifest, files = read(directory), _files(directory)
    except OSError as error:
        return str(error)
    for name in sorted(files.keys() | manifest["files"].keys()):
        was, now = manifest["files"].get(name), files.get(name)
        if was is None or now is None:
            return f"{name} is {'missing' if now is None else 'not part of it'}"
        if was != now:
            changed = "content" if was[0] == now[0] else f"size ({was[0]} bytes when saved, {now[0]} now)"
            return f"{name} has changed in {changed}"
    return _stranger(manifest, int(directory.name), identity)


def check_orbax(directory: pathlib.Path) -> None:
    """Checks Orbax's own record of a checkpoint, which Orbax reads before anything can be restored.

    It does without a record that is missing or is not JSON.

    Raises:
      InvalidInputError: if the record is JSON of another form.
    """
    path = directory / ORBAX
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return
    wrong = "" if value is None else misfit(value, _Orbax)
    if wrong:
        raise InvalidInputError(f"{path} is damaged: {wrong}: remove it; the checkpoint can be read without it")


def _stranger(manifest: Manifest, step: int, identity: Identity | None) -> str:
    """Describes why a checkpoint does not belong in its place: it was copied from another step or another run."""
    if manifest.get("step", step) != step:
        return f"it is the checkpoint of step {manifest.get('step')}, under another name"
    if identity is None or step <= identity.before or manifest.get("run") == identity.run:
        return ""
    return (
        f"it is of another run ({manifest.get('run') or 'without a name'}; this one is {identity.run}, see run.json): "
        "to begin with another run's networks, use init_from"
    )


def metrics(directory: pathlib.Path) -> dict[str, Any]:
    """Returns the metrics that a checkpoint was saved with; none if they were not measured at its step.

    Raises:
      OSError: if the manifest, or the file of metrics of an older checkpoint, is damaged.
    """
    manifest = read(directory)
    if "metrics" in manifest or _METRICS not in manifest["files"]:
        return manifest.get("metrics", {})
    if _entry(directory / _METRICS) != manifest["files"][_METRICS]:
        raise OSError(f"{_METRICS} has changed")
    return json.loads((directory / _METRICS).read_text(encoding="utf-8"))


def is_there(directory: pathlib.Path) -> bool:
    """Whether no file of a checkpoint has been deleted, as by a run that keeps only newer ones."""
    try:
        return all((directory / name).exists() for name in read(directory)["files"])
    except OSError:
        return False


def _files(directory: pathlib.Path) -> dict[str, list[Any]]:
    """Returns the size and hash of every file of a checkpoint that the manifest covers."""
    found = sorted(path for path in directory.rglob("*") if path.name not in _UNSEALED and path.is_file())
    return {str(path.relative_to(directory)): _entry(path) for path in found}


def _entry(path: pathlib.Path) -> list[Any]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return [file.seek(0, os.SEEK_END), digest]


def _hash(body: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
