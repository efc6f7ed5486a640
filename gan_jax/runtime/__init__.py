"""Running an experiment, with side effects: mesh, checkpoints, logs, evaluation, and the training loop."""

from gan_jax.distributed.mesh import make_mesh
from gan_jax.distributed.watchdog import Watchdog
from gan_jax.runtime.arrays import state_sha256
from gan_jax.runtime.checkpoint import Checkpointer
from gan_jax.runtime.conditions import Conditions, Domain
from gan_jax.runtime.evaluation import Evaluator, directions, first_samples, same_protocol
from gan_jax.runtime.experiment import Experiment, settings
from gan_jax.runtime.film import Film, clip_grid
from gan_jax.runtime.finetune import init_from
from gan_jax.runtime.frozen import Frozen, trained_classifier, trained_player
from gan_jax.runtime.health import all_finite, diversity
from gan_jax.runtime.logging import Logger
from gan_jax.runtime.preview import grid_columns, image_grid, scatter, side_by_side
from gan_jax.runtime.program import Program, Start, build_program, build_start, logged_names
from gan_jax.runtime.progress import duration
from gan_jax.runtime.reference import Reference
from gan_jax.runtime.rejection_sampling import check_choice, choose_samples, parse_choice
from gan_jax.runtime.sampling import sample_grid, stream_samples
from gan_jax.runtime.train import Result, train
from gan_jax.runtime.trained import Trained
from gan_jax.runtime.translation import Translator

__all__ = [
    "Checkpointer",
    "Conditions",
    "Domain",
    "Evaluator",
    "Experiment",
    "Film",
    "Frozen",
    "Logger",
    "Program",
    "Reference",
    "Result",
    "Start",
    "Trained",
    "Translator",
    "Watchdog",
    "all_finite",
    "build_program",
    "build_start",
    "check_choice",
    "choose_samples",
    "clip_grid",
    "directions",
    "diversity",
    "duration",
    "first_samples",
    "grid_columns",
    "image_grid",
    "init_from",
    "logged_names",
    "make_mesh",
    "parse_choice",
    "same_protocol",
    "sample_grid",
    "scatter",
    "settings",
    "side_by_side",
    "state_sha256",
    "stream_samples",
    "train",
    "trained_classifier",
    "trained_player",
]
