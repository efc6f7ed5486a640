"""Values on the accelerator against those on the CPU of the same machine, in float32, TF32 and bfloat16.

The CPU's values are computed meanwhile, by a process of its own (`reference`), and kept for the next call. They are not
a file of the repository, which would tie them to a version of JAX, of its random numbers and of Flax's initialisation:
so nothing but the platform differs between the two sides.

**Tolerance.** Rounding inside a computation is like a small relative change of what it takes: a sum of n products that
is computed with unit roundoff u is the exact sum for operands that are changed by about u, where they are rounded
before the product, and by sqrt(n) 2^-24, where the sum is rounded in float32 (Higham, "Accuracy and Stability of
Numerical Algorithms", 2002, chapters 2 and 3). So the CPU computes each case again with every float array changed at
random by this relative amount,

    noise = u + sqrt(n) 2^-24,  with u = 2^-24, 2^-10, 2^-8 for float32, TF32, bfloat16,

and n the longest sum of the case. (TF32 has 10 bits after the point, and tensor cores may cut further ones off;
bfloat16 has 7, and rounds.) An array may deviate by 4 times the largest change that this has caused in it, since the
operands of products are rounded several times on the way to a value (forward, backward, second derivatives, the
update), plus 4 times the noise, relative to the largest value of its group (a player's gradient, an operation). So
float32 is told from TF32, but TF32 not from bfloat16.

In bfloat16 every operation of a layer rounds its result, and long sums may be added up in bfloat16 too. What that does
to a formula is measured: the CPU computes the case in bfloat16 as well, and 4 times its own deviation from float32 is
added to the tolerance.
"""

import functools
import math
import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree

from benchmarks.accelerator import plan
from benchmarks.accelerator.cases import EXACT, Case, cases, precision_context
from benchmarks.accelerator.context import Context

UNIT = {"float32": 2.0**-24, "tf32": 2.0**-10, "bfloat16": 2.0**-8}
FACTOR = 4.0
NARROW = ("bfloat16",)  # precisions in which all operations round their results
_CHANGES = 3  # times that the CPU computes a case with changed arrays, for each precision
_WORST = 3  # number of arrays named in a result


def run(context: Context) -> None:
    """Compares all cases in all precisions."""
    home = context.work / f"cpu-{context.code}{'-tiny' if context.tiny else ''}"
    home.mkdir(parents=True, exist_ok=True)
    known = cases(context.tiny)
    environment = dict(os.environ) | {"JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", "benchmarks.accelerator.reference", str(home), str(int(context.tiny))]
    process = subprocess.Popen(command, cwd=plan.ROOT, env=environment)
    try:
        # Float32 first: a difference there is a fault, whatever the others show.
        units: dict[str, Callable[[], dict[str, Any]]] = {}
        for precision in UNIT:
            for name, case in known.items():
                units[f"{name} in {precision}"] = functools.partial(
                    _compare, case, precision, file_of(home, name), process, context
                )
        context.each(units, workers=workers())
    finally:
        process.kill()
        process.wait()


