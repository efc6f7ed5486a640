"""Tokenizers with and without a discriminator, and with one that the decoder sees before it has learned anything.

Trains `vqgan_cifar10` and `fsq_cifar10` in six ways: without a discriminator; with one that starts late, as in the
configs; with the generator's term from step 0, against an untrained discriminator, with R1 and without it; and the same
with the weight 1 instead of the adaptive one. By default on 8x8 digits with small networks, which a few cores can do;
with --dataset=cifar10_jpeg as the configs are, or with --small narrower and shorter.

python -m benchmarks.tokenizers                       runs what results/tokenizers.jsonl lacks, then writes the page
python -m benchmarks.tokenizers --dataset=cifar10_jpeg --data_dir=DIR    the same on CIFAR-10, which wants a GPU
python -m benchmarks.tokenizers --dataset=cifar10_jpeg --data_dir=DIR --small   a few CPU hours
python -m benchmarks.tokenizers --table               runs nothing: prints the table of the recorded results
python -m benchmarks.tokenizers --write               runs nothing: writes table and picture into docs/
"""

import json
import math
import pathlib
import tempfile
import time
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from benchmarks.measure import RESULTS, put, record, recorded, spread, table
from gan_jax import metrics, runs, runtime
from gan_jax.core import GANState
from gan_jax.host import from_uint8
from gan_jax.runtime.environment import cache_directory

_DATASET = flags.DEFINE_string("dataset", "digits", "digits, or a TFDS data set of 32x32 colour images")
_DATA = flags.DEFINE_string("data_dir", "", "directory of the TFDS data sets")
_SEEDS = flags.DEFINE_integer("seeds", 3, "number of seeds", lower_bound=1)
_NARROW = flags.DEFINE_bool("small", False, "small networks and batches on a TFDS data set, and 1,000 iterations")
_STEPS = flags.DEFINE_integer("steps", 0, "iterations; 0 for 1,000 on digits or with --small, and for 4,000 otherwise")
_TABLE = flags.DEFINE_bool("table", False, "run nothing: print the recorded results")
_WRITE = flags.DEFINE_bool("write", False, "run nothing: write table and picture into docs/")
_DOCS = RESULTS.parents[1] / "docs"
_CONFIGS = ("vqgan_cifar10", "fsq_cifar10")
_AT_ONCE = {"adversarial_start": 0, "discriminator_start": 0}
_PLAIN = {**_AT_ONCE, "adaptive": False, "adversarial_weight": 1.0}
WAYS: dict[str, dict[str, Any]] = {
    "no discriminator": {"adversarial_weight": 0.0},
    "late": {},
    "from step 0": _AT_ONCE,
    "from step 0, no R1": {**_AT_ONCE, "r1_gamma": 0.0},
    "from step 0, weight 1": _PLAIN,
    "from step 0, weight 1, no R1": {**_PLAIN, "r1_gamma": 0.0},
}
_SMALL: dict[str, Any] = {
    "channels": 1, "widths": "16,16", "discriminator_width": 16, "metrics": "reconstruct:fcd,psnr"
}  # fmt: skip
# Of 32x32 images, an eighth of the configs' operations.
_NARROWER: dict[str, Any] = {"widths": "16,32,32", "discriminator_width": 16, "batch_size": 32}
_CODES: dict[str, dict[str, Any]] = {
    "vqgan_cifar10": {"num_codes": 64, "code_channels": 4},
    "fsq_cifar10": {"levels": "5,5,3"},
}
_COLUMNS = {
    "fcd": "FCD of reconstructions", "psnr": "PSNR, dB", "codes_used": "codes used", "code_perplexity": "perplexity",
    "probe": "probe, % right", "adaptive_weight": "adaptive weight at the end", "seconds": "seconds",
}  # fmt: skip


