"""Computes metrics of a trained run, with the protocol behind every number.

  gan-jax evaluate --workdir=runs/digits --metrics=fcd2k --step=all

Metrics by Inception: fid, kid, inception_score, prdc; by DINOv2: fd_dinov2,
kd_dinov2, prdc_dinov2; by CLIP: cmmd; by a classifier trained here on the
data, which needs no download: fcd, kcd, prdc_classifier; for mixtures of
Gaussians: mixture; for pairs of output and target (translation,
reconstruction): l1, psnr, ssim, classifier_distance, inception_distance,
dinov2_distance, clip_distance. fid5k is fid of 5,000 samples (50,000 by
default). reconstruct:fid is fid of what the function `reconstruct` returns.

A line for each checkpoint is appended to eval.jsonl in the workdir, and
eval.png shows the metrics against images seen. A checkpoint that eval.jsonl
has, under the same protocol, is not evaluated again.
"""

import contextlib
import functools
import pathlib
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from absl import flags

from gan_jax import runtime
from gan_jax.cli import flags as commands
from gan_jax.cli import launch
from gan_jax.distributed import hosts
from gan_jax.host import from_uint8
from gan_jax.runs import Run, evaluations
from gan_jax.runs.pictures import curves, neighbours
from gan_jax.runtime import (
    Evaluator,
    Trained,
    Watchdog,
    choose_samples,
    environment,
    first_samples,
    parse_choice,
    stream_samples,
)
from gan_jax.runtime.progress import log
from gan_jax.types import InvalidInputError

_WORKDIR = flags.DEFINE_string("workdir", None, "directory of the run", required=True)
_METRICS = flags.DEFINE_list("metrics", None, "names, separated by commas; see above", required=True)
_STEP = flags.DEFINE_string("step", "newest", "of the checkpoint: a number, or newest, best or all")
_SEED = flags.DEFINE_integer("seed", 0, "of latents and subsets", lower_bound=0, upper_bound=2**31 - 1)
_RAW = flags.DEFINE_bool("raw", False, "the generator itself, not its average")
_TRUNCATION = flags.DEFINE_float("truncation", None, "see experiments.sample")
_CHOOSE = flags.DEFINE_string(
    "choose", "", "samples by the discriminator: top:SHARE, reject:PERCENTILE or mh:PROPOSALS; empty for all"
)
_BATCH_SIZE = flags.DEFINE_integer(
    "batch_size", 64, "images at a time through the feature networks (on CPUs Inception takes some 70 MB for each)",
    lower_bound=1,
)  # fmt: skip
_WEIGHTS = flags.DEFINE_string("feature_weights", None, "directory of published networks' weights; $GAN_JAX_WEIGHTS")
_CACHE = flags.DEFINE_string("cache", None, "directory of classifiers and of features of data; ~/.cache/gan_jax")
_NEIGHBOURS = flags.DEFINE_integer("neighbours", 0, "samples to draw beside their nearest images", lower_bound=0)


def chosen_steps(run: Run) -> list[int]:
    """The checkpoints that --step names."""
    steps, step = run.steps(), _STEP.value
    if not steps:
        raise InvalidInputError(f"{run.workdir} has no checkpoint yet")
    if step == "all":
        return steps
    if step == "newest":
        return [max(steps)]
    if step != "best" and not step.isdigit():
        raise InvalidInputError(f"--step={step}: expected a number, newest, best or all")
    return [run.restore("best" if step == "best" else int(step)).step]


def draw(run: Run, evaluator: Evaluator, trained: Trained, function: str) -> Iterator[np.ndarray]:
    """What a function of the game makes: the samples that are asked for, or what it maps its inputs to."""
    state = trained.state.replace(ema={}) if _RAW.value else trained.state
    if _CHOOSE.value and (function != "sample" or run.experiment.game.prior is None):
        raise InvalidInputError(f"--choose={_CHOOSE.value}: metrics of {function} look at every output")
    if _CHOOSE.value:
        count = len(evaluator.reference)
        spread = np.arange(min(4096, count)) * count // min(4096, count)
        reals = from_uint8(evaluator.images(spread))
        return choose_samples(run.experiment, state, _SEED.value, _CHOOSE.value, reals, truncation=_TRUNCATION.value)
    return stream_samples(run.experiment, state, _SEED.value, function, truncation=_TRUNCATION.value)


def evaluate(
    run: Run,
    evaluator: Evaluator,
    trained: Trained,
    protocol: dict[str, Any],
    path: pathlib.Path,
    watchdog: Watchdog,
) -> dict[str, Any]:
    """The line of a checkpoint, from eval.jsonl or a new one there; what process 0 finds there is so for all."""
    facts = {"step": trained.step, "state_sha256": runtime.state_sha256(trained.state), "protocol": protocol}
    known = hosts.decide(f"line of step {trained.step}", lambda: evaluations.find(path, facts), watchdog.patience)
    if known:
        log(f"step {trained.step:,} is in {path} under this protocol: not evaluated again")
        return known
    values = evaluator(functools.partial(draw, run, evaluator, trained))
    line = {"images": trained.step * run.experiment.batch_size, "metrics": values, **facts}
    return evaluations.append(path, line) if hosts.is_primary() else line


def main() -> int:
    """Runs the command."""
    if _CHOOSE.value:
        parse_choice(_CHOOSE.value)
    with launch.launched() as watchdog, contextlib.ExitStack() as stack:
        mesh = runtime.make_mesh()
        run = Run(_WORKDIR.value, mesh=mesh, log=log)
        stack.callback(run.close)
        stack.enter_context(jax.set_mesh(mesh))
        steps = hosts.decide("checkpoints", lambda: chosen_steps(run), watchdog.patience)
        cache = pathlib.Path(_CACHE.value) if _CACHE.value else environment.cache_directory()
        reference = run.experiment.comparison
        evaluator = Evaluator(
            _METRICS.value, reference, mesh, cache / "evaluation",
            functions=run.experiment.outputs, own=run.experiment.own_metrics,
            weights=_WEIGHTS.value, batch_size=_BATCH_SIZE.value, seed=_SEED.value, log=log, beat=watchdog.beat,
            patience=watchdog.patience,
        )  # fmt: skip
        protocol = {
            "metrics": evaluator.records,
            "seed": _SEED.value,
            "weights": "raw" if _RAW.value or not run.averages else "ema",
            "truncation": _TRUNCATION.value,
            "choose": _CHOOSE.value,
        }
        path = run.workdir / "eval.jsonl"
        for step in steps:
            watchdog.beat(f"evaluating the checkpoint of step {step:,}")
            trained = run.restore(step)
            line = evaluate(run, evaluator, trained, protocol, path, watchdog)
            shown = "  ".join(f"{name} {value:.5g}" for name, value in line["metrics"].items())
            log(f"step {step:,}  images {line['images']:,}  {shown}")
        if _NEIGHBOURS.value:
            samples = first_samples(draw(run, evaluator, trained, "sample"), _NEIGHBOURS.value)
            picture = neighbours(samples, run.experiment, evaluator)
            if hosts.is_primary():
                where = run.workdir / f"neighbours_{steps[-1]:08d}.png"
                picture.save(where)
                log(f"the first samples, and the images of {reference.name} nearest to them, in {where}")
        if hosts.is_primary():
            curves(evaluations.of_protocol(path, protocol)).save(run.workdir / "eval.png")
            log(f"curves in {run.workdir / 'eval.png'}")
    return commands.DONE
