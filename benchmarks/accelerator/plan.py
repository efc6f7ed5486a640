"""The parts of the benchmark in the order in which they run, their shares of the time, and what they need."""

import hashlib
import importlib.metadata
import os
import pathlib
import re
import subprocess
import tomllib
from collections.abc import Sequence
from typing import NamedTuple

ROOT = pathlib.Path(__file__).parents[2]
NEEDED = ("jax", "flax", "optax", "jaxtyping")  # without these no part can run
DONE, PARTIAL, SKIPPED, FAILED, TIMEOUT, STOPPED = "done", "partial", "skipped", "failed", "timeout", "stopped"
GRACE = 8.0  # seconds between the request to stop and the end by force


class Part(NamedTuple):
    """A part of the benchmark: the module of its name in this package.

    Attributes:
      what: what it measures, for `--help` and the log.
      share: share of the time; what a part leaves over goes to those after it.
    """

    what: str
    share: float


# `stacked_mnist` is last, since it can use whatever time is left.
PARTS = {
    "machine": Part("the device, its memory, its rates of products and copies, and the versions", 0.0),
    "numerics": Part("ops, losses, metrics and one step of each game, against CPU values", 4.0),
    "resume": Part("kill -9 and resume, bit for bit, and the price of determinism", 2.5),
    "steps": Part("time of a step against PyTorch, utilisation, memory, the largest batch", 4.5),
    "population": Part("populations of 1, 16 and 256, and the time to compile them", 2.0),
    "fid": Part("Inception's feature pass, and the time that FID of 50,000 takes", 2.0),
    "stacked_mnist": Part("R3GAN's loss on Stacked-MNIST, continued by the next call", 2.5),
}


def allowance(left: float, waiting: Sequence[str]) -> float:
    """Returns the seconds of the first of the waiting parts: its share of the time that is left.

    `machine`, which needs little, may take half of it, so that a short budget does not end with it.
    """
    if waiting[0] == "machine":
        return left / 2
    return left * PARTS[waiting[0]].share / sum(PARTS[name].share for name in waiting)


def least_versions() -> dict[str, str]:
    """Returns the least version of each needed package, from pyproject.toml."""
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    found = (re.match(r"([\w-]+)>=([\d.]+)", line) for line in wanted)
    return {match[1]: match[2] for match in found if match and match[1] in NEEDED}


def shortcomings() -> list[str]:
    """Describes each needed package that is missing or too old; none is imported."""
    found = []
    for name, least in least_versions().items():
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found.append(f"{name} is missing: {least} or newer is needed")
            continue
        if _numbers(version) < _numbers(least):
            found.append(f"{name} is {version}: {least} or newer is needed")
    return found


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(x) for x in re.findall(r"\d+", version)[:3])


def code() -> str:
    """Returns a hash of everything that the results depend on: the library, this package, and the cases of the tests.

    On a machine without git it tells which commit the results are of.
    """
    digest = hashlib.sha256()
    patterns = ("gan_jax/**/*.py", "benchmarks/**/*.py", "tests/conformance/*.py", "tests/golden/random_weights.py")
    for path in sorted({path for pattern in patterns for path in ROOT.glob(pattern)}):
        digest.update(f"{path.relative_to(ROOT)}\n".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def commit() -> str:
    """Returns the commit of a git clone, with `-dirty` after it if files have changed; empty without git."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def processor() -> str:
    """Returns a hash of the processor's instruction set: programs that are compiled for another one crash."""
    path = pathlib.Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    known = sorted({line for line in lines if line.startswith(("flags", "Features"))}) or [os.uname().machine]
    return hashlib.sha256("\n".join(known).encode()).hexdigest()[:12]
