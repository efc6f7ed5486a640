"""The published peak rates of accelerators, for model FLOP utilisation."""

from collections.abc import Mapping
from typing import NamedTuple

from gan_jax.distributed.topology import CHIPS as TPUS


class Chip(NamedTuple):
    """A GPU's published rates, dense (without structured sparsity).

    Attributes:
      name: start of its `device_kind`.
      flops: peak operations per second, by precision.
      bandwidth: bytes of memory per second.
      source: where these figures are published.
    """

    name: str
    flops: Mapping[str, float]
    bandwidth: float
    source: str


_NVIDIA = "https://www.nvidia.com/en-us/data-center/"
_HOPPER = {"bfloat16": 989e12, "tf32": 494e12, "float32": 67e12}
# More special names first. NVIDIA's data sheets give rates with sparsity, which are twice these, for bfloat16 and TF32.
GPUS = (
    Chip("NVIDIA H200 NVL", {"bfloat16": 835e12, "tf32": 417e12, "float32": 60e12}, 4.8e12, f"{_NVIDIA}h200/"),
    Chip("NVIDIA H200", _HOPPER, 4.8e12, f"{_NVIDIA}h200/"),
    Chip("NVIDIA GH200", _HOPPER, 4.0e12, f"{_NVIDIA}grace-hopper-superchip/"),
    Chip("NVIDIA H100 PCIe", {"bfloat16": 756e12, "tf32": 378e12, "float32": 51e12}, 2.0e12, f"{_NVIDIA}h100/"),
    Chip("NVIDIA H100", _HOPPER, 3.35e12, f"{_NVIDIA}h100/"),
    Chip("NVIDIA A100-SXM", {"bfloat16": 312e12, "tf32": 156e12, "float32": 19.5e12}, 2.04e12, f"{_NVIDIA}a100/"),
    Chip("NVIDIA A100", {"bfloat16": 312e12, "tf32": 156e12, "float32": 19.5e12}, 1.94e12, f"{_NVIDIA}a100/"),
    Chip("NVIDIA L4", {"bfloat16": 121e12, "tf32": 60e12, "float32": 30.3e12}, 0.3e12, f"{_NVIDIA}l4/"),
)


def chip(kind: str) -> Chip | None:
    """Returns the chip of a `device_kind`; None for one that is not in the tables."""
    gpu = next((chip for chip in GPUS if kind.startswith(chip.name)), None)
    tpu = next((chip for chip in TPUS.values() if chip.kind == kind), None)
    if gpu is None and tpu is not None:
        return Chip(kind, {"bfloat16": tpu.flops}, tpu.bandwidth, tpu.source)
    return gpu


def peak_flops(kind: str) -> dict[str, float]:
    """Returns the published peak rates of a device by precision; empty for one that is not in the tables."""
    found = chip(kind)
    return dict(found.flops) if found else {}
