"""Experiments by name: `runtime.train(runs.build("digits", steps=1000), "runs/digits")`."""

import dataclasses
import functools
import pathlib
from typing import Any

from gan_jax.runs.experiment_file import find, load_module
from gan_jax.runs.settings import FREE, Config, with_values
from gan_jax.runs.workdir import claim
from gan_jax.runtime import Experiment, settings


def build(name: str, **values: Any) -> Experiment:
    """Builds the experiment of a shipped config or of an experiment file.

    Trained by `runtime.train`, it leaves the same workdir as `gan-jax train`, with the experiment file and the config.
    A continuation is checked against these, whether it comes from Python or from the command.

    Args:
      name: name of a shipped config, or path of an experiment file.
      **values: values for keys of the config, such as `steps=1000`.

    Returns:
      The experiment.

    Raises:
      InvalidInputError: for an unknown config or key, or a value of another type.
    """
    path = find(name)
    module = load_module(path)
    config = with_values(module.get_config(), values)
    experiment = module.build(config)
    return dataclasses.replace(experiment, claim=functools.partial(_claim, path, config, experiment))


def _claim(
    path: pathlib.Path, config: Config, built: Experiment, experiment: Experiment, workdir: pathlib.Path
) -> bool:
    """Claims a workdir for an experiment, if the file and the config still describe it.

    Args:
      path: path of the experiment file.
      config: config that the experiment was built with.
      built: the experiment as the file built it.
      experiment: the experiment to be trained, in which `dataclasses.replace` may have changed fields of `built`.
      workdir: workdir to claim.

    Returns:
      Whether it is claimed; False if fields other than free settings were replaced.
    """
    now, before = ({field.name: getattr(x, field.name) for field in dataclasses.fields(x)} for x in (experiment, built))
    changed = {
        name
        for name in now.keys() - {"claim"}
        if (now[name] != before[name] if name in settings() else now[name] is not before[name])
    }
    if not changed <= set(FREE):
        return False
    claim(workdir, path, with_values(config, {name: now[name] for name in changed}))
    return True
