"""Functions that the benchmarks share: interleaved timing, the machine's peak rates, and the records of results."""

import json
import os
import pathlib
import platform
import re
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

RESULTS = pathlib.Path(__file__).parent / "results"
Run = Callable[[], None]  # does some work and returns when it is finished


def in_turn(
    contenders: Mapping[str, Run], *, rounds: int = 7, seconds: float = 1.0, warm: bool = True
) -> dict[str, list[float]]:
    """Times contenders in alternating turns, so that noise of the machine affects all of them alike.

    Args:
      contenders: functions to time, by name.
      rounds: number of turns of each contender.
      seconds: minimum length of a turn; a turn has at least one call.
      warm: whether to run each contender, untimed, twice at the start and once before every turn; long calls do not
        need it.

    Returns:
      For each contender, the seconds per call in every round.
    """
    for run in [*contenders.values()] * (2 if warm else 0):
        run()
    taken: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, run in contenders.items():
            if warm:
                run()  # refills the caches, which the other contenders have used
            began, calls = time.perf_counter(), 0
            while not calls or time.perf_counter() - began < seconds:
                run()
                calls += 1
            taken[name].append((time.perf_counter() - began) / calls)
    return taken


def ratio(taken: Mapping[str, Sequence[float]], slower: str, faster: str) -> float:
    """Returns how many times as long `slower` took as `faster`: the median of the ratios in each round."""
    return statistics.median(a / b for a, b in zip(taken[slower], taken[faster], strict=True))


def milliseconds(taken: Mapping[str, Sequence[float]]) -> dict[str, dict[str, float]]:
    """Returns the median, least and greatest milliseconds of each contender."""
    return {
        name: {"median": statistics.median(x) * 1e3, "least": min(x) * 1e3, "most": max(x) * 1e3}
        for name, x in taken.items()
    }


def rates(size: int = 2048, megabytes: int = 256, dtype: str = "float32", *, seconds: float = 0.3) -> dict[str, float]:
    """Measures the machine's peak rates, from which lower bounds ("floors") of a program's time follow.

    Args:
      size: rows and columns of the matrices that are multiplied.
      megabytes: size of the array that is copied; it must exceed the caches.
      dtype: dtype of the matrices, which are random: a GPU draws less power, and runs faster, on constant ones.
      seconds: minimum length of a turn.

    Returns:
      `matmul_gflops` per second, and `copy_gbytes` per second, counting bytes read and bytes written.
    """
    matrix, array = jax.random.normal(jax.random.key(0), (size, size), dtype), jnp.ones(megabytes * 2**18)
    product = jax.jit(lambda a: a @ a)
    scaled = jax.jit(lambda x: x * 1.5, donate_argnums=0)
    box = [array]

    def multiply() -> None:
        product(matrix).block_until_ready()

    def copy() -> None:
        box[0] = scaled(box[0]).block_until_ready()

    taken = in_turn({"matmul": multiply, "copy": copy}, rounds=5, seconds=seconds)
    return {
        "matmul_gflops": 2 * size**3 / min(taken["matmul"]) / 1e9,
        "copy_gbytes": 2 * megabytes / 1024 / min(taken["copy"]) * 1.073741824,
    }


def own_flags(module: str) -> flags.FlagValues:
    """Returns where a benchmark defines its flags: among those of the command, or apart where it is only imported.

    Tests import several benchmarks in one process, and these may have flags of one name. Those of an imported one have
    their default values.

    Args:
      module: `__name__` of the benchmark.
    """
    if module == "__main__":
        return flags.FLAGS
    apart = flags.FlagValues()
    apart.mark_as_parsed()
    return apart


def machine() -> dict[str, Any]:
    """Describes the machine that the results depend on."""
    names = [line.split(":")[1].strip() for line in _cpuinfo() if line.startswith("model name")]
    return {
        "processor": names[0] if names else platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "device": jax.devices()[0].device_kind,
        "devices": jax.device_count(),
    }


def _cpuinfo() -> list[str]:
    path = pathlib.Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []


def record(name: str, line: dict[str, Any], **more_versions: str) -> None:
    """Appends a line to `results/{name}.jsonl`; adds the command (absolute paths as DIR), versions, commit, machine."""
    from gan_jax.runtime.environment import versions  # noqa: PLC0415 - the runtime needs packages that timing does not

    RESULTS.mkdir(exist_ok=True)
    command = " ".join([f"python -m benchmarks.{name}", *(re.sub("=/.*", "=DIR", word) for word in sys.argv[1:])])
    whole = {**line, "command": command, "versions": versions() | more_versions, "machine": machine()}
    with (RESULTS / f"{name}.jsonl").open("a") as file:
        file.write(json.dumps(whole, default=_plain) + "\n")


def recorded(name: str) -> list[dict[str, Any]]:
    """Returns the lines of `results/{name}.jsonl`, oldest first; none if the file does not exist."""
    path = RESULTS / f"{name}.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def spread(values: Sequence[float], form: str) -> str:
    """Formats the mean and, if there are several values, its 95% bootstrap interval."""
    if not values:
        return ""
    shown = [format(x, form) for x in (statistics.mean(values), *bootstrap(values))]
    return shown[0] if len(values) == 1 else f"{shown[0]} [{shown[1]}, {shown[2]}]"


def bootstrap(values: Sequence[float], draws: int = 10_000) -> tuple[float, float]:
    """Returns a 95% interval of the mean: percentiles of the means of draws with replacement."""
    random = np.random.default_rng(0)
    means = random.choice(np.asarray(values, np.float64), (draws, len(values))).mean(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def put(page: pathlib.Path, module: str, text: str) -> None:
    """Writes the result of a benchmark into a page, between two comments; replaces the text between them."""
    begin, end = f"<!-- written by python -m {module} --write -->", "<!-- end of what is written -->"
    before, rest = page.read_text().split(begin)
    page.write_text(f"{before}{begin}\n{text}\n{end}{rest.split(end, 1)[1]}")


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{value!r} cannot be written as JSON")


def table(rows: Sequence[Sequence[Any]]) -> str:
    """Formats rows as a Markdown table; the first row is the header."""
    cells = [[f"{x:.3g}" if isinstance(x, float) else str(x) for x in row] for row in rows]
    lines = ["| " + " | ".join(row) + " |" for row in cells]
    return "\n".join([lines[0], "|" + "---|" * len(cells[0]), *lines[1:]])
