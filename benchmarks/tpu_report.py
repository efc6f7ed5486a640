"""The tables and the picture that `benchmarks.tpu` makes of its results."""

import collections
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from benchmarks import tpu_scaling
from benchmarks.measure import table
from gan_jax.distributed import topology

Line = Mapping[str, Any]


def tables(lines: Sequence[Line], commands: Mapping[str, str], missing: Iterable[str] = ()) -> str:
    """Returns all tables, and what commands print, in Markdown.

    Args:
      lines: results, in the order in which they are shown.
      commands: what commands print, by command.
      missing: the cases without a result.

    Returns:
      The text.
    """
    every, others = _of(lines, "every"), [line for line in lines if line["costs"]["program"] != "training"]
    parts = [
        ("### Chips", chips()),
        ("### One iteration of training, on each chip", training(_configs(every))),
        ("### The same batch on more chips", training(_of(lines, "strong"))),
        ("### Scaling, by the model", tpu_scaling.rows(lines)),
        ("### Populations, one member's batch on a chip", training(_of(lines, "population"))),
        ("### Too large for a chip, and with flags that make it fit", training(_of(lines, "memory"))),
        ("### With the players' arrays split over chips", training(_of(lines, "fsdp"))),
        ("### Networks in bfloat16", training(_of(lines, "bfloat16"))),
        ("### Games of the conformance suite, with small networks", training(x for x in every if _is_game(x))),
        ("### Samplers and feature passes", training(_configs(others))),
    ]
    shown = [f"```text\n$ {command}\n{text.strip()}\n```" for command, text in commands.items()]
    whole = [f"{title}\n\n{table(rows)}" for title, rows in parts if len(rows) > 1]
    whole.append(f"### Where the figures are from\n\n{commits(lines)}")
    if compared := tpu_scaling.agreement(lines):
        whole.append(compared)
    if left := "\n".join(f"- {case}" for case in missing):
        whole.append(f"Not compiled yet:\n\n{left}")
    return "\n\n".join([*whole, *(["### What the command prints", *shown] if shown else [])])


def commits(lines: Iterable[Line]) -> str:
    """Says at which commits the programs were compiled, or lowered and found to be the same as when they were."""
    counts = collections.Counter(line["versions"]["commit"][:9] for line in lines)
    return "Results by commit: " + ", ".join(f"{count} at {name}" for name, count in counts.items()) + "."


def chips() -> list[list[Any]]:
    """Returns the rows of the table of chips; the first is its header."""
    rows: list[list[Any]] = [
        ["chip", "bf16, TFLOP/s", "memory, GiB", "HBM, GB/s", "link, GB/s", "links", "clock, GHz", "source"]
    ]
    for name, chip in topology.CHIPS.items():
        rows.append([
            name, f"{chip.flops / 1e12:g}", f"{chip.memory / 2**30:.2f}", f"{chip.bandwidth / 1e9:g}",
            f"{chip.link / 1e9:g}", str(2 * chip.torus), f"{chip.clock / 1e9:.2f}", f"[{name}]({chip.source})",
        ])  # fmt: skip
    return rows


def _of(lines: Iterable[Line], kind: str) -> list[Line]:
    return [line for line in lines if line["case"]["kind"] == kind and line["costs"]["program"] == "training"]


def _is_game(line: Line) -> bool:
    return line["case"]["name"].startswith("game ")


def _configs(lines: Iterable[Line]) -> list[Line]:
    return [line for line in lines if not _is_game(line)]


def training(lines: Iterable[Line]) -> list[list[Any]]:
    """Returns the rows of a table of programs: the first is its header."""
    rows: list[list[Any]] = [
        ["what", "slice", "batch", "compiled, s", "memory", "GFLOP", "HBM, MB", "collectives", "ms", "bound by"]
    ]
    for line in lines:
        case, costs = line["case"], line["costs"]
        target, needed = topology.parse(case["topology"]), sum(costs["memory"].values())
        name = case["name"] + "".join(f" {key}={value}" for key, value in case["options"])
        trains = costs["program"] == "training"
        name += "" if trains else f", {costs['program']}"
        memory = f"{needed / 2**20:,.0f} MiB, {needed / target.chip.memory:.1%}{'' if costs['fits'] else ', too much'}"
        total = sum(costs["seconds"].values())
        bound = max(costs["seconds"], key=costs["seconds"].get) if costs["seconds"] else ""
        compiled = f"{line['processor_seconds']:.0f}"
        found = [
            f"{costs['operations'] / 1e9:.3g}", f"{costs['moved'] / 1e6:.3g}", exchanged(costs), f"{total * 1e3:.3g}",
            bound,
        ]  # fmt: skip
        size = case["batch_size"] if trains else line["images"]
        rows.append([name, target.name, size, compiled, memory, *(found if total else [""] * len(found))])
    return rows


def exchanged(costs: Mapping[str, Any]) -> str:
    """Formats the collective operations of a program."""
    kinds = dict[str, tuple[float, float]]()
    for kind, size, *_, times in costs["exchanges"]:
        count, whole = kinds.get(kind, (0.0, 0.0))
        kinds[kind] = count + times, whole + times * size
    return "; ".join(f"{count:.3g} {kind}, {size / 1e6:.3g} MB" for kind, (count, size) in kinds.items()) or "none"
