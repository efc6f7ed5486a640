"""Colouring photographs with the config `pix2pix_photos`, and with the L1 distance alone in its place.

Both have the same networks, data and iterations, and are measured on the region of the photographs that is held out.

python -m benchmarks.photos             trains both, appends to results/photos.jsonl, and draws docs/images/
python -m benchmarks.photos --runs=DIR  keeps the runs, so that the same command continues after an interruption
python -m benchmarks.photos --table     runs nothing: prints the newest result of each
python -m benchmarks.photos --write     runs nothing: writes that table into docs/translation.md
"""

import pathlib
import tempfile
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from absl import app, flags
from PIL import Image

from benchmarks.measure import RESULTS, put, record, recorded, table
from gan_jax import runs, runtime
from gan_jax.host import to_uint8
from gan_jax.runtime import Experiment
from gan_jax.runtime.environment import cache_directory

_STEPS = flags.DEFINE_integer("steps", None, "iterations; the config's own by default")
_SEED = flags.DEFINE_integer("seed", 0, "seed of both runs")
_RUNS = flags.DEFINE_string("runs", None, "directory that keeps the runs; a temporary one by default")
_TABLE = flags.DEFINE_bool("table", False, "run nothing: print the recorded results")
_WRITE = flags.DEFINE_bool("write", False, "run nothing: write that table into docs/translation.md")
_ROOT = RESULTS.parents[1]
_METRICS = ("l1", "psnr", "ssim")
_VARIANTS: dict[str, dict[str, Any]] = {"pix2pix": {}, "L1 alone": {"adversarial_weight": 0.0}}
_SOURCE, _TARGET = "the grey source itself", "the target"
_SHOWN = 9  # held-out patches in the picture


def colourfulness(images: np.ndarray) -> float:
    """Returns the mean colourfulness of uint8 images: 0 for grey ones.

    sqrt(var(rg) + var(yb)) + 0.3 sqrt(mean(rg)^2 + mean(yb)^2), with rg = R - G and yb = (R + G) / 2 - B in each image.
    Hasler and Suesstrunk, "Measuring Colourfulness in Natural Images", Human Vision and Electronic Imaging, 2003.
    """
    red, green, blue = np.moveaxis(images.astype(np.float64).reshape(len(images), -1, 3), -1, 0)
    both = red - green, (red + green) / 2 - blue
    deviation = np.sqrt(sum(x.var(axis=1) for x in both))
    return float(np.mean(deviation + 0.3 * np.sqrt(sum(x.mean(axis=1) ** 2 for x in both))))


def measured(experiment: Experiment, outputs: np.ndarray) -> dict[str, float]:
    """Returns the metrics of outputs for all held-out sources, in [-1, 1]."""
    mesh = runtime.make_mesh()
    with jax.set_mesh(mesh):
        judge = runtime.Evaluator(
            _METRICS, experiment.comparison, mesh, cache_directory() / "evaluation", functions=experiment.outputs
        )
        return judge([outputs]) | {"colourfulness": colourfulness(to_uint8(outputs))}


def trained(name: str, values: dict[str, Any]) -> tuple[Experiment, np.ndarray, dict[str, Any]]:
    """Trains a variant; returns the experiment, the outputs for all held-out sources, and facts for the record."""
    options = values | ({} if _STEPS.value is None else {"steps": _STEPS.value})
    experiment = runs.build("pix2pix_photos", seed=_SEED.value, **options)
    with tempfile.TemporaryDirectory() as directory:
        ended = runtime.train(experiment, pathlib.Path(_RUNS.value or directory, name.replace(" ", "_")))
    assert ended.trained is not None, "the run has diverged"
    with jax.set_mesh(ended.trained.mesh):
        outputs = np.concatenate(list(runtime.stream_samples(experiment, ended.trained.state, 0)))
    return experiment, outputs, {"steps": ended.step, "images": ended.images, "state_sha256": ended.state_sha256}


def main(argv: Sequence[str]) -> None:
    """Trains and measures, and prints or writes the table."""
    del argv
    if not _TABLE.value and not _WRITE.value:
        rows = []
        for name, values in _VARIANTS.items():
            experiment, outputs, facts = trained(name, values)
            record("photos", {"outputs": name, "seed": _SEED.value, "values": measured(experiment, outputs)} | facts)
            rows.append(outputs)
        held_out = experiment.examples.read(0, len(outputs))
        source, target = np.repeat(held_out["inputs"], 3, axis=-1), held_out["target"]
        record("photos", {"outputs": _SOURCE, "values": measured(experiment, source)})
        record("photos", {"outputs": _TARGET, "values": {"colourfulness": colourfulness(to_uint8(target))}})
        draw([source, *rows, target])
    print(page())
    if _WRITE.value:
        put(_ROOT / "docs" / "translation.md", "benchmarks.photos", page())


def draw(rows: Sequence[np.ndarray]) -> None:
    """Draws the first held-out patches: sources, the outputs of the variants and targets, in one row each."""
    picture = runtime.image_grid(np.concatenate([x[:_SHOWN] for x in rows]), _SHOWN, min_pixels=96)
    picture.quantize(256, dither=Image.Dither.NONE).save(_ROOT / "docs" / "images" / "pix2pix_photos.png")


def page() -> str:
    """Makes the table of the newest results, in Markdown."""
    found = {line["outputs"]: line["values"] for line in recorded("photos")}
    order = [name for name in (_SOURCE, *_VARIANTS, _TARGET) if name in found]
    heads = [*_METRICS, "colourfulness"]
    shown = [[name, *(f"{found[name][x]:.3g}" if x in found[name] else "" for x in heads)] for name in order]
    return table([["outputs", *heads], *shown])


if __name__ == "__main__":
    app.run(main)
