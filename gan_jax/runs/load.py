"""Trained runs on disk: `load(workdir).sample(64)`."""

import contextlib
import functools
import pathlib
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import PyTree

from gan_jax import runtime
from gan_jax.deprecated import arguments
from gan_jax.host import user_path
from gan_jax.runs.experiment_file import load_module
from gan_jax.runs.exported import Exported, is_exported
from gan_jax.runs.settings import merged_config, with_values
from gan_jax.runs.workdir import read_record
from gan_jax.runtime import Experiment, Trained, identity
from gan_jax.runtime.program import abstract_state
from gan_jax.runtime.train import data_spec, read_data
from gan_jax.runtime.workdir import EXPERIMENT_FILE, PICKLED, kept
from gan_jax.types import InvalidInputError


class Run:
    """A trained run on disk: its experiment, and its checkpoints, which it restores on the devices of a mesh."""

    @arguments(say="log")
    def __init__(
        self,
        workdir: str | pathlib.Path,
        *,
        mesh: Mesh | None = None,
        log: Callable[[str], None] = print,
        values: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        """Reads the experiment of a run and the shapes of its data; loads no data and no checkpoint.

        This runs the code in the workdir, `experiment.py` or `experiment.pickle`: read only what you would run.

        Args:
          workdir: workdir of the run, or its URL in a bucket.
          mesh: devices on which states are placed; the first local device by default.
          log: receives messages about damaged checkpoints.
          values: values of the config's keys that replace those of the run, such as `data_dir` of data that were moved.

        Raises:
          InvalidInputError: if the workdir has no run, or the run's config no such key.
        """
        self.workdir, self.log = user_path(workdir, "workdir", bucket=True), log
        self.experiment = _experiment(self.workdir, values)
        self.class_names = tuple(read_data(self.workdir).get("class_names", ()))
        self._spec = data_spec(self.workdir)
        self.mesh = runtime.make_mesh(jax.local_devices()[:1]) if mesh is None else mesh
        with jax.set_mesh(self.mesh):
            self._abstract = {"state": abstract_state(self.experiment, self._spec, self.mesh)}
        self._checkpointer = runtime.Checkpointer(
            self.workdir / "checkpoints",
            keep_last=1,
            best_metric=self.experiment.best_metric,
            best_mode=self.experiment.best(),
            identity=identity.read(self.workdir),
            read_only=True,
        )

    def check_data(self) -> None:
        """Checks that the data are those that the run was trained on.

        Raises:
          InvalidInputError: if their fingerprint is another one.
        """
        before, source = read_data(self.workdir), self.experiment.opened
        if before["fingerprint"] != source.fingerprint():
            raise InvalidInputError(
                f"the data are not those that {self.workdir} was trained on.\nThere: {before['summary']}\nNow: "
                f"{source.summary()}\nGive the directory in which the data of the run are now"
            )

    def check_truncation(self, truncation: float) -> None:
        """Raises `InvalidInputError` for a truncation that the game cannot sample with; samples nothing."""
        state, key = self._abstract["state"], jax.random.key(0)
        whole = state.replace(frozen=self.experiment.frozen_networks.shapes())
        options = {} if self.experiment.game.num_classes is None else {"label": np.zeros(1, np.int32)}
        draw = functools.partial(self.experiment.game.sample, n=1, truncation=truncation)
        jax.eval_shape(draw, whole, key, **options)

    @property
    def averages(self) -> bool:
        """Whether the game keeps a moving average of a player's parameters."""
        return bool(self._abstract["state"].ema)

    def steps(self) -> list[int]:
        """Returns the steps that have a checkpoint, oldest first."""
        return self._checkpointer.steps()

    def restore(self, step: int | str | None = None) -> Trained:
        """Restores the state of a checkpoint.

        Args:
          step: step of the checkpoint, or `'best'`; by default the newest that is not damaged.

        Returns:
          The experiment and the state.

        Raises:
          InvalidInputError: if there is no such checkpoint, or it cannot be read.
        """
        try:
            with jax.set_mesh(self.mesh):
                restored = self._restored(step)
        except InvalidInputError:
            raise
        except Exception as error:  # Orbax and TensorStore raise many types on damaged files
            raise InvalidInputError(f"checkpoint {step} of {self.workdir} cannot be read: {error}") from error
        if restored is None and step == "best":
            raise InvalidInputError(f"{self.workdir} has no best checkpoint: train with --config.best_metric=NAME")
        if restored is None:
            raise InvalidInputError(f"{self.workdir} has no checkpoint yet")
        return Trained(self.experiment, restored[1]["state"], restored[0], self.mesh, self.class_names, self._spec)

    def _restored(self, step: int | str | None) -> tuple[int, PyTree] | None:
        if step is None:
            return self._checkpointer.restore_latest(self._abstract, self.log)
        if step == "best":
            return self._checkpointer.restore_best(self._abstract, self.log)
        if step not in self.steps():
            raise InvalidInputError(f"{self.workdir} has no checkpoint of step {step}: it has {self.steps()}")
        return int(step), self._checkpointer.restore(int(step), self._abstract)

    def close(self) -> None:
        """Closes the checkpoint manager."""
        self._checkpointer.close()


def _experiment(workdir: pathlib.Path, values: Mapping[str, Any]) -> Experiment:
    """Rebuilds a run's experiment from its experiment file and config; unpickles it if the run has no such file."""
    config = read_record(workdir)["config"]
    if not (workdir / EXPERIMENT_FILE).is_file() and (workdir / PICKLED).is_file():
        if values:
            raise InvalidInputError(
                f"{', '.join(values)}: {workdir} has an experiment without a file, whose values cannot be replaced; "
                "evaluate it where its data are at the same place"
            )
        return kept(workdir)
    module = load_module(workdir / EXPERIMENT_FILE)
    return module.build(with_values(merged_config(module, config), values))


@arguments(say="log")
def load(
    workdir: str | pathlib.Path,
    step: int | str | None = None,
    *,
    run_code: bool = True,
    log: Callable[[str], None] = print,
) -> Trained | Exported:
    """Loads a trained game from the workdir of its run, or an exported model from its folder.

    This runs the code in the workdir, `experiment.py` or `experiment.pickle`: load only what you would run. Of an
    exported model nothing is run; `run_code=False` refuses everything else.

    Args:
      workdir: workdir of the run, or its URL in a bucket; or a folder of `gan-jax export`.
      step: step of the checkpoint, or `'best'`; by default the newest that is not damaged.
      run_code: whether a workdir, with its code, is accepted.
      log: receives messages about damaged checkpoints.

    Returns:
      The experiment and its state, on the first device; or the exported model.

    Raises:
      InvalidInputError: if the workdir has no run, or no such checkpoint.
    """
    path = user_path(workdir, "workdir", bucket=True)
    if is_exported(path):
        exported = Exported(path)
        if step not in (None, exported.step):
            raise InvalidInputError(f"step={step}: {path} is an exported model, of step {exported.step}")
        return exported
    if not run_code:
        raise InvalidInputError(f"{path} has no exported model, and code of workdirs is not run here: export it first")
    with contextlib.closing(Run(workdir, log=log)) as run:
        return run.restore(step)
