"""Draws samples of a trained run, as a picture or an array.

  gan-jax sample --workdir=runs/digits --num=64 --out=grid.png

--interpolate=K shows interpolations between pairs of latents, K images in each
row. --label=C samples one class of a conditional game, by number or name.

Clips move in a .webp, .gif or .mp4, and are a .png of still frames.
--content_seed=S and --motion_seed=S show a matrix of clips, with one content in
each row and one motion in each column: hold one seed and vary the other.
--frames=T makes clips longer than those trained on.

It also takes a folder of gan-jax export as --workdir, and runs no code from it.
Otherwise this runs the experiment file in the workdir: use only workdirs of
people whose code you would run; --norun_code refuses all but exported folders.
"""

import pathlib
from typing import Any

import numpy as np
from absl import flags

from gan_jax.cli import flags as commands
from gan_jax.cli import kinds
from gan_jax.host import check_writable
from gan_jax.runs import load
from gan_jax.runs.pictures import MOVING, PICTURES, write
from gan_jax.runtime import grid_columns
from gan_jax.types import InvalidInputError

_WORKDIR = kinds.path(
    "workdir", None, "directory of the run, or its URL: gs:// or s3://; or an exported folder", required=True,
    bucket=True,
)  # fmt: skip
_NUM = flags.DEFINE_integer("num", 64, "number of samples", lower_bound=1, upper_bound=10**9)
_OUT = kinds.path("out", "grid.png", "output file: a picture, or .npy for the samples as an array", bucket=True)
_SEED = flags.DEFINE_integer("seed", 0, "seed of the latents", lower_bound=0, upper_bound=2**63 - 1)
_STEP = kinds.step("step", None, "step of the checkpoint, or best; the newest by default", "best")
_TRUNCATION = kinds.number(
    "truncation",
    "threshold of the latents: in standard deviations if normal, in (0, 1] if uniform; for StyleGAN2 psi, from 0 to 1",
)
_INTERPOLATE = flags.DEFINE_integer(
    "interpolate", 0, "images per interpolation between two latents; 0 for independent samples"
)
_LABEL = flags.DEFINE_string(
    "label", None, "class of a conditional game, by number or name; by default all classes in turn"
)
_CONTENT_SEED = flags.DEFINE_integer(
    "content_seed", None, "seed of the contents of a matrix of clips; --seed by default", lower_bound=0
)
_MOTION_SEED = flags.DEFINE_integer(
    "motion_seed", None, "seed of the motions of a matrix of clips; --seed by default", lower_bound=0
)
_FRAMES = flags.DEFINE_integer(
    "frames", None, "frames of the clips of a matrix; by default as in training", lower_bound=1
)
_RUN_CODE = flags.DEFINE_bool("run_code", True, "accept workdirs, whose code is run, and not only exported folders")


_MOST_SHOWN = 2**16  # samples in a picture


def check() -> pathlib.Path:
    """Returns the output file; refuses what would fail once the samples are there."""
    out, num, between = kinds.place(_OUT), _NUM.value, _INTERPOLATE.value
    endings = (".npy", *dict.fromkeys((*PICTURES, *MOVING)))
    if out.suffix.lower() not in endings:
        raise InvalidInputError(f"--out={out}: expected a name that ends in {', '.join(endings)}")
    if out.is_dir():
        raise InvalidInputError(f"--out={out} is a directory: expected the name of a file")
    if out.suffix.lower() != ".npy" and num > _MOST_SHOWN:
        raise InvalidInputError(f"--num={num}: expected at most {_MOST_SHOWN:,} in a picture; --out=NAME.npy has more")
    if between and (between < 2 or num % between):
        raise InvalidInputError(f"--interpolate={between}: expected at least 2, and a divisor of --num={num}")
    if is_matrix() and (between or _LABEL.value is not None):
        raise InvalidInputError(
            "--content_seed, --motion_seed and --frames show a matrix of clips: leave out --interpolate and --label"
        )
    check_writable(out.parent, f"--out={out}")
    return out


def is_matrix() -> bool:
    """Whether the flags ask for a matrix of clips."""
    return any(flag.value is not None for flag in (_CONTENT_SEED, _MOTION_SEED, _FRAMES))


def drawn_matrix(run: Any) -> tuple[np.ndarray, int]:
    """Draws a matrix of clips; returns the clips, row by row, and the number of columns."""
    if not hasattr(run, "clip_matrix"):
        raise InvalidInputError("--content_seed, --motion_seed, --frames: expected a workdir, not an exported folder")
    seeds = {
        name: _SEED.value if flag.value is None else flag.value
        for name, flag in (("content_seed", _CONTENT_SEED), ("motion_seed", _MOTION_SEED))
    }
    made = run.clip_matrix(_NUM.value, frames=_FRAMES.value, truncation=_TRUNCATION.value, **seeds)
    return made.reshape(-1, *made.shape[2:]), made.shape[1]


def main() -> int:
    """Runs the command."""
    out, step = check(), _STEP.value
    run = load(_WORKDIR.value, step if step in (None, "best") else int(step), run_code=_RUN_CODE.value)
    if is_matrix():
        samples, columns = drawn_matrix(run)
        write(out, samples, lambda: run.preview(samples, columns), f"--out={out}")
        print(f"{len(samples)} clips of step {run.step:,} in {out}")
        return commands.DONE
    num, between, seed, truncation = _NUM.value, _INTERPOLATE.value, _SEED.value, _TRUNCATION.value
    label = None if _LABEL.value is None else run.class_number(_LABEL.value)
    inputs = run.interpolated(num, between, seed=seed, truncation=truncation) if between else None
    labels: int | np.ndarray | None = label
    if between and label is None and run.num_classes is not None:
        labels = np.repeat(np.arange(num // between) % run.num_classes, between)
    samples = run.sample(num, seed=seed, label=labels, truncation=truncation, inputs=inputs)
    columns = between or grid_columns(num, run.num_classes if label is None else None)
    write(out, samples, lambda: run.preview(samples, columns), f"--out={out}")
    print(f"{len(samples)} samples of step {run.step:,} in {out}")
    return commands.DONE
