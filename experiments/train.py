"""Trains the experiment that --config names, or continues it where its workdir left off.

--config=FILE is the experiment file, experiments/configs/digits.py if not given; --config.KEY=VALUE overrides its keys,
such as --config.steps=1000.
The same command twice continues. Exit codes: 0 done; 2 bad flag, config or data; 3 diverged, the last good checkpoint
is kept; 75 stopped by a signal after saving.
"""

import pathlib
from collections.abc import Sequence

import jax
from absl import flags

from experiments import flags as commands
from experiments import workdir as workdirs
from gan_jax import runtime
from gan_jax.runtime.loop import DIVERGED, DONE, STOPPED
from gan_jax.runtime.program import build_start, compile_program
from gan_jax.types import InvalidInputError

_WORKDIR = flags.DEFINE_string("workdir", None, "directory of the run: checkpoints, logs, samples")
_DRY_RUN = flags.DEFINE_bool("dry_run", False, "print data, parameters and memory, compile one step, train nothing")
_WANDB = flags.DEFINE_string("wandb_project", "", "log to this Weights & Biases project too")
_EXIT = {DONE: commands.DONE, STOPPED: commands.STOPPED, DIVERGED: commands.DIVERGED}


def say(message: str) -> None:
    """A message for the person watching, at once."""
    print(message, flush=True)


def dry_run(experiment: runtime.Experiment) -> None:
    """Everything up to the first iteration."""
    mesh = runtime.make_mesh()
    source = experiment.open_source()
    say(source.summary())
    with jax.set_mesh(mesh):
        start = build_start(experiment, source.spec, mesh)
        compile_program(experiment, source, mesh, start, 0, say)


def main(argv: Sequence[str]) -> int:
    """See the module."""
    del argv
    config, path = flags.FLAGS.config, commands.config_path()
    experiment = workdirs.load_module(path).build(config)
    if _DRY_RUN.value:
        dry_run(experiment)
        return commands.DONE
    if _WORKDIR.value is None:
        raise InvalidInputError(
            "--workdir is missing: a directory for checkpoints and logs, such as --workdir=runs/digits"
        )
    workdir = pathlib.Path(_WORKDIR.value)
    workdirs.claim(workdir, path, config)
    result = runtime.train(experiment, workdir, say=say, wandb_project=_WANDB.value, config=config.to_dict())
    say(f"{result.status}: step {result.step:,}, {result.images:,} images; state_sha256 {result.state_sha256}")
    if result.status == DIVERGED:
        kept = (
            f"the last good checkpoint, of step {result.checkpoint:,}, is kept"
            if result.checkpoint
            else "none was saved"
        )
        say(
            f"the run diverged; {kept} in {workdir / 'checkpoints'}: "
            "train anew in another --workdir, with a lower learning rate or a larger penalty"
        )
    return _EXIT[result.status]


if __name__ == "__main__":
    commands.run(main, config=True)
