"""Computes metrics of a trained run, and records the protocol of every number.

  gan-jax evaluate --workdir=runs/digits --metrics=fcd2k --step=all
  gan-jax evaluate --images=DIR --reference=DIR --metrics=fid,kid

Metrics, by the network that computes the features:
  Inception             fid, fid_infinity, kid, inception_score, prdc
  DINOv2                fd_dinov2, fd_dinov2_infinity, kd_dinov2, prdc_dinov2
  CLIP                  cmmd
  a classifier that is trained on the data, without any download:
                        fcd, fcd_infinity, kcd, prdc_classifier, and stacked
                        for Stacked-MNIST
  none                  mixture, for mixtures of Gaussians
Metrics of pairs of output and target (translation, reconstruction): l1, psnr,
ssim, lpips, classifier_distance, inception_distance, dinov2_distance,
clip_distance.

A suffix sets the number of samples: fid5k is the FID of 5,000 samples. The
default is 50,000 (stacked: 26,000; mixture: 2,500). A prefix selects a function
of the game: reconstruct:fid is the FID of what `reconstruct` returns.

Each evaluation of a checkpoint is appended as one line to eval.jsonl in the
workdir, and eval.png plots the metrics against the images seen in training. A
checkpoint that is in eval.jsonl under the same protocol is not evaluated again.

The second form is of folders of pictures, made by anything. They must be of one
size, or are brought to --image_size. A name without a number then means all of
the images; metrics of pairs compare images of the same name; those of the
classifier need a reference with one sub-folder for each class. --out=FILE
appends the values with their protocol to a file of JSON lines.

This runs the experiment file in the workdir: use only workdirs of people whose
code you would run.
"""

import contextlib
import functools
import os
import pathlib
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from absl import flags

from gan_jax import eval as evals
from gan_jax import runs, runtime
from gan_jax.buckets import BucketPath
from gan_jax.cli import flags as commands
from gan_jax.cli import kinds, launch
from gan_jax.distributed import hosts
from gan_jax.eval import PAIRS
from gan_jax.host import check_writable, from_uint8
from gan_jax.runs import Run, evaluations
from gan_jax.runs.pictures import curves, neighbours, save
from gan_jax.runtime import (
    Evaluator,
    Trained,
    Watchdog,
    board,
    check_choice,
    choose_samples,
    directions,
    environment,
    first_samples,
    parse_choice,
    stream_samples,
)
from gan_jax.runtime.progress import log
from gan_jax.types import InvalidInputError

_WORKDIR = kinds.path("workdir", None, "directory of the run, or its URL: gs:// or s3://", bucket=True)
_IMAGES = kinds.path("images", None, "folder of images to evaluate, in place of a run")
_REFERENCE = kinds.path("reference", None, "folder of the images to compare them with")
_IMAGE_SIZE = flags.DEFINE_integer(
    "image_size", None, "height and width to which images of folders are brought", lower_bound=1, upper_bound=2**14
)
_OUT = kinds.path("out", None, "file of JSON lines for the values of folders")
_METRICS = flags.DEFINE_list("metrics", None, "names of metrics, separated by commas; see above", required=True)
_STEP = kinds.step("step", "newest", "step of the checkpoint: a number, newest, best or all", "newest", "best", "all")
_SEED = flags.DEFINE_integer("seed", 0, "seed of latents and random subsets", lower_bound=0, upper_bound=2**31 - 1)
_RAW = flags.DEFINE_bool("raw", False, "use the generator itself instead of its average")
_TRUNCATION = kinds.number("truncation", "see gan-jax sample --help")
_CHOOSE = flags.DEFINE_string(
    "choose",
    "",
    "let the discriminator select samples: top:SHARE, reject:PERCENTILE or mh:PROPOSALS; empty for all samples",
)
_BATCH_SIZE = flags.DEFINE_integer(
    "batch_size", 64, "images per batch of the feature networks (on CPUs Inception takes some 70 MB per image)",
    lower_bound=1, upper_bound=2**16,
)  # fmt: skip
_WEIGHTS = kinds.path(
    "feature_weights",
    None,
    "directory of the published networks' weights; by default that of gan-jax fetch",
)
_CACHE = kinds.path("cache", None, "directory of classifiers and of features of data; default: ~/.cache/gan_jax")
_DATA_DIR = kinds.path("data_dir", None, "directory of the run's data, if it is another one now than in training")
_NEIGHBOURS = flags.DEFINE_integer(
    "neighbours", 0, "samples to show beside their nearest images; 0 for none", lower_bound=0, upper_bound=1000
)


