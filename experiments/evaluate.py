"""Metrics of what a trained run makes, with the protocol that belongs to every number.

--metrics names them: fid, kid, inception_score, prdc (of Inception's features), fd_dinov2, kd_dinov2, prdc_dinov2,
cmmd, and fcd, kcd, prdc_classifier of a classifier trained here on the data in hand, which needs no download. Each is
of 50,000 samples, or of as many thousands as stand behind the name: fid5k, fcd2k. For mixtures of Gaussians: mixture.
For image translation and reconstructions, of pairs of an output and its target: l1, psnr, ssim, classifier_distance,
inception_distance, dinov2_distance, clip_distance. A game that maps inputs is evaluated on all `conditions` of its
experiment. A function of the game may stand before a name: reconstruct:fid.

Appends a line for each checkpoint to eval.jsonl in the workdir, and draws eval.png, each metric against images. With
--neighbours=N also a picture of N samples, each with the reference's images nearest to it. A checkpoint that eval.jsonl
has, the same state under the same protocol, is not evaluated again, so the same command continues where it was stopped.
"""

import contextlib
import functools
import json
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np
from absl import flags

from experiments import flags as commands
from experiments import launch
from experiments.launch import say
from experiments.pictures import curves, neighbours
from experiments.workdir import Run, Trained, versions
from gan_jax import runtime
from gan_jax.host import from_uint8
from gan_jax.runtime import Evaluator, Watchdog, choose_samples, first_samples, hosts, parse_choice, stream_samples
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


def evaluated(path: pathlib.Path) -> list[dict[str, Any]]:
    """The lines of eval.jsonl."""
    try:
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    except json.JSONDecodeError as error:
        raise InvalidInputError(f"{path} is damaged ({error}): mend or remove the line") from error


def find(path: pathlib.Path, facts: dict[str, Any]) -> dict[str, Any] | None:
    """The line that has these facts, if there is one."""
    known = [line for line in evaluated(path) if all(line[name] == value for name, value in facts.items())]
    return known[-1] if known else None


def of_protocol(path: pathlib.Path, protocol: dict[str, Any]) -> list[dict[str, Any]]:
    """The newest line of each checkpoint that was evaluated under a protocol."""
    return list({line["step"]: line for line in evaluated(path) if line["protocol"] == protocol}.values())


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
    known = hosts.decide(f"line of step {trained.step}", lambda: find(path, facts), watchdog.patience)
    if known:
        say(f"step {trained.step:,} is in {path} under this protocol: not evaluated again")
        return known
    values = evaluator(functools.partial(draw, run, evaluator, trained))
    line = {"images": trained.step * run.experiment.batch_size, "metrics": values, **facts, "versions": versions()}
    if hosts.is_primary():
        with path.open("a") as file:
            file.write(json.dumps(line) + "\n")
    return line


def main(argv: Sequence[str]) -> int:
    """See the module."""
    del argv
    if _CHOOSE.value:
        parse_choice(_CHOOSE.value)
    with launch.launched() as watchdog, contextlib.ExitStack() as stack:
        mesh = runtime.make_mesh()
        run = Run(_WORKDIR.value, mesh=mesh, say=say)
        stack.callback(run.close)
        stack.enter_context(jax.set_mesh(mesh))
        steps = hosts.decide("checkpoints", lambda: chosen_steps(run), watchdog.patience)
        cache = pathlib.Path(_CACHE.value) if _CACHE.value else launch.cache_directory()
        reference = run.experiment.comparison
        evaluator = Evaluator(
            _METRICS.value, reference, mesh, cache / "evaluation",
            functions=run.experiment.outputs, own=run.experiment.own_metrics,
            weights=_WEIGHTS.value, batch_size=_BATCH_SIZE.value, seed=_SEED.value, say=say, beat=watchdog.beat,
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
            say(f"step {step:,}  images {line['images']:,}  {shown}")
        if _NEIGHBOURS.value:
            samples = first_samples(draw(run, evaluator, trained, "sample"), _NEIGHBOURS.value)
            picture = neighbours(samples, run.experiment, evaluator)
            if hosts.is_primary():
                where = run.workdir / f"neighbours_{steps[-1]:08d}.png"
                picture.save(where)
                say(f"the first samples, and the images of {reference.name} nearest to them, in {where}")
        if hosts.is_primary():
            curves(of_protocol(path, protocol)).save(run.workdir / "eval.png")
            say(f"curves in {run.workdir / 'eval.png'}")
    return commands.DONE


if __name__ == "__main__":
    commands.run(main)
