"""Draws samples of a trained run, as a picture or an array.

  gan-jax sample --workdir=runs/digits --num=64 --out=grid.png

--interpolate=K shows interpolations between pairs of latents, K images in each
row. --label=C samples one class of a conditional game, by number or name.
"""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from PIL import Image

from gan_jax.cli import flags as commands
from gan_jax.runs import load
from gan_jax.runtime import Trained, grid_columns
from gan_jax.types import InvalidInputError

_WORKDIR = flags.DEFINE_string("workdir", None, "directory of the run", required=True)
_NUM = flags.DEFINE_integer("num", 64, "number of samples", lower_bound=1)
_OUT = flags.DEFINE_string("out", "grid.png", "output file: a picture, or .npy for the samples as an array")
_SEED = flags.DEFINE_integer("seed", 0, "seed of the latents", lower_bound=0, upper_bound=2**63 - 1)
_STEP = flags.DEFINE_string("step", None, "step of the checkpoint, or best; the newest by default")
_TRUNCATION = flags.DEFINE_float(
    "truncation",
    None,
    "threshold of the latents: in standard deviations if normal, in (0, 1] if uniform; for StyleGAN2 psi, from 0 to 1",
)
_INTERPOLATE = flags.DEFINE_integer(
    "interpolate", 0, "images per interpolation between two latents; 0 for independent samples"
)
_LABEL = flags.DEFINE_string(
    "label", None, "class of a conditional game, by number or name; by default all classes in turn"
)


def interpolated(run: Trained, num: int, between: int) -> np.ndarray:
    """Returns `num` latents: rows of `between` each, which lead from one draw of the prior to another."""
    prior = run.experiment.game.prior
    if prior is None:
        raise InvalidInputError("--interpolate: this game has no latents to interpolate between")
    if between < 2 or num % between:
        raise InvalidInputError(f"--interpolate={between}: expected at least 2, and a divisor of --num={num}")
    ends = prior.sample(jax.random.key(_SEED.value), 2 * (num // between), _TRUNCATION.value)
    start, end = (jnp.repeat(x, between, axis=0) for x in jnp.split(ends, 2))
    return np.asarray(prior.interpolate(start, end, jnp.tile(jnp.linspace(0.0, 1.0, between), num // between)))


def class_number(run: Trained, label: str) -> int:
    """Returns the number of a class that is given by its name in the data, or by number where none is so named."""
    if label in run.class_names:
        return run.class_names.index(label)
    if label.isdigit():
        return int(label)
    known = f"a number, or one of {', '.join(run.class_names)}" if run.class_names else "a number: no class has a name"
    raise InvalidInputError(f"--label={label}: expected {known}")


def main() -> int:
    """Runs the command."""
    out = pathlib.Path(_OUT.value)
    if out.suffix != ".npy" and Image.registered_extensions().get(out.suffix.lower()) not in Image.SAVE:
        raise InvalidInputError(f"--out={out}: expected a name ending in .npy or as a picture does, such as .png")
    step = _STEP.value
    if step is not None and step != "best" and not step.isdigit():
        raise InvalidInputError(f"--step={step}: expected a number, or best")
    run = load(_WORKDIR.value, int(step) if step and step.isdigit() else step)
    game, num = run.experiment.game, _NUM.value
    label = None if _LABEL.value is None else class_number(run, _LABEL.value)
    inputs = interpolated(run, num, _INTERPOLATE.value) if _INTERPOLATE.value else None
    labels: int | np.ndarray | None = label
    if inputs is not None and label is None and game.num_classes is not None:
        labels = np.repeat(np.arange(num // _INTERPOLATE.value) % game.num_classes, _INTERPOLATE.value)
    samples = run.sample(num, seed=_SEED.value, label=labels, truncation=_TRUNCATION.value, inputs=inputs)
    out.parent.mkdir(parents=True, exist_ok=True)
    if out.suffix == ".npy":
        np.save(out, samples)
    else:
        columns = _INTERPOLATE.value or grid_columns(num, game.num_classes if label is None else None)
        run.experiment.preview(samples, columns).save(out)
    print(f"{len(samples)} samples of step {run.step:,} in {out}")
    return commands.DONE