def chosen_steps(run: Run) -> list[int | str | None]:
    """Returns the checkpoints that --step selects, each as `Run.restore` takes it."""
    steps, step = run.steps(), _STEP.value
    if not steps:
        raise InvalidInputError(f"{run.workdir} has no checkpoint yet")
    if step == "all":
        return [*steps]
    if step == "newest":
        return [None]
    if step == "best":
        run.restore(step)  # refused here, before anything is computed, if there is none
        return [step]
    if int(step) not in steps:
        raise InvalidInputError(f"{run.workdir} has no checkpoint of step {step}: it has {steps}")
    return [int(step)]


def draw(run: Run, evaluator: Evaluator, trained: Trained, function: str) -> Iterator[np.ndarray]:
    """Streams the outputs of a function of the game: samples, selected by --choose, or the images of its inputs."""
    state = trained.state.replace(ema={}) if _RAW.value else trained.state
    if _CHOOSE.value:
        count = len(evaluator.reference)
        # The calibration reals are evenly spaced over the data set, so that data sorted by class are covered.
        spread = np.arange(min(4096, count)) * count // min(4096, count)
        reals = from_uint8(evaluator.images(spread))
        return choose_samples(run.experiment, state, _SEED.value, _CHOOSE.value, reals, truncation=_TRUNCATION.value)
    return stream_samples(run.experiment, state, _SEED.value, function, truncation=_TRUNCATION.value)


def show(line: dict[str, Any]) -> None:
    """Logs a line of eval.jsonl."""
    shown = "  ".join(f"{name} {value:.5g}" for name, value in line["metrics"].items())
    log(f"step {line['step']:,}  images {line['images']:,}  {shown}")


_OF_FOLDERS, _OF_RUNS = (_IMAGES, _REFERENCE, _IMAGE_SIZE, _OUT), (_STEP, _RAW, _TRUNCATION, _CHOOSE, _DATA_DIR)


def check_form() -> bool:
    """Returns whether folders are evaluated, and not a run; refuses a mixture of both forms."""
    given = {flag.name: flags.FLAGS[flag.name].present for flag in (_WORKDIR, *_OF_FOLDERS, *_OF_RUNS, _NEIGHBOURS)}
    folders = [flag.name for flag in _OF_FOLDERS if given[flag.name]]
    if not folders and not given["workdir"]:
        raise InvalidInputError("--workdir is missing: expected --workdir, or both --images and --reference")
    runs = [name for name in ("workdir", "neighbours", *(flag.name for flag in _OF_RUNS)) if given[name]]
    if folders and runs:
        raise InvalidInputError(f"--{runs[0]} is of a run, and --{folders[0]} of folders: give one of them")
    if folders and None in (_IMAGES.value, _REFERENCE.value):
        raise InvalidInputError("expected both --images and --reference, two folders of images")
    return bool(folders)


def evaluate_folders() -> int:
    """Evaluates a folder of images, in one process."""
    out = None if _OUT.value is None else kinds.place(_OUT)
    if out is not None:
        check_writable(out.parent, f"--out={out}")
    with launch.launched() as watchdog:
        if hosts.client() is not None:
            raise InvalidInputError("--images: folders are evaluated by one process; pass --multihost=off")
        line = runs.evaluate_folders(
            _IMAGES.value, _REFERENCE.value, _METRICS.value, image_size=_IMAGE_SIZE.value, weights=_WEIGHTS.value,
            cache=_CACHE.value, batch_size=_BATCH_SIZE.value, seed=_SEED.value, log=log, beat=watchdog.beat,
        )  # fmt: skip
    for name, value in line["metrics"].items():
        log(f"{name} {value:.5g}")
    if out is not None:
        evaluations.append(out, {"images": _IMAGES.value, "reference": _REFERENCE.value, **line})
        log(f"with the protocol in {out}")
    return commands.DONE


def check() -> None:
    """Refuses flags that no run could be evaluated with."""
    if not _METRICS.value:
        raise InvalidInputError("--metrics is empty: expected names of metrics, such as --metrics=fcd2k")
    try:
        if _CHOOSE.value:
            parse_choice(_CHOOSE.value)
    except InvalidInputError as error:
        raise InvalidInputError(f"--choose: {error}") from error


