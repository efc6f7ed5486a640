"""The identity of a run: a name that its checkpoints carry, so that those of another run are not taken for its own."""

import dataclasses
import pathlib
import re
import secrets
from collections.abc import Sequence
from typing import NotRequired, TypedDict

from gan_jax.buckets import BucketPath
from gan_jax.distributed import hosts
from gan_jax.host import read_json, write_json
from gan_jax.types import InvalidInputError

_RECORD = "run.json"
MANIFEST = "gan_jax.json"  # in the directory of each checkpoint
_STEP = re.compile("0|[1-9][0-9]*")
SAVED = ("checkpoints/*",)  # patterns of a run's checkpoints
SWEEP_SAVED = ("population/*/*", "trials/*/checkpoints/*")  # patterns of a sweep's checkpoints


class _Record(TypedDict):
    run: str
    before: int
    saved: bool


class _Ended(TypedDict):
    checkpoint: NotRequired[int | None]


@dataclasses.dataclass
class Identity:
    """The identity of the run of a workdir, from `run.json`.

    Attributes:
      run: random name of the run; every checkpoint that it saves names it.
      before: checkpoints up to this step were there before the run had an identity, and name none.
      saved: whether the run has saved a checkpoint.
      record: path of `run.json`; None in processes that do not write it.
    """

    run: str
    before: int
    saved: bool
    record: pathlib.Path | None = None

    def note_saved(self) -> None:
        """Records that the run has saved a checkpoint."""
        if not self.saved and self.record is not None:
            write_json(self.record, _Record(run=self.run, before=self.before, saved=True))
        self.saved = True


def steps_in(directory: pathlib.Path | BucketPath) -> list[int]:
    """Returns the steps of the finished checkpoints in a directory, oldest first; other files there are ignored."""
    return saved_steps(directory, ("*",))


def saved_steps(workdir: pathlib.Path | BucketPath, patterns: Sequence[str] = SAVED) -> list[int]:
    """Returns the steps of all finished checkpoints of a workdir, in order."""
    if isinstance(workdir, BucketPath):  # its manifest makes a checkpoint complete, since nothing can be renamed there
        sealed = [path.parent for pattern in patterns for path in workdir.glob(f"{pattern}/{MANIFEST}")]
        return sorted(int(path.name) for path in sealed if _STEP.fullmatch(path.name))
    found = [path for pattern in patterns for path in workdir.glob(pattern) if _STEP.fullmatch(path.name)]
    return sorted(int(path.name) for path in found if path.is_dir())


def read(workdir: pathlib.Path) -> Identity | None:
    """Reads the identity of a workdir's run; None if it has none, as with runs of version 0.1."""
    path = workdir / _RECORD
    if not path.exists():
        return None
    return Identity(**read_json(path, _Record, remedy="restore it from a copy of this workdir"))


def check_not_lost(workdir: pathlib.Path, patterns: Sequence[str] = SAVED) -> None:
    """Checks that the checkpoints of a run that has saved some are there.

    Without this check a run whose checkpoints were moved away would begin again, and cut its logs.

    Raises:
      InvalidInputError: if they are gone.
    """
    known = read(workdir)
    if (known.saved if known else _ended_with_checkpoint(workdir)) and not saved_steps(workdir, patterns):
        raise InvalidInputError(
            f"the checkpoints of {workdir} are gone: this run has saved some, and there is none in "
            f"{' or '.join(str(workdir / pattern.partition('/')[0]) for pattern in patterns)}. Move them back, or "
            f"choose another workdir; to begin again in this one, which cuts its logs, remove {workdir / _RECORD}"
        )


def _ended_with_checkpoint(workdir: pathlib.Path) -> bool:
    """Whether a run of version 0.1, which had no identity, has recorded a checkpoint when it ended."""
    path = workdir / "result.json"
    return path.exists() and read_json(path, _Ended, remedy="remove the file").get("checkpoint") is not None


def begin(workdir: pathlib.Path, patience: float, patterns: Sequence[str] = SAVED) -> Identity:
    """Returns the identity of a workdir's run, and gives it one if it has none. Every process of a run calls it.

    Args:
      workdir: workdir of the run.
      patience: seconds to wait for process 0.
      patterns: glob patterns of the run's checkpoints.

    Raises:
      InvalidInputError: if the run has saved checkpoints and they are gone, or `run.json` is damaged.
    """

    def make() -> _Record:
        check_not_lost(workdir, patterns)
        steps = saved_steps(workdir, patterns)
        known = read(workdir) or Identity(secrets.token_hex(8), max(steps, default=0), False)
        record = _Record(run=known.run, before=known.before, saved=bool(steps))
        workdir.mkdir(parents=True, exist_ok=True)
        write_json(workdir / _RECORD, record)
        return record

    return Identity(**hosts.decide("run", make, patience), record=workdir / _RECORD if hosts.is_primary() else None)
