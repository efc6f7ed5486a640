"""The impure part: mesh, checkpoints, logs, and the loop that trains an experiment."""

from gan_jax.runtime.checkpoint import Checkpointer, all_finite, state_sha256
from gan_jax.runtime.experiment import Experiment
from gan_jax.runtime.logging import Logger, duration
from gan_jax.runtime.loop import Result, train
from gan_jax.runtime.mesh import make_mesh
from gan_jax.runtime.preview import grid_columns, image_grid, scatter
from gan_jax.runtime.program import Program, Start, build_program, build_start, sample_grid

__all__ = [
    "Checkpointer",
    "Experiment",
    "Logger",
    "Program",
    "Result",
    "Start",
    "all_finite",
    "build_program",
    "build_start",
    "duration",
    "grid_columns",
    "image_grid",
    "make_mesh",
    "sample_grid",
    "scatter",
    "state_sha256",
    "train",
]
