"""Mode coverage on Stacked-MNIST: how many of the 1,000 modes each method reaches, compared with published results.

First a digit classifier is trained on MNIST; every line records its accuracy on MNIST's test set. Then each method
trains on stacked digits. During training and at its end, samples of the averaged generator are classified: the number
of modes among 26,000 samples, and KL(samples || data) in nats. A method and seed that `results/stacked_mnist.jsonl` has
with the same settings is not trained again. A stopped run continues from its checkpoint in --workdir.

python -m benchmarks.stacked_mnist --data_dir=DIR                       every method, three seeds, small scale
python -m benchmarks.stacked_mnist --data_dir=DIR --only=pairing_r1_r2  one method
python -m benchmarks.stacked_mnist --data_dir=DIR --scale=large         the published scale: for a GPU
python -m benchmarks.stacked_mnist --table                              runs nothing: prints the recorded results
python -m benchmarks.stacked_mnist --write                              runs nothing: writes table, curves into docs/
"""

import json
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from absl import app, flags, logging

from benchmarks.measure import RESULTS, put, record, recorded, spread, table
from gan_jax import core, data, gans, losses, nets, runtime
from gan_jax.runtime.environment import cache_directory
from gan_jax.types import Game

_DATA = flags.DEFINE_string("data_dir", "", "directory in which TFDS prepared mnist")
_ONLY = flags.DEFINE_list("only", [], "names of the methods to train; all by default")
_SEEDS = flags.DEFINE_integer("seeds", 3, "number of seeds of each method", lower_bound=1)
_SCALE = flags.DEFINE_enum("scale", "small", ["small", "large"], "scale of networks and training")
_WORKDIR = flags.DEFINE_string("workdir", "runs/stacked_mnist", "directory of the runs, for continuing stopped ones")
_TABLE = flags.DEFINE_bool("table", False, "train nothing: print the recorded results")
_WRITE = flags.DEFINE_bool("write", False, "train nothing: write table and curves into docs/")
_DOCS = RESULTS.parents[1] / "docs"
_LATENTS = 64
SCALES: dict[str, dict[str, Any]] = {  # small is for two cores and shrinks the digits; large pads them
    "small": {
        "image_size": 16, "width": 32, "batch_size": 64, "images": 320_000, "ema_halflife_images": 10_000.0,
        "learning_rate": 5e-4, "gamma": 1.0,
    },
    "large": {
        "image_size": 32, "width": 128, "batch_size": 512, "images": 10_000_000, "ema_halflife_images": 500_000.0,
        "learning_rate": 2e-4, "gamma": 1.0,
    },
}  # fmt: skip
PUBLISHED = {  # modes, KL, source
    "DCGAN": (99, 3.40, "VEEGAN, arXiv:1705.07761"),
    "VEEGAN": (150, 2.95, "arXiv:1705.07761"),
    "WGAN-GP": (959, 0.73, "PresGAN, arXiv:1910.04302"),
    "PacGAN": (992, 0.28, "arXiv:1712.04086"),
    "StyleGAN2": (940, 0.42, "DDGAN, arXiv:2112.07804"),
    "PresGAN": (1000, 0.12, "arXiv:1910.04302"),
    "VAEBM": (1000, 0.087, "arXiv:2010.00654"),
    "DDGAN": (1000, 0.071, "arXiv:2112.07804"),
    "MEG": (1000, 0.031, "arXiv:1901.08508"),
    "R3GAN": (1000, 0.029, "arXiv:2501.05441"),
    "small ResNet, pairing with R1 and R2": (1000, 0.078, "arXiv:2501.05441"),
    "small ResNet, non-saturating with R1 and R2": (693, 0.927, "arXiv:2501.05441"),
}


def resnet(loss: losses.GANLoss, *, r1: bool, r2: bool) -> Callable[[dict[str, Any]], Game]:
    """Returns a builder of a GAN of residual networks without normalisation, with R1 and R2 at every step as chosen."""

    def build(scale: dict[str, Any]) -> Game:
        adam = core.adam(scale["learning_rate"], 0.0, 0.99)
        return gans.adversarial(
            nets.from_linen(nets.ResNetGenerator(scale["image_size"], 3, scale["width"], norm="none")),
            nets.from_linen(nets.ResNetDiscriminator(scale["width"], norm="none")),
            core.normal(_LATENTS),
            loss=loss,
            penalties=[make(scale["gamma"]) for make, wanted in ((gans.r1, r1), (gans.r2, r2)) if wanted],
            generator_optimizer=adam,
            discriminator_optimizer=adam,
            ema_halflife_images=scale["ema_halflife_images"],
        )

    return build


