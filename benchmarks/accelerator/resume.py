"""Training that is killed with SIGKILL and resumed, against training that is not: the same bits, and at what price.

With `deterministic` XLA is told to use operations that give the same bits in every run, as by `gan-jax train
--deterministic`; without it, GPUs may add in another order each time. `compiled again` means an empty cache: then the
compiler chooses its algorithms anew.
"""

import hashlib
import json
import os
import pathlib
import shutil
import signal
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from benchmarks.accelerator import plan
from benchmarks.accelerator.context import Context
from benchmarks.accelerator.trainer import SIZES
from gan_jax.runtime.loop import DIVERGED, DONE, STOPPED

_FLAG = "--xla_gpu_deterministic_ops=true"
_RATE = "images_per_second"  # the field of a log's line that depends on the clock


def run(context: Context) -> None:
    """Trains without and with kills, with and without determinism; the most important comparison first."""
    steps, every = SIZES[context.tiny][3:]
    twice = (steps // 3, 2 * steps // 3)

    def again(deterministic: bool, kills: Sequence[int] = (), *, fresh: bool = False) -> dict[str, Any]:
        name = f"{'deterministic' if deterministic else 'default'}, uninterrupted"
        before = context.known(name)
        if before is None:
            raise RuntimeError(f"there is no result of {name!r} to compare with")
        found = train(context, deterministic, [step + every // 2 for step in kills], fresh=fresh)
        equal = found["state_sha256"] == before["state_sha256"] and found["log_sha256"] == before["log_sha256"]
        # Without determinism a difference is what is to be expected of a GPU; it is no fault.
        return found | {"equal": equal} | ({"ok": equal} if deterministic else {})

    units: dict[str, Callable[[], dict[str, Any]]] = {
        "deterministic, uninterrupted": lambda: train(context, True),
        "deterministic, killed twice": lambda: again(True, twice),
        "default, uninterrupted": lambda: train(context, False),
    }
    if not context.tiny:
        units |= {
            "default, killed once": lambda: again(False, twice[:1]),
            "deterministic, compiled again": lambda: again(True, fresh=True),
            "default, compiled again": lambda: again(False, fresh=True),
        }
    context.each(units)


def train(context: Context, deterministic: bool, kills: Sequence[int] = (), *, fresh: bool = False) -> dict[str, Any]:
    """Trains to the end in processes of their own.

    Args:
      context: context of the part.
      deterministic: whether XLA is to use deterministic operations.
      kills: steps; the process is killed when it reports one of them or a later one, and started again.
      fresh: whether to compile again, without the cache.

    Returns:
      Hash of the state, hash of the log without times, images per second, and the steps at which it was killed.
    """
    environment = dict(os.environ)
    if deterministic:
        environment["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_FLAG}".strip()
    if fresh:
        environment["JAX_ENABLE_COMPILATION_CACHE"] = "false"
    workdir = context.work / "resume"
    shutil.rmtree(workdir, ignore_errors=True)
    killed, last = [], ""
    for kill in (*kills, None):
        step, last = _until(kill, workdir, context.tiny, environment)
        if kill is not None:
            if last:
                raise RuntimeError(f"the training ended before it could be killed at step {kill}")
            killed.append(step)
    status, digest = last.split()
    if status != DONE:
        raise RuntimeError(f"the training ended with {last!r}")
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    rates = [line[_RATE] for line in lines[1:]]
    return {
        "state_sha256": digest, "log_sha256": _digest(lines), _RATE: statistics.median(rates),
        "killed_after_step": killed, "starts": len(kills) + 1,
    }  # fmt: skip


def _digest(lines: Sequence[Mapping[str, Any]]) -> str:
    """Returns a hash of a log without what depends on the clock."""
    kept = [{name: value for name, value in line.items() if name != _RATE} for line in lines]
    return hashlib.sha256(json.dumps(kept).encode()).hexdigest()


def _until(kill: int | None, workdir: pathlib.Path, tiny: bool, environment: Mapping[str, str]) -> tuple[int, str]:
    """Starts the trainer, and kills it once it reports a step; returns the last step and its last word, if any."""
    command = [sys.executable, "-m", "benchmarks.accelerator.trainer", str(workdir), str(int(tiny))]
    process = subprocess.Popen(command, cwd=plan.ROOT, env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    step, last = 0, ""
    for line in process.stdout:
        words = line.split()
        if words[:1] == ["step"]:
            step = int(words[1])
            if kill is not None and step >= kill:
                process.send_signal(signal.SIGKILL)
        elif len(words) == 2 and words[0] in (DONE, STOPPED, DIVERGED):
            last = line.strip()
        else:
            print(line, end="", flush=True)
    code = process.wait()
    if not last and (kill is None or code != -signal.SIGKILL):
        raise RuntimeError(f"the trainer ended with code {code} after step {step}")
    return step, last
