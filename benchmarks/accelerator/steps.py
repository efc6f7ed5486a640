"""Time of a step against PyTorch, model FLOP utilisation, memory, and the largest batch that fits.

The utilisation is the operations that the networks define (`step_cases.model_operations`) divided by the time and the
chip's published peak rate. Both frameworks use the same precision: TF32 and float32 by their settings, bfloat16 by
networks of that dtype here, and by automatic mixed precision in PyTorch.
"""

import dataclasses
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import jax

from benchmarks.accelerator import chips, plan
from benchmarks.accelerator.cases import precision_context
from benchmarks.accelerator.context import Context
from benchmarks.measure import in_turn
from benchmarks.step_cases import CASES, Case, model_operations, program

MODES = ("eager", "channels_last", "channels_last_compiled")
_NAMES = ("dcgan", "sngan", "stylegan2")
_PRECISIONS = ("bfloat16", "tf32", "float32")
_PATIENCE = 90.0  # seconds for PyTorch's loops of one case, most of which go into compiling
_MOST = 2**14  # largest batch: activations stay below 2^31 numbers, which not all of cuDNN's kernels can count
_SHARE = 0.9  # of the memory that a prediction may use


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A case in a precision.

    Attributes:
      name: name of the case.
      precision: `bfloat16`, `tf32` or `float32`.
      context: context of the part.
    """

    name: str
    precision: str
    context: Context

    @property
    def case(self) -> Case:
        """The case; with small batches if sizes are tiny."""
        case = CASES[self.name]
        return case._replace(batch=4, length=2) if self.context.tiny else case

    @property
    def dtype(self) -> str:
        """Dtype of the networks."""
        return "bfloat16" if self.precision == "bfloat16" else "float32"

    def against_torch(self) -> dict[str, Any]:
        """Times an iteration before and after PyTorch's loops, which run in a process of their own."""
        case, tiny = self.case, self.context.tiny
        with precision_context(self.precision):
            run, compiled = program(case, case.game(self.dtype), case.length)

        def timed() -> list[float]:
            turns = in_turn({"gan_jax": run}, rounds=1 if tiny else 5, seconds=0.0 if tiny else 0.3)["gan_jax"]
            return [x / case.length * 1e3 for x in turns]

        before = timed()
        others, note = self._torch()
        own = [*before, *timed()]
        ms = statistics.median(own)
        times = {line["mode"]: statistics.median(line["milliseconds"]) for line in others if "milliseconds" in line}
        failed = {line["mode"]: line["error"] for line in others if "error" in line}
        return {
            "ms": ms, "least_ms": min(own), "most_ms": max(own), "pytorch_ms": times,
            "ratios": {mode: other / ms for mode, other in times.items()},
            "pytorch_failed": failed | ({"process": note} if note else {}),
            "memory": {"gan_jax": needed(compiled)} | {line["mode"]: line.get("memory") for line in others},
            "pytorch": next((line["torch"] for line in others), None),
        } | self._rate(case.batch, ms / 1e3)  # fmt: skip

    def largest_batch(self) -> dict[str, Any]:
        """Finds the largest power of two that fits as batch, and times an iteration of it."""
        stats = jax.devices()[0].memory_stats() or {}
        limit = 2**26 if self.context.tiny else stats.get("bytes_limit")
        if limit is None:
            return {"skipped": "the device does not tell its memory"}
        case = self.case
        sizes = [case.batch, 4 * case.batch]
        with precision_context(self.precision):
            used = [needed(program(case, case.game(self.dtype), case.length, size)[1]) for size in sizes]
            each = (used[1] - used[0]) / (sizes[1] - sizes[0])
            batch = sizes[1]
            while 2 * batch <= _MOST and used[1] + each * (2 * batch - sizes[1]) < _SHARE * limit:
                batch *= 2
            refused = list[int]()
            while True:
                try:
                    run, compiled = program(case, case.game(self.dtype), case.length, batch)
                    taken = in_turn({"gan_jax": run}, rounds=3, seconds=0.0)["gan_jax"]
                    break
                except jax.errors.JaxRuntimeError as error:
                    if "RESOURCE_EXHAUSTED" not in str(error) or batch <= case.batch:
                        raise
                    refused.append(batch)
                    batch //= 2
        seconds = min(taken) / case.length
        found = {"batch": batch, "ms": seconds * 1e3, "memory": {"gan_jax": needed(compiled)}, "memory_limit": limit}
        return found | {"refused": refused, "most": _MOST} | self._rate(batch, seconds)

    def _rate(self, batch: int, seconds: float) -> dict[str, Any]:
        operations = model_operations(self.case, self.dtype, batch)
        peak = chips.peak_flops(jax.devices()[0].device_kind).get(self.precision)
        found = {"images_per_second": batch / seconds, "gflop": operations / 1e9, "tflops": operations / seconds / 1e12}
        return found | {"utilisation": operations / seconds / peak if peak else None}

    def _torch(self) -> tuple[list[dict[str, Any]], str]:
        """Times PyTorch's loops; returns a line for each mode, and what went wrong with the process, if anything."""
        asked = {
            "name": self.name, "precision": self.precision, "batch": self.case.batch, "tiny": self.context.tiny,
            "modes": MODES[:1] if self.context.tiny else MODES, "gpu": jax.devices()[0].platform == "gpu",
        }  # fmt: skip
        command = [sys.executable, "-m", "benchmarks.accelerator.pytorch", json.dumps(asked)]
        # Half of the time that is left at most: a compilation that hangs takes no more.
        patience = min(_PATIENCE, self.context.left / 2)
        process = subprocess.Popen(command, cwd=plan.ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        note = ""
        try:
            out, errors = process.communicate(timeout=patience)
        except subprocess.TimeoutExpired:
            process.kill()
            out, errors = process.communicate()
            note = f"ended after {patience:.0f} s, in the middle of what has no line"
        if process.returncode and not note:
            note = f"exit code {process.returncode}: {(errors.strip().splitlines() or [''])[-1][:300]}"
        return [json.loads(line) for line in out.splitlines() if line.startswith("{")], note


def needed(compiled: jax.stages.Compiled) -> int:
    """Returns the bytes that a program needs on the device: arguments, results that do not reuse them, temporaries."""
    sizes: Any = compiled.memory_analysis()
    whole: int = sizes.argument_size_in_bytes + sizes.output_size_in_bytes + sizes.temp_size_in_bytes
    return whole - sizes.alias_size_in_bytes


def run(context: Context) -> None:
    """Compares all cases in bfloat16, finds their largest batches, and compares them in the other precisions."""
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(context.work / "torch"))
    names, precisions = (_NAMES[:1], _PRECISIONS[:1]) if context.tiny else (_NAMES, _PRECISIONS)
    first, *others = precisions
    units: dict[str, Callable[[], dict[str, Any]]] = {}
    for name in names:
        units[f"{name} {first}"] = Comparison(name, first, context).against_torch
    for name in names:
        units[f"{name} {first}, largest batch"] = Comparison(name, first, context).largest_batch
    for precision in others:
        units |= {f"{name} {precision}": Comparison(name, precision, context).against_torch for name in names}
    context.each(units)