def check_run(run: Run, path: pathlib.Path, cache: pathlib.Path) -> None:
    """Refuses what this run cannot be evaluated with, before any network is read, trained or applied."""
    experiment = run.experiment
    requests = evals.metric_specs(_METRICS.value, experiment.own_metrics)
    mapping = {name for x in requests for name, inputs in [experiment.outputs(x.function, x.metric.takes)] if inputs}
    if _CHOOSE.value and mapping:
        raise InvalidInputError(f"--choose={_CHOOSE.value}: metrics of {', '.join(mapping)} look at every output")
    if _CHOOSE.value:
        check_choice(experiment, _CHOOSE.value)
    if _NEIGHBOURS.value and not any(x.network and x.metric.compares and x.metric.takes != PAIRS for x in requests):
        raise InvalidInputError(
            "--neighbours: none of the --metrics compares features with those of the data; add one, such as fcd2k"
        )
    if experiment.game.prior is not None and _TRUNCATION.value is not None:
        run.check_truncation(_TRUNCATION.value)
    if hosts.is_primary():
        check_writable(path.parent, f"--workdir={run.workdir}")
        if not isinstance(path, BucketPath) and path.exists() and not os.access(path, os.W_OK):
            raise InvalidInputError(f"{path} cannot be written: change its permissions, or copy the workdir")
    if _CACHE.value is not None:
        check_writable(cache, f"--cache={_CACHE.value}")


def evaluate(
    run: Run,
    evaluator: Evaluator,
    trained: Trained,
    protocol: dict[str, Any],
    path: pathlib.Path,
    watchdog: Watchdog,
) -> dict[str, Any]:
    """Returns a checkpoint's line of eval.jsonl; evaluates the checkpoint and appends the line if it is missing.

    Process 0 looks for the line and all processes follow it, so that either all of them evaluate or none.
    """
    facts = {"step": trained.step, "state_sha256": runtime.state_sha256(trained.state)}
    topic = f"line of step {trained.step}"
    known = hosts.decide(topic, lambda: evaluations.find(path, facts, protocol), watchdog.patience)
    if known:
        log(f"step {trained.step:,} is already in {path} under this protocol: not evaluated again")
        show(known)
        return known
    values = evaluator(functools.partial(draw, run, evaluator, trained))
    line = {"images": trained.step * run.experiment.batch_size, "metrics": values, **facts, "protocol": protocol}
    show(line)  # before the file is written, which may fail
    if not hosts.is_primary():
        return line
    tags = {f"evaluated/{name}": value for name, value in values.items()}
    board.note(run.workdir, trained.step, tags, log)
    return evaluations.append(path, line)


def main() -> int:
    """Runs the command."""
    folders = check_form()
    check()
    if folders:
        return evaluate_folders()
    with launch.launched() as watchdog, contextlib.ExitStack() as stack:
        mesh = runtime.make_mesh()
        moved = {} if _DATA_DIR.value is None else {"data_dir": _DATA_DIR.value}
        run = Run(_WORKDIR.value, mesh=mesh, log=log, values=moved)
        stack.callback(run.close)
        stack.enter_context(jax.set_mesh(mesh))
        steps = hosts.decide("checkpoints", lambda: chosen_steps(run), watchdog.patience)
        cache = pathlib.Path(_CACHE.value) if _CACHE.value else environment.cache_directory()
        if moved:
            run.check_data()
        path, reference = run.workdir / "eval.jsonl", run.experiment.comparison
        check_run(run, path, cache)
        evaluator = Evaluator(
            _METRICS.value, reference, mesh, cache / "evaluation",
            functions=run.experiment.outputs, references=run.experiment.references, own=run.experiment.own_metrics,
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
        for step in steps:
            watchdog.beat("restoring")
            trained = run.restore(step)
            watchdog.beat(f"evaluating the checkpoint of step {trained.step:,}")
            evaluate(run, evaluator, trained, protocol, path, watchdog)
        if _NEIGHBOURS.value:
            samples = first_samples(draw(run, evaluator, trained, "sample"), _NEIGHBOURS.value)
            picture = neighbours(samples, run.experiment, evaluator)
            if hosts.is_primary():
                where = run.workdir / f"neighbours_{trained.step:08d}.png"
                save(picture, where)
                log(f"the first samples beside their nearest images of {reference.name}: {where}")
        if hosts.is_primary():
            better = directions(_METRICS.value, run.experiment.own_metrics)
            save(curves(evaluations.of_protocol(path, protocol), better), run.workdir / "eval.png")
            log(f"curves in {run.workdir / 'eval.png'}")
    return commands.DONE
