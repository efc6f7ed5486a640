"""The results as text: a summary of a directory, and the tables of docs/accelerator.md."""

import json
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

from benchmarks.accelerator import plan
from benchmarks.accelerator.context import REMEDY, Line
from benchmarks.measure import RESULTS, put, table
from gan_jax.host import append_line, read_lines

RECORDED = RESULTS / "accelerator.jsonl"
PAGE = RESULTS.parents[1] / "docs" / "accelerator.md"
MODULE = "benchmarks.accelerator"


def table_command(out: pathlib.Path | None, *, write: bool) -> str:
    """Returns the tables of the recorded results, or of those in a directory.

    Args:
      out: directory of results; None for the recorded ones.
      write: whether to record the results in the directory that are of an accelerator, at their real sizes, and to
        write the tables of all recorded results into the page.
    """
    if out is None or write:
        if out is not None:
            record(out)
        text = page(read(RECORDED))
        if write:
            put(PAGE, MODULE, text)
        return text
    return page(read(out / "results.jsonl"))


def read(path: pathlib.Path) -> list[Line]:
    """Reads results, oldest first."""
    return read_lines(path, Line, remedy=REMEDY)


def record(out: pathlib.Path) -> None:
    """Adds lines of a directory to the recorded ones: those of an accelerator at real sizes that are not there yet."""
    known = {json.dumps(line, sort_keys=True) for line in read(RECORDED)}
    for line in read(out / "results.jsonl"):
        wanted = not line["tiny"] and line.get("device", "") not in ("", "cpu")
        if wanted and json.dumps(line, sort_keys=True) not in known:
            append_line(RECORDED, line)


def summary(out: pathlib.Path, code: str) -> str:
    """Returns the tables of the results of one code in a directory, and how the parts ended."""
    return page([line for line in read(out / "results.jsonl") if line["code"] == code])


def page(lines: Sequence[Line]) -> str:
    """Returns all tables, in Markdown: for each device, the newest result of each unit, of the newest code."""
    devices = list(dict.fromkeys(line["device"] for line in lines if "device" in line))
    if not devices:
        return "There is no result of an accelerator: the benchmark has not run on one yet."
    return "\n\n".join(_device(device, [x for x in lines if x.get("device", device) == device]) for device in devices)


def _device(device: str, lines: Sequence[Line]) -> str:
    last = lines[-1]
    lines = [x for x in lines if (x["code"], x["tiny"]) == (last["code"], last["tiny"])]  # others are not comparable
    newest = {(line["part"], line["name"]): line for line in lines}
    of = {part: {name: line for (own, name), line in newest.items() if own == part} for part in plan.PARTS}
    versions: dict[str, str] = next((line["versions"] for line in reversed(lines) if "versions" in line), {})
    sizes = ", tiny sizes" if last["tiny"] else ""
    commits = ", ".join(dict.fromkeys(line.get("commit") or "unknown" for line in lines))
    parts = [
        f"### {device}{sizes}",
        f"Commit {commits}, code {last['code']}; "
        f"{', '.join(f'{name} {version}' for name, version in versions.items())}.",
        *(text for name in plan.PARTS if (text := _TABLES[name](of[name]))),
        _ends(newest),
    ]
    return "\n\n".join(parts)


def _ends(newest: dict[tuple[str, str], Line]) -> str:
    rows: list[list[Any]] = [["part", "ended", "what is missing"]]
    for name in plan.PARTS:
        if line := newest.get((name, "ended")):
            output = [text for text in line.get("output", "").splitlines() if text.strip()]
            reason = line.get("skipped") or line.get("error") or line.get("left_out") or (output[-1] if output else "")
            if cut := line.get("in_the_middle_of"):
                reason = f"ended in the middle of {', '.join(cut)}"
            rows.append([name, line["status"], _cell(reason)])
    failed = [
        [f"{part}: {name}", "failed" if "error" in line else "skipped", _cell(line.get("error") or line["skipped"])]
        for (part, name), line in newest.items()
        if name != "ended" and line.keys() & {"error", "skipped"}
    ]
    return table([*rows, *failed])


def _cell(text: Any) -> str:
    return str(text).replace("|", "/").replace("\n", " ")[:200]