def workers() -> int:
    """Returns the number of cases at a time: their compilation is most of the work, and there are two processes."""
    return max(1, min(6, len(os.sched_getaffinity(0)) // 2))


def file_of(home: pathlib.Path, name: str) -> pathlib.Path:
    """Returns the path of a case's values on the CPU."""
    return home / f"{name.replace(' ', '_')}.npz"


def _compare(
    case: Case, precision: str, path: pathlib.Path, process: subprocess.Popen[bytes], context: Context
) -> dict[str, Any]:
    kept = wait(path, process, context)
    if precision in NARROW:
        kept = {**kept, **wait(own_file(path, precision), process, context)}
    return compared(case, precision, kept)


def own_file(path: pathlib.Path, precision: str) -> pathlib.Path:
    """Returns the path of the CPU's own deviations in a precision, next to that of its values in float32."""
    return path.with_name(f"{path.stem}-{precision}.npz")


def wait(path: pathlib.Path, process: subprocess.Popen[bytes], context: Context) -> Mapping[str, np.ndarray]:
    """Returns a case's values on the CPU, once they are there."""
    while not path.exists():
        if process.poll() is not None and not path.exists():
            raise RuntimeError(f"the process of the CPU's values ended with code {process.returncode}: no {path.name}")
        if context.left < 1:
            raise TimeoutError(f"the CPU's values in {path.name} did not come in time")
        time.sleep(0.05)
    with np.load(path) as file:
        return dict(file)


def values(case: Case, precision: str, arguments: tuple[PyTree, ...]) -> dict[str, np.ndarray]:
    """Computes a case in a precision."""
    function = case.function(precision)
    with precision_context(precision):
        found = (jax.jit(function) if case.compiled else function)(*arguments)
    return {name: np.asarray(value, np.float64) for name, value in found.items()}


def noise(precision: str, arguments: PyTree) -> float:
    """Returns the relative change of the arguments that stands for rounding inside a computation."""
    longest = max(math.prod(x.shape[:-1]) for x in jax.tree.leaves(arguments) if x.ndim)
    return UNIT[precision] + math.sqrt(longest) * UNIT["float32"]


def changed(arguments: PyTree, amount: float, seed: int) -> PyTree:
    """Changes every number of the float arrays by a relative amount, up or down at random."""
    random = np.random.default_rng(seed)

    def change(x: Any) -> Any:
        if not np.issubdtype(x.dtype, np.floating):
            return x
        return (np.asarray(x, np.float64) * (1.0 + amount * random.choice((-1.0, 1.0), x.shape))).astype(np.float32)

    return jax.tree.map(change, arguments)


def reference(case: Case) -> dict[str, np.ndarray]:
    """Computes a case on the CPU: its arrays, its values, and the largest change of each by noise in each precision."""
    arguments = jax.tree.map(np.asarray, case.arguments())
    function = case.function("float32")
    compute = jax.jit(function) if case.compiled else function
    exact = {name: np.asarray(value, np.float64) for name, value in compute(*arguments).items()}
    kept = {f"argument/{index}": x for index, x in enumerate(jax.tree.leaves(arguments))}
    kept |= {f"value/{name}": value for name, value in exact.items()}
    for precision in UNIT:
        amount = noise(precision, arguments)
        others = [compute(*changed(arguments, amount, seed)) for seed in range(_CHANGES)]
        for name, value in exact.items():
            most = max(np.abs(np.asarray(other[name], np.float64) - value).max() for other in others)
            kept[f"change/{precision}/{name}"] = np.asarray(most)
    return kept


def own_deviations(case: Case, precision: str, kept: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Computes a case on the CPU in a narrow precision: the largest deviation of each array from float32."""
    found = values(case, precision, _arguments(case, kept))
    return {f"own/{precision}/{name}": np.abs(value - kept[f"value/{name}"]).max() for name, value in found.items()}


def _arguments(case: Case, kept: Mapping[str, np.ndarray]) -> tuple[PyTree, ...]:
    structure: Any = jax.tree.structure(jax.eval_shape(case.arguments))
    made: tuple[PyTree, ...] = jax.tree.unflatten(
        structure, [kept[f"argument/{i}"] for i in range(structure.num_leaves)]
    )
    return made


def compared(case: Case, precision: str, kept: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Compares a case on the accelerator with its values on the CPU.

    Returns:
      Whether all arrays agree, the largest ratio of a deviation to its tolerance, and the arrays where it is largest.
    """
    arguments = _arguments(case, kept)
    amount, found = noise(precision, arguments), values(case, precision, arguments)
    wanted = {name.removeprefix("value/"): value for name, value in kept.items() if name.startswith("value/")}
    if wanted.keys() != found.keys():
        raise ValueError(f"the CPU has other arrays: {sorted(wanted.keys() ^ found.keys())}")
    groups: dict[str, float] = {}
    for name, value in wanted.items():
        group = name.split("/")[0]
        groups[group] = max(groups.get(group, 0.0), float(np.abs(value).max()))
    ratios, deviations = {}, {}
    for name, value in wanted.items():
        deviation = float(np.abs(found[name] - value).max())
        own = float(kept.get(f"own/{precision}/{name}", 0.0))
        limit = FACTOR * (float(kept[f"change/{precision}/{name}"]) + amount * groups[name.split("/")[0]] + own)
        if name.startswith(EXACT):
            limit = 0.0
        # A NaN, on either side, is a difference.
        ratios[name] = 0.0 if deviation == 0 else deviation / limit if limit > 0 and deviation >= 0 else math.inf
        deviations[name] = deviation / (groups[name.split("/")[0]] or 1.0)
    worst = sorted(ratios, key=lambda name: -ratios[name])[:_WORST]
    return {
        "ok": all(ratio <= 1 for ratio in ratios.values()), "of_tolerance": ratios[worst[0]],
        "deviation": max(deviations.values()), "noise": amount, "arrays": len(ratios),
        "worst": {name: [ratios[name], deviations[name]] for name in worst},
    }  # fmt: skip
