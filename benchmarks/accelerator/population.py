"""Time of a member's step in populations of 1, 16 and 256, and the time to compile each, alone and from the cache."""

import functools
import statistics
import time
from typing import Any

import jax

from benchmarks.accelerator.context import Context
from benchmarks.measure import in_turn
from benchmarks.population import CASES, compiled


def run(context: Context) -> None:
    """Times all cases with all numbers of members."""
    names, sizes = (("ring",), (1, 2)) if context.tiny else (("ring", "digits"), (1, 16, 256))
    context.each({f"{name} {size}": functools.partial(measured, name, size) for name in names for size in sizes})


def measured(name: str, members: int) -> dict[str, Any]:
    """Compiles a population twice, the second time from the cache, and times its dispatches."""
    make, _, _, length = CASES[name]
    game, began = make(), time.perf_counter()
    run, made = compiled(name, game, members)
    first, seconds = time.perf_counter() - began, made.compile_seconds
    jax.clear_caches()
    began = time.perf_counter()
    run, made = compiled(name, game, members)
    again = time.perf_counter() - began
    taken = statistics.median(in_turn({name: run}, rounds=5, seconds=0.3)[name])
    return {
        "members": members, "ms_per_member_step": taken / length / members * 1e3, "ms_per_step": taken / length * 1e3,
        "compile_seconds": seconds, "ready_seconds": first, "ready_again_seconds": again,
        "compile_again_seconds": made.compile_seconds,
    }  # fmt: skip
