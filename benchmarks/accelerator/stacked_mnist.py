"""Training on Stacked-MNIST at the scale of R3GAN's experiment, for as long as there is time.

The experiment is `pairing_r1_r2` of `benchmarks.stacked_mnist`, scale `large`: the paper's small ResNet, 10 million
images. The next call continues from the checkpoint, so that several calls reach the end.
"""

import json
import math
import pathlib
import shutil
import statistics
import threading
from typing import Any

from benchmarks.accelerator import mnist
from benchmarks.accelerator.context import Context, SkippedError
from benchmarks.stacked_mnist import METHODS, SCALES
from gan_jax import data, runtime
from gan_jax.distributed.signals import stop_signals
from gan_jax.runtime.loop import DIVERGED, DONE

METHOD = "pairing_r1_r2"
_SAVING = 12.0  # seconds before the deadline in which training stops: the last dispatch, the checkpoint and the picture
_TINY = {
    "width": 4, "batch_size": 8, "images": 320, "ema_halflife_images": 100.0, "learning_rate": 2e-4,
    "gamma": 1.0,
}  # fmt: skip


def run(context: Context) -> None:
    """Trains on, and records how far it came.

    Raises:
      SkippedError: without a file with MNIST, or if so little time is left that training would not begin.
    """
    digits = mnist.load(context.mnist, "train")
    if context.tiny:
        digits = few(digits)
    if context.left < 2 * _SAVING and not context.tiny:
        raise SkippedError(f"{context.left:.0f} s are left: too few to compile, train and save")
    workdir = context.work / f"stacked_mnist{'-tiny' if context.tiny else ''}"
    workdir.mkdir(parents=True, exist_ok=True)
    before = len(log(workdir))
    result = train(context, digits, workdir)
    lines = log(workdir)
    scores = [
        [line["images"], *(line[f"eval/{_metric(context)}_{name}"] for name in ("modes", "kl"))]
        for line in lines
        if f"eval/{_metric(context)}_kl" in line
    ]
    own = [line["images_per_second"] for line in lines[before:]]
    rate = statistics.median(own) if own else None
    for picture in sorted((workdir / "samples").glob("step_*.png"))[-1:]:
        shutil.copy(picture, context.out / "stacked_mnist.png")
    best = scores[-1] if scores else [None, None, None]
    context.record(
        METHOD, status=result.status, step=result.step, images=result.images, images_per_second=rate,
        state_sha256=result.state_sha256, settings=scale(context), evaluated_at=best[0], modes=best[1], kl=best[2],
        curve=scores,
    )  # fmt: skip
    if result.status == DIVERGED:
        context.failed.append(METHOD)
    elif result.status != DONE:
        context.left_out.append(f"{scale(context)['images'] - result.images:,} of {scale(context)['images']:,} images")


def few(digits: data.Arrays) -> data.Arrays:
    """Returns some of the digits, with so few pixels that a classifier of them is trained in seconds on a CPU."""
    every = -(-digits.arrays["real"].shape[1] // 8)
    arrays = {"real": digits.arrays["real"][:1500, ::every, ::every], "label": digits.arrays["label"][:1500]}
    return data.Arrays(digits.name, arrays, digits.num_classes)


def _metric(context: Context) -> str:
    return "stacked1k" if context.tiny else "stacked"


def scale(context: Context) -> dict[str, Any]:
    """Returns the sizes of networks and training."""
    return _TINY if context.tiny else SCALES["large"]


def train(context: Context, digits: data.Arrays, workdir: pathlib.Path) -> runtime.Result:
    """Trains from the newest checkpoint until the end, or until the time is nearly over."""
    sizes = scale(context)
    size = max(8, 1 << (digits.arrays["real"].shape[1] - 1).bit_length())  # a power of two: 32 for MNIST
    source = data.stacked(digits, size)
    whole = sizes["images"] / sizes["batch_size"]
    every = max(10, round(whole / 1600) * 10)
    experiment = runtime.Experiment(
        game=METHODS[METHOD](sizes | {"image_size": size}), source=lambda: source, preview=runtime.image_grid, seed=0,
        batch_size=sizes["batch_size"], steps=math.ceil(whole / every) * every, steps_per_dispatch=10,
        report_every=every, evaluate_every=4 * every, metrics=_metric(context), sample_every=2 * every,
        checkpoint_every=2 * every, keep_last=1,
    )  # fmt: skip
    with stop_signals() as stop:

        def ask() -> None:
            stop.reason = "the end of its time"

        timer = threading.Timer(max(0.0, context.left - _SAVING), ask)
        timer.daemon = True
        timer.start()
        try:
            return runtime.train(experiment, workdir, stop=stop, log=say, evaluation_cache=context.work / "evaluation")
        finally:
            timer.cancel()


def say(message: str) -> None:
    """Prints a message of the training."""
    print(message, flush=True)


def log(workdir: pathlib.Path) -> list[dict[str, Any]]:
    """Returns the lines of the training's log."""
    path = workdir / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []
