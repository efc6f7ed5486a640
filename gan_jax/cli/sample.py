"""Draws samples of a trained run, as a picture or an array.

  gan-jax sample --workdir=runs/digits --num=64 --out=grid.png

--interpolate=K shows interpolations between pairs of latents, K images in each
row. --label=C samples one class of a conditional game, by number or name.

It also takes a folder of gan-jax export as --workdir, and runs no code from it.
Otherwise this runs the experiment file in the workdir: use only workdirs of
people whose code you would run; --norun_code refuses all but exported folders.
"""

import pathlib

import numpy as np
from absl import flags

from gan_jax.cli import flags as commands
from gan_jax.cli import kinds
from gan_jax.host import check_writable
from gan_jax.runs import load
from gan_jax.runs.pictures import PICTURES, write
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
_RUN_CODE = flags.DEFINE_bool("run_code", True, "accept workdirs, whose code is run, and not only exported folders")


_MOST_SHOWN = 2**16  # samples in a picture


def check() -> pathlib.Path:
    """Returns the output file; refuses what would fail once the samples are there."""
    out, num, between = kinds.place(_OUT), _NUM.value, _INTERPOLATE.value
    if out.suffix.lower() not in (".npy", *PICTURES):
        raise InvalidInputError(f"--out={out}: expected a name that ends in .npy, {', '.join(PICTURES)}")
    if out.is_dir():
        raise InvalidInputError(f"--out={out} is a directory: expected the name of a file")
    if out.suffix.lower() != ".npy" and num > _MOST_SHOWN:
        raise InvalidInputError(f"--num={num}: expected at most {_MOST_SHOWN:,} in a picture; --out=NAME.npy has more")
    if between and (between < 2 or num % between):
        raise InvalidInputError(f"--interpolate={between}: expected at least 2, and a divisor of --num={num}")
    check_writable(out.parent, f"--out={out}")
    return out


def main() -> int:
    """Runs the command."""
    out, step = check(), _STEP.value
    run = load(_WORKDIR.value, step if step in (None, "best") else int(step), run_code=_RUN_CODE.value)
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