def dcgan(scale: dict[str, Any]) -> Game:
    """Makes DCGAN as published, with batch norm in both networks; they are twice as wide as the residual networks."""
    width = 2 * scale["width"]
    return gans.dcgan(
        nets.from_linen(nets.DCGANGenerator(scale["image_size"], 3, width)),
        nets.from_linen(nets.DCGANDiscriminator(width)),
        core.normal(_LATENTS),
        ema_halflife_images=scale["ema_halflife_images"],
    )


def wgan_gp(scale: dict[str, Any]) -> Game:
    """Makes WGAN-GP as published: five critic steps per iteration; DCGAN's networks with layer norm in the critic."""
    width = 2 * scale["width"]
    return gans.wgan_gp(
        nets.from_linen(nets.DCGANGenerator(scale["image_size"], 3, width)),
        nets.from_linen(nets.DCGANDiscriminator(width, norm="layer")),
        core.normal(_LATENTS),
        ema_halflife_images=scale["ema_halflife_images"],
    )


METHODS: dict[str, Callable[[dict[str, Any]], Game]] = {
    "pairing_r1_r2": resnet(losses.relativistic_pairing, r1=True, r2=True),
    "non_saturating_r1_r2": resnet(losses.non_saturating, r1=True, r2=True),
    "pairing_r1": resnet(losses.relativistic_pairing, r1=True, r2=False),
    "non_saturating_r1": resnet(losses.non_saturating, r1=True, r2=False),
    "pairing_r2": resnet(losses.relativistic_pairing, r1=False, r2=True),
    "non_saturating_r2": resnet(losses.non_saturating, r1=False, r2=True),
    "dcgan": dcgan,
    "wgan_gp": wgan_gp,
}


def experiment(method: str, seed: int, source: data.Stacked) -> runtime.Experiment:
    """Makes the experiment of a method; `images` of a scale counts the images of generator updates only."""
    scale = SCALES[_SCALE.value]
    every = int(scale["images"] / scale["batch_size"] / 20)
    return runtime.Experiment(
        game=METHODS[method](scale),
        source=lambda: source,
        preview=runtime.image_grid,
        seed=seed,
        batch_size=int(scale["batch_size"]),
        steps=20 * every,
        steps_per_dispatch=10,
        report_every=every,
        evaluate_every=2 * every,
        metrics="stacked",
        sample_every=20 * every,
        checkpoint_every=2 * every,
        keep_last=1,
    )


def digits(split: str, size: int) -> data.Arrays:
    """Reads MNIST, shrunk to the given size if that is below 28 pixels; `data.stacked` pads it to larger sizes."""
    reduced = size if size < 28 else None
    found = data.tfds_images("mnist", data_dir=_DATA.value, labels=True, split=split, image_size=reduced)
    assert isinstance(found, data.Arrays)
    return found


def lines() -> list[dict[str, Any]]:
    """Returns the lines that are recorded at this scale with the same settings."""
    found = recorded("stacked_mnist")
    return [line for line in found if line["scale"] == _SCALE.value and line["settings"] == SCALES[_SCALE.value]]


def measure(method: str, seed: int, source: data.Stacked, test: data.Arrays) -> None:
    """Trains a method, or continues its stopped run, and records the result."""
    workdir = pathlib.Path(_WORKDIR.value) / f"{_SCALE.value}_{method}_{seed}"
    workdir.mkdir(parents=True, exist_ok=True)
    run, cache, began = experiment(method, seed, source), cache_directory() / "evaluation", time.monotonic()
    result = runtime.train(
        run, workdir, log=lambda text: print(f"{method} {seed}: {text}", flush=True), evaluation_cache=cache
    )
    if result.status == "stopped":
        raise SystemExit(75)  # nothing to record yet; running the same command again continues
    log = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    curve = [
        {"images": x["images"], "modes": x["eval/stacked_modes"], "kl": x["eval/stacked_kl"]}
        for x in log
        if "eval/stacked_kl" in x
    ]
    judge = runtime.Evaluator(["stacked"], source, runtime.make_mesh(), cache)
    accuracy = tested(judge, test)
    end = curve[-1] if result.status == "done" else {"modes": None, "kl": None}
    record(
        "stacked_mnist",
        {
            "method": method, "seed": seed, "scale": _SCALE.value, "settings": SCALES[_SCALE.value],
            "status": result.status, "modes": end["modes"], "kl": end["kl"], "curve": curve,
            "classifier_test_accuracy": accuracy, "classifier": judge.records["stacked"]["network"],
            "samples": judge.records["stacked"]["samples"], "seconds": round(time.monotonic() - began),
            "state_sha256": result.state_sha256,
        },
    )  # fmt: skip
    print(
        f"{method} {seed}: {end['modes']} modes, KL {end['kl']}; classifier {accuracy:.2%} on MNIST's test set",
        flush=True,
    )