def _rows(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    found = list(rows)
    return table([header, *found]) if found else ""


def _good(lines: dict[str, Line]) -> dict[str, Line]:
    return {name: x for name, x in lines.items() if name != "ended" and not x.keys() & {"error", "skipped"}}


def _machine(lines: dict[str, Line]) -> str:
    found, peak = _good(lines), lines.get("device", {}).get("peak") or {}
    memory = lines.get("device", {}).get("memory_limit")
    told = f"Memory that JAX may use: {memory / 2**30:.1f} GiB.\n\n" if memory else ""
    rows = []
    for name, line in found.items():
        if name.startswith("rates "):
            precision, rate = name.removeprefix("rates "), line["matmul_gflops"] / 1e3
            published = f"{peak[precision] / 1e12:g}" if precision in peak else ""
            rows.append([precision, f"{rate:.1f}", published, f"{line['copy_gbytes']:.0f}"])
    return told + _rows(["precision", "products, TFLOP/s", "published peak", "copy, GB/s"], rows)


def _numerics(lines: dict[str, Line]) -> str:
    def row(name: str, line: Line) -> list[Any]:
        case, precision = name.rsplit(" in ", 1)
        worst = next(iter(line["worst"]))
        agrees = "yes" if line["ok"] else "NO"
        return [case, precision, agrees, f"{line['deviation']:.1e}", f"{line['of_tolerance']:.2f}", _cell(worst)]

    header = ["case", "precision", "agrees", "largest deviation", "of its tolerance", "nearest to its tolerance"]
    return _rows(header, (row(name, line) for name, line in _good(lines).items()))


def _resume(lines: dict[str, Line]) -> str:
    found = _good(lines)
    equal: dict[Any, str] = {True: "yes", False: "NO", None: ""}
    rows = [
        [name, line["starts"], equal[line.get("equal")], f"{line['images_per_second']:.0f}"]
        for name, line in found.items()
    ]
    text = _rows(["training", "starts", "same bits as uninterrupted", "images/s"], rows)
    pair = [found.get(f"{kind}, uninterrupted") for kind in ("default", "deterministic")]
    if all(pair):
        price = pair[0]["images_per_second"] / pair[1]["images_per_second"]  # type: ignore[index]
        text += f"\n\nThe price of `--deterministic`: a step takes {price:.2f} times as long."
    return text


def _steps(lines: dict[str, Line]) -> str:
    rows = []
    for name, line in _good(lines).items():
        others = ", ".join(f"{mode} {value:.2f}" for mode, value in line.get("ratios", {}).items())
        if failed := line.get("pytorch_failed"):
            others += f" (without {_cell('; '.join(f'{mode}: {reason}' for mode, reason in failed.items()))})"
        share = f"{line['utilisation']:.1%}" if line["utilisation"] else ""
        memory = line["memory"]["gan_jax"]
        rows.append([
            name, line.get("batch", ""), f"{line['ms']:.3g}", others, f"{line['images_per_second']:.0f}",
            f"{line['tflops']:.3g}", share, f"{memory / 2**20:.0f}" if memory else "",
        ])  # fmt: skip
    header = ["case", "largest batch", "ms", "PyTorch, times as long", "images/s", "TFLOP/s", "of the peak", "MiB"]
    return _rows(header, rows)


def _population(lines: dict[str, Line]) -> str:
    found, rows = _good(lines), []
    for name, line in found.items():
        alone = found.get(f"{name.split()[0]} 1")
        gain = f"{alone['ms_per_member_step'] / line['ms_per_member_step']:.1f}" if alone else ""
        rows.append([
            name.split()[0], line["members"], f"{line['ms_per_member_step']:.3g}", gain,
            f"{line['compile_seconds']:.1f}", f"{line['compile_again_seconds']:.1f}",
        ])  # fmt: skip
    header = ["game", "members", "ms per member and step", "times as fast as one", "compiled, s", "from the cache, s"]
    return _rows(header, rows)


def _fid(lines: dict[str, Line]) -> str:
    rows = []
    for name, line in _good(lines).items():
        if name == "distance":
            whole = line["moments_seconds_per_50k"] + line["distance_seconds"]
            rows.append(["moments of 50,000 and the distance, on the host", "", f"{whole:.1f}"])
        elif name == "whole":
            rows.append(
                [
                    f"all of it, {line['images']:,} images",
                    f"{line['images_per_second']:.0f}",
                    f"{line['wall_seconds']:.1f}",
                ]
            )
        else:
            rows.append([name, f"{line['images_per_second']:.0f}", f"{line['seconds_per_50k']:.0f}"])
    return _rows(["Inception", "images/s", "seconds (of 50,000, if not said otherwise)"], rows)


def _stacked(lines: dict[str, Line]) -> str:
    def row(name: str, line: Line) -> list[Any]:
        kl = f"{line['kl']:.3f}" if line["kl"] is not None else ""
        rate = f"{line['images_per_second']:.0f}" if line["images_per_second"] else ""
        return [name, f"{line['images']:,}", rate, line["modes"] or "", kl, line["evaluated_at"] or "", line["status"]]

    header = ["Stacked-MNIST", "images", "images/s", "modes", "KL", "evaluated at", "training"]
    return _rows(header, (row(name, line) for name, line in _good(lines).items()))


_TABLES = {
    "machine": _machine, "numerics": _numerics, "resume": _resume, "steps": _steps, "population": _population,
    "fid": _fid, "stacked_mnist": _stacked,
}  # fmt: skip
