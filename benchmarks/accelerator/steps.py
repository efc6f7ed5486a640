"""Time of a step against PyTorch, model FLOP utilisation, memory, and the largest batch that fits.

The utilisation is the operations that the networks define (`step_cases.model_operations`) divided by the time and the
chip's published peak rate. Both frameworks use the same precision: TF32 and float32 by their settings, bfloat16 by
networks of that dtype here, and by automatic mixed precision in PyTorch.
"""

import dataclasses
import os
from collections.abc import Callable
from typing import Any

import jax

from benchmarks.accelerator import chips
from benchmarks.accelerator.cases import precision_context
from benchmarks.accelerator.context import Context
from benchmarks.measure import in_turn, milliseconds, ratio
from benchmarks.step_cases import CASES, Case, model_operations, program

MODES = ("channels_last", "channels_last_compiled", "eager")
_NAMES = ("dcgan", "sngan", "stylegan2")
_PRECISIONS = ("bfloat16", "tf32", "float32")
_COMPILES = 45.0  # seconds that PyTorch may need to compile a loop
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
        """Times an iteration, in turn with those of PyTorch that can be had."""
        case = self.case
        with precision_context(self.precision):
            run, compiled = program(case, case.game(self.dtype), case.length)
        contenders, failed = {"gan_jax": run}, dict[str, str]()
        memory: dict[str, int | None] = {"gan_jax": needed(compiled)}
        for mode in MODES[:1] if self.context.tiny else MODES:
            if mode.endswith("compiled") and self.context.left < _COMPILES:
                failed[mode] = "no time left to compile it"
                continue
            try:
                contenders[mode], memory[mode] = self._torch(mode)
            except Exception as error:  # PyTorch's failures are no failures of this benchmark
                failed[mode] = f"{type(error).__name__}: {error}"[:300]
        taken = in_turn(contenders, rounds=1 if self.context.tiny else 5, seconds=0.0 if self.context.tiny else 0.3)
        iterations = {"gan_jax": case.length} | {
            mode: case.r1[1] if case.r1 else 1 for mode in contenders if mode in MODES
        }
        taken = {name: [x / iterations[name] for x in values] for name, values in taken.items()}
        times = milliseconds(taken)
        found = {
            "ms": times["gan_jax"]["median"], "milliseconds": times, "failed": failed, "memory": memory,
            "ratios": {mode: ratio(taken, mode, "gan_jax") for mode in contenders if mode != "gan_jax"},
        }  # fmt: skip
        return found | self._rate(case.batch, times["gan_jax"]["median"] / 1e3)

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

    def _torch(self, mode: str) -> tuple[Callable[[], None], int | None]:
        """Makes PyTorch's loop, and runs it once; returns it with its peak memory in bytes."""
        import torch  # noqa: PLC0415 - not everywhere

        from benchmarks.torch_steps import theirs  # noqa: PLC0415

        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = self.precision != "float32"
        cuda = torch.cuda.is_available()
        if jax.devices()[0].platform == "gpu" and not cuda:
            raise RuntimeError("this PyTorch does not see the GPU")
        if cuda:
            torch.cuda.reset_peak_memory_stats()
        run = theirs(self.name, mode, self.dtype, self.case.batch)
        run()
        return run, torch.cuda.max_memory_allocated() if cuda else None


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
