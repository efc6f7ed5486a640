"""What a run leaves in its workdir, and how to get it back: `load(workdir).sample(64)`."""

import contextlib
import dataclasses
import fcntl
import importlib.metadata
import importlib.util
import json
import os
import pathlib
import platform
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

import jax
import ml_collections
import numpy as np
from jax.sharding import Mesh

from experiments.launch import circumstances
from experiments.settings import FREE
from gan_jax import runtime
from gan_jax.core import GANState
from gan_jax.host import write_json
from gan_jax.runtime.program import abstract_state
from gan_jax.types import InvalidInputError

_PACKAGES = ("gan_jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "tensorflow-datasets", "numpy")


def load_module(path: str | pathlib.Path) -> Any:
    """An experiment file as a module; it must define `get_config()` and `build(config)`."""
    path = pathlib.Path(path)
    if not path.is_file():
        raise InvalidInputError(
            f"config file {str(path)!r} does not exist: see experiments/configs/ for those there are"
        )
    spec = importlib.util.spec_from_file_location(f"experiment_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name in ("get_config", "build"):
        if not hasattr(module, name):
            raise InvalidInputError(
                f"{path} has no function {name}: an experiment file has get_config() and build(config)"
            )
    return module


def versions() -> dict[str, str]:
    """Python, the packages that results depend on, and the commit of this checkout where git knows it."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40"]
    here = pathlib.Path(__file__).parent
    if shutil.which("git") is not None:
        described = subprocess.run(command, cwd=here, capture_output=True, text=True, check=False)
        found["commit"] = described.stdout.strip() or "unknown"
    return found


_locks: dict[pathlib.Path, Any] = {}  # held until the process ends, however it ends


def lock(workdir: pathlib.Path) -> None:
    """Keeps other runs out of a workdir for as long as this process lives, or until it is released."""
    file = (workdir / "lock").open("a+")
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
    _locks[workdir] = file


def release(workdir: pathlib.Path) -> None:
    """Lets others have a workdir that this process has locked."""
    if workdir in _locks:
        _locks.pop(workdir).close()


SAVED = ("checkpoints/*",)  # where a run keeps its checkpoints


def has_begun(workdir: pathlib.Path, saved: Sequence[str] = SAVED) -> bool:
    """Whether anything is saved: until then, another try may correct its flags."""
    return any(path.name.isdigit() for pattern in saved for path in workdir.glob(pattern))


def claim(
    workdir: pathlib.Path,
    module_path: pathlib.Path,
    config: ml_collections.ConfigDict,
    *,
    init_from: dict[str, Any] | None = None,
    saved: Sequence[str] = SAVED,
) -> None:
    """Makes a workdir this run's own, or checks that it is: writes `config.json` and a copy of the experiment file.

    `config.json` tells what runs it now (config, versions, devices, command); what it told before a resume with another
    of these is kept in its `history`.

    Args:
      workdir: made if missing.
      module_path: the experiment file.
      config: as resolved from file and flags.
      init_from: whose networks the run begins with.
      saved: patterns of its checkpoints.

    Raises:
      InvalidInputError: if the workdir was made by another config (the message lists the differences), is in use by
        another run, is no directory but a bucket, or cannot be written.
    """
    if re.match(r"[a-z0-9]+:/", str(workdir)):
        raise InvalidInputError(
            f"workdir {str(workdir)!r}: expected a directory, whose files can be locked and appended to, which buckets "
            "can't: take NFS, such as Filestore, and copy the run to a bucket when it has ended"
        )
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        lock(workdir)
    except OSError as error:
        raise InvalidInputError(f"workdir {str(workdir)!r} cannot be written: {error}") from error
    resolved = json.loads(config.to_json_best_effort())
    record = workdir / "config.json"
    started = has_begun(workdir, saved)
    if record.exists() and started:
        begun = read_json(record)
        earlier = begun["config"]
        if init_from not in (None, begun.get("init_from")):
            raise InvalidInputError(
                f"workdir {str(workdir)!r} has checkpoints already, and did not begin from {init_from}: leave "
                "--init_from out to continue it, or choose another --workdir to begin anew"
            )
        init_from = begun.get("init_from")
        changed = [
            f"config.{key}: {earlier.get(key, 'absent')!r} there, {resolved.get(key, 'absent')!r} now"
            for key in sorted(earlier.keys() | resolved.keys())
            if key not in FREE and earlier.get(key, object) != resolved.get(key, object)
        ]
        kept = workdir / "experiment.py"
        if not kept.is_file():
            changed.append(f"{kept}, the copy of its experiment file, is missing")
        elif kept.read_text() != module_path.read_text():
            changed.append(f"the experiment file: {module_path} is not the one kept as {kept} (diff them)")
        if changed:
            raise InvalidInputError(
                f"workdir {str(workdir)!r} was made by another config:\n  " + "\n  ".join(changed) + "\n"
                "go back to what made it, or choose another --workdir"
            )
    try:
        if not started:
            shutil.copyfile(module_path, workdir / "experiment.py")
        facts: dict[str, Any] = {
            "config": resolved,
            "config_file": module_path.name,
            "versions": versions(),
            **circumstances(),
            "init_from": init_from,
            "processes": jax.process_count(),
            "devices": [device.device_kind for device in jax.devices()],
            "command": sys.argv,
        }
        if record.exists() and started:
            before = read_json(record)
            history = before.pop("history", [])
            facts["history"] = history if before == facts else [*history, before]
        write_json(record, facts)
    except OSError as error:
        raise InvalidInputError(f"workdir {str(workdir)!r} cannot be written: {error}") from error


def read_json(path: pathlib.Path) -> Any:
    """A JSON file, or a clear error."""
    try:
        return json.loads(path.read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise InvalidInputError(f"{path} cannot be read ({error}): is {path.parent} the workdir of a run?") from error


@dataclasses.dataclass(frozen=True)
class Trained:
    """A run's experiment with the state of one of its checkpoints.

    Attributes:
      experiment: rebuilt from the workdir's own copy of the experiment file and its config.
      state: of the checkpoint.
      step: of the checkpoint.
      class_names: of the labels, as the data had them; empty without.
    """

    experiment: runtime.Experiment
    state: GANState
    step: int
    class_names: tuple[str, ...] = ()

    def sample(
        self,
        n: int = 64,
        *,
        seed: int = 0,
        label: int | np.ndarray | None = None,
        truncation: float | None = None,
        inputs: Any = None,
    ) -> np.ndarray:
        """Samples of the averaged generator, or of the generator itself where the game keeps no average.

        Args:
          n: how many.
          seed: fixes the latents.
          label: one class for all, or `[n]`; the classes in turn by default.
          truncation: see the game's prior.
          inputs: in place of latents drawn from the prior.

        Returns:
          Samples `[n, ...]`; images are in [-1, 1].
        """
        key = jax.random.key(seed)
        labels = None if label is None else np.broadcast_to(np.asarray(label, np.int32), (n,))
        return runtime.sample_grid(
            self.experiment, self.state, key, n, label=labels, inputs=inputs, truncation=truncation
        )


class Run:
    """A trained run on disk: its experiment, and the states of its checkpoints, whole on every device of a mesh."""

    def __init__(
        self, workdir: str | pathlib.Path, *, mesh: Mesh | None = None, say: Callable[[str], None] = print
    ) -> None:
        """Reads what the run was.

        Args:
          workdir: of the run.
          mesh: where states are put; the first device by default.
          say: gets messages about damaged checkpoints.

        Raises:
          InvalidInputError: if the workdir has no run.
        """
        self.workdir, self.say = pathlib.Path(workdir), say
        config = ml_collections.ConfigDict(read_json(self.workdir / "config.json")["config"])
        known = read_json(self.workdir / "data.json")
        shapes, self.class_names = known["spec"], tuple(known.get("class_names", ()))
        spec = {name: jax.ShapeDtypeStruct(x["shape"], x["dtype"]) for name, x in shapes.items()}
        self.experiment = load_module(self.workdir / "experiment.py").build(config)
        self.mesh = runtime.make_mesh(jax.local_devices()[:1]) if mesh is None else mesh
        with jax.set_mesh(self.mesh):
            self._abstract = {"state": abstract_state(self.experiment, spec, self.mesh)}
        self._checkpointer = runtime.Checkpointer(
            self.workdir / "checkpoints",
            keep_last=1,
            best_metric=self.experiment.best_metric,
            best_mode=self.experiment.best(),
            read_only=True,
        )

    @property
    def averages(self) -> bool:
        """Whether the game keeps an average of a player."""
        return bool(self._abstract["state"].ema)

    def steps(self) -> list[int]:
        """Steps of the checkpoints there are."""
        return self._checkpointer.steps()

    def restore(self, step: int | str | None = None) -> Trained:
        """A checkpoint's state.

        Args:
          step: of the checkpoint, or `'best'`; the newest that can be read by default.

        Returns:
          The experiment and the state.

        Raises:
          InvalidInputError: if there is no such checkpoint, or it cannot be read.
        """
        steps = self.steps()
        if step == "best":
            step = self._checkpointer.best_step()
            if step is None:
                raise InvalidInputError(f"{self.workdir} has no best checkpoint: train with --config.best_metric=NAME")
        if step is not None and step not in steps:
            raise InvalidInputError(f"{self.workdir} has no checkpoint of step {step}: it has {steps}")
        try:
            with jax.set_mesh(self.mesh):
                restored = (
                    self._checkpointer.restore_latest(self._abstract, self.say)
                    if step is None
                    else (step, self._checkpointer.restore(step, self._abstract))
                )
        except InvalidInputError:
            raise
        except Exception as error:  # whatever Orbax and TensorStore raise on damaged files
            raise InvalidInputError(f"checkpoint {step} of {self.workdir} cannot be read: {error}") from error
        if restored is None:
            raise InvalidInputError(f"{self.workdir} has no checkpoint yet")
        return Trained(self.experiment, restored[1]["state"], restored[0], self.class_names)

    def close(self) -> None:
        """Lets go of the checkpoints."""
        self._checkpointer.close()


def load(workdir: str | pathlib.Path, step: int | str | None = None, *, say: Callable[[str], None] = print) -> Trained:
    """A trained game from its workdir.

    Args:
      workdir: of a run.
      step: of the checkpoint, or `'best'`; the newest that can be read by default.
      say: gets messages about damaged checkpoints.

    Returns:
      The experiment and its state, on the first device.

    Raises:
      InvalidInputError: if the workdir has no run, or no such checkpoint.
    """
    with contextlib.closing(Run(workdir, say=say)) as run:
        return run.restore(step)