def options(config: str, way: str, seed: int, steps: int) -> dict[str, Any]:
    """Returns the values of a config for one run."""
    digits = _DATASET.value == "digits"
    own: dict[str, Any] = {**_SMALL, **_CODES[config]} if digits else {"data_dir": _DATA.value}
    own |= _NARROWER if _NARROW.value and not digits else {}
    schedule = {"steps": steps, "evaluate_every": steps, "checkpoint_every": steps, "report_every": max(1, steps // 40)}
    late = {"discriminator_start": steps // 8, "adversarial_start": steps // 4}
    return {"dataset": _DATASET.value, "seed": seed, "sample_every": 0} | own | schedule | late | WAYS[way]


def run_one(config: str, way: str, seed: int, steps: int) -> dict[str, Any]:
    """Trains one tokenizer; returns its last metrics, and curves of the weight, the codes and the pixels' loss."""
    experiment = runs.build(config, **options(config, way, seed, steps))
    with tempfile.TemporaryDirectory() as home:
        began = time.monotonic()
        result = runtime.train(experiment, home, evaluation_cache=cache_directory() / "evaluation", log=print)
        seconds = time.monotonic() - began
        assert result.trained is not None, "the run diverged"
        with jax.set_mesh(result.trained.mesh):
            share = probe(experiment, result.trained.state)
        lines = [json.loads(line) for line in (pathlib.Path(home) / "metrics.jsonl").read_text().splitlines()]
    curves = {
        name: [[line["step"], line[key]] for line in lines if key in line and line[key] is not None]
        for name, key in (
            ("adaptive_weight", "generator/adaptive_weight"), ("codes_used", "generator/codes_used"),
            ("pixels", "generator/pixels"), ("factor", "generator/adversarial_factor"),
        )
    }  # fmt: skip
    last: dict[str, Any] = {key: value for line in lines for key, value in line.items()}
    found = {
        "fcd": last["eval/reconstruct:fcd"],
        "psnr": last["eval/psnr"],
        "codes_used": last["generator/codes_used"],
        "code_perplexity": last["generator/code_perplexity"],
        "adaptive_weight": last.get("generator/adaptive_weight"),
        "probe": 100.0 * share,
        "seconds": seconds,
    }
    return {"found": found, "curves": curves}


def probe(experiment: runtime.Experiment, state: GANState) -> float:
    """Returns the share of images, every fifth one, whose class a linear classifier of the others' codes tells."""
    rows = experiment.comparison.read(np.arange(min(len(experiment.comparison), 10_000)))
    images = rows["real"] if rows["real"].dtype != np.uint8 else np.asarray(from_uint8(jnp.asarray(rows["real"])))
    encode = jax.jit(experiment.game.functions["codes"])
    key = jax.random.key(0)
    codes = np.concatenate([encode(state, key, images[low : low + 500]) for low in range(0, len(images), 500)])
    held_out = np.arange(len(codes)) % 5 == 0
    labels = rows["label"]
    return metrics.linear_probe(codes[~held_out], labels[~held_out], codes[held_out], labels[held_out])


def codes(config: str, dataset: str) -> int:
    """Returns the number of codes of a config on a data set."""
    values = dict(runs.load_module(runs.find(config)).get_config()) | (_CODES[config] if dataset == "digits" else {})
    return values.get("num_codes") or math.prod(int(level) for level in values["levels"].split(","))


def summary() -> str:
    """Returns the table of the recorded results: means over seeds with 95% intervals."""
    lines = recorded("tokenizers")
    rows: list[list[Any]] = [["data", "config", "codes", "discriminator", "seeds", *_COLUMNS.values()]]
    for dataset in dict.fromkeys(line["dataset"] for line in lines):
        for config in _CONFIGS:
            for way in WAYS:
                here = [x["found"] for x in lines if (x["dataset"], x["config"], x["way"]) == (dataset, config, way)]
                if here:
                    values = {name: [x[name] for x in here if x[name] is not None] for name in _COLUMNS}
                    shown = [spread(values[name], ".3g") for name in _COLUMNS]
                    rows.append([dataset, f"`{config}`", codes(config, dataset), way, len(here), *shown])
    return table(rows)


def picture() -> None:
    """Draws the curves of the weight, of the codes in use and of the pixels' loss."""
    import matplotlib as mpl  # noqa: PLC0415

    mpl.use("Agg")
    import matplotlib.pyplot as plt  # noqa: PLC0415

    lines = [line for line in recorded("tokenizers") if line["dataset"] == "digits"]
    names = {"adaptive_weight": "adaptive weight", "codes_used": "codes used", "pixels": "mean |y - x|"}
    figure, axes = plt.subplots(len(_CONFIGS), len(names), figsize=(11, 6), squeeze=False, sharex=True)
    for row, config in zip(axes, _CONFIGS, strict=True):
        for axis, (name, title) in zip(row, names.items(), strict=True):
            for color, way in zip(("C7", "C0", "C1", "C3", "C2", "C4"), WAYS, strict=True):
                curves = [x["curves"][name] for x in lines if (x["config"], x["way"]) == (config, way)]
                for index, curve in enumerate(filter(None, curves)):
                    axis.plot(*zip(*curve, strict=True), color=color, lw=1, label=way if index == 0 else None)
            axis.set_title(f"{config}: {title}", fontsize=9)
            if name != "codes_used":
                axis.set_yscale("log")
            axis.set_xlabel("iteration", fontsize=8)
    axes[0, -1].legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(_DOCS / "images" / "tokenizers.png", dpi=110)
    plt.close(figure)


def run_all() -> None:
    """Runs and records everything that has no line yet, one seed after the other."""
    small = _NARROW.value and _DATASET.value != "digits"
    steps = _STEPS.value or (1000 if small or _DATASET.value == "digits" else 4000)
    dataset = _DATASET.value + ", small" * small
    there = {(x["dataset"], x["config"], x["way"], x["seed"], x["steps"]) for x in recorded("tokenizers")}
    for seed in range(_SEEDS.value):
        for config in _CONFIGS:
            for way in WAYS:
                key = (dataset, config, way, seed, steps)
                if key in there:
                    continue
                line = dict(zip(("dataset", "config", "way", "seed", "steps"), key, strict=True))
                found = run_one(config, way, seed, steps)
                record("tokenizers", {**line, **found})
                print(line, {name: round(x, 3) for name, x in found["found"].items() if x is not None})


def main(argv: Sequence[str]) -> None:
    """Runs what is missing, and prints and writes the table and the picture."""
    del argv
    if not (_TABLE.value or _WRITE.value):
        run_all()
    print(summary())
    if not _TABLE.value:
        put(_DOCS / "tokenizers.md", "benchmarks.tokenizers", summary())
        picture()


if __name__ == "__main__":
    app.run(main)