def tested(judge: runtime.Evaluator, test: data.Arrays) -> float:
    """Returns the classifier's accuracy on MNIST's test set, with the same digit in all three channels of an image."""
    images = data.stacked(test, SCALES[_SCALE.value]["image_size"]).images.repeat(3, axis=-1)
    made = judge.extractors["classifier"]
    apply = jax.jit(made.apply)
    found = [
        np.asarray(apply(made.params, images[low : low + 500])["logits"])[:, :10] for low in range(0, len(images), 500)
    ]
    return float(np.mean(np.concatenate(found).argmax(-1) == test.arrays["label"]))


def summary() -> str:
    """Makes the table of our results and the published ones, in Markdown."""
    rows: list[list[Any]] = [["method", "modes of 1,000", "KL(samples to data)", "seeds", "failed", "source"]]
    for method in METHODS:
        runs = [line for line in lines() if line["method"] == method]
        good = [line for line in runs if line["status"] == "done"]
        if not runs:
            continue
        shown = [spread([line[name] for line in good], form) for name, form in (("modes", ".0f"), ("kl", ".3f"))]
        rows.append([method, *shown, len(runs), len(runs) - len(good), f"here, {_SCALE.value}"])
    for name, (modes, kl, source) in PUBLISHED.items():
        rows.append([name, modes, f"{kl:.3f}", "", "", source])
    return table(rows)


def told() -> str:
    """Describes the recorded runs in a paragraph."""
    found = lines()
    accuracies = [line["classifier_test_accuracy"] for line in found]
    settings, hours = found[0]["settings"], sum(line["seconds"] for line in found) / 3600
    devices = " and ".join(sorted({line["machine"]["device"] for line in found}))
    return (
        f"{len(found)} runs: {settings['images']:,} images in batches of {settings['batch_size']}, "
        f"{settings['image_size']}x{settings['image_size']} pixels, residual networks of width {settings['width']}; "
        f"{hours:.1f} hours in all, on {devices}. The classifier is right on {min(accuracies):.2%} of MNIST's test set."
    )


def curves(path: pathlib.Path) -> None:
    """Plots modes and KL against images, one curve for each run."""
    from matplotlib.figure import Figure  # noqa: PLC0415 - slow to import

    figure = Figure(figsize=(13, 5), layout="constrained")
    axes = figure.subplots(1, 2)
    for index, method in enumerate(METHODS):
        for number, line in enumerate(line for line in lines() if line["method"] == method):
            style: dict[str, Any] = {"color": f"C{index}", "label": method if number == 0 else None}
            for axis, name in zip(axes, ("modes", "kl"), strict=True):
                axis.plot([x["images"] for x in line["curve"]], [x[name] for x in line["curve"]], marker=".", **style)
    axes[0].set(xlabel="images (of generator updates)", ylabel="modes of 1,000")
    axes[1].set(xlabel="images (of generator updates)", ylabel="KL(samples || data), nats", yscale="log")
    axes[0].legend(fontsize=9)
    figure.savefig(path, dpi=100)


def main(argv: Sequence[str]) -> None:
    """Trains what is missing, and prints or writes the results."""
    del argv
    logging.set_verbosity(logging.ERROR)
    unknown = set(_ONLY.value) - set(METHODS)
    if unknown:
        raise SystemExit(f"--only={','.join(sorted(unknown))}: expected some of {', '.join(METHODS)}")
    if not (_TABLE.value or _WRITE.value):
        scale = SCALES[_SCALE.value]
        train, test = (digits(split, scale["image_size"]) for split in ("train", "test"))
        source = data.stacked(train, scale["image_size"])
        for seed in range(_SEEDS.value):
            for method in _ONLY.value or METHODS:
                if not any(line["method"] == method and line["seed"] == seed for line in lines()):
                    measure(method, seed, source, test)
    text = f"{summary()}\n\n{told()}"
    print(text)
    if _WRITE.value:
        put(_DOCS / "stacked_mnist.md", "benchmarks.stacked_mnist", text)
        curves(_DOCS / "images" / "stacked_mnist.png")


if __name__ == "__main__":
    app.run(main)
