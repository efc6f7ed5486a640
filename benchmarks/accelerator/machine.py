"""The first part: what the device is. Without an accelerator, and without --tiny, it stops the command."""

import functools
import os
import shutil
import subprocess
from collections.abc import Callable
from typing import Any

import jax

from benchmarks.accelerator import chips
from benchmarks.accelerator.context import Context, SkippedError
from benchmarks.measure import rates

PRECISIONS = {"float32": "highest", "tf32": "tensorfloat32", "bfloat16": "default"}


def run(context: Context) -> None:
    """Describes the device, and measures its rates in each precision.

    Raises:
      SkippedError: if there is no accelerator, and sizes are not tiny.
    """
    device = jax.devices()[0]
    if device.platform == "cpu" and not context.tiny:
        raise SkippedError(
            f"JAX finds no accelerator: its devices are {jax.devices()}, and JAX_PLATFORMS is "
            f"{os.environ.get('JAX_PLATFORMS', 'not set')}; install JAX with the device's plugin, or give --tiny for a "
            "trial on the CPU"
        )
    units: dict[str, Callable[[], dict[str, Any]]] = {"device": describe}
    units |= {f"rates {name}": functools.partial(measured, name, context) for name in PRECISIONS}
    context.each(units)


def describe() -> dict[str, Any]:
    """Returns what JAX and the system say about the machine."""
    device = jax.devices()[0]
    stats = device.memory_stats() or {}
    found = {
        "platform": device.platform, "devices": jax.device_count(), "cores": len(os.sched_getaffinity(0)),
        "memory_limit": stats.get("bytes_limit"), "platform_version": device.client.platform_version,
        "peak": chips.peak_flops(device.device_kind), "XLA_FLAGS": os.environ.get("XLA_FLAGS", ""),
    }  # fmt: skip
    if shutil.which("nvidia-smi"):
        fields = "name,driver_version,memory.total,clocks.max.sm,power.limit"
        command = ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader"]
        found["nvidia_smi"] = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    return found


def measured(name: str, context: Context) -> dict[str, Any]:
    """Measures the rates of matrix products and copies in a precision."""
    dtype = "bfloat16" if name == "bfloat16" else "float32"
    with jax.default_matmul_precision(PRECISIONS[name]):
        return rates(256, 4, dtype, seconds=0.02) if context.tiny else rates(8192, 2048, dtype)
