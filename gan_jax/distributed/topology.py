"""Slices of TPUs that need not be there: their chips with published rates, and devices to compile for."""

import dataclasses
import importlib.util
import math
import os
import re
from collections.abc import Mapping
from typing import Any

import jax
from jax.experimental import topologies

from gan_jax.types import InvalidInputError


@dataclasses.dataclass(frozen=True)
class Chip:
    """A TPU chip, which is one device of JAX, with the rates that its maker publishes.

    Attributes:
      kind: `device_kind` of its devices.
      accelerator: accelerator type of a slice, with the number of chips or cores as `{}`.
      cores: TensorCores of a chip, as the accelerator type counts them.
      flops: peak operations per second in bfloat16, with sums in float32.
      memory: bytes of HBM that the TPU compiler lets a program use, a little less than the chip has.
      bandwidth: bytes per second between HBM and the chip.
      link: bytes per second and direction of one link to a neighbouring chip.
      torus: number of axes of the network; a chip has two links along each.
      wrap: least length of an axis whose ends are linked too.
      clock: clock cycles per second; it turns the compiler's estimates of cycles into seconds.
      shapes: documented shapes of slices.
      source: page with these figures.
      options: options of the compiler that make one device of a chip.
    """

    kind: str
    accelerator: str
    cores: int
    flops: float
    memory: int
    bandwidth: float
    link: float
    torus: int
    wrap: int
    clock: float
    shapes: tuple[str, ...]
    source: str
    options: Mapping[str, str] = dataclasses.field(default_factory=dict)


_PLANE = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
_CUBES = (
    *("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8"),
    *("8x8x8", "8x8x16", "8x16x16", "16x16x16"),
)
_DOCS = "https://docs.cloud.google.com/tpu/docs/"
# The pages give the bandwidth of all links of a chip, in both directions together; `link` is one of them in one
# direction. That of v4 is from Jouppi et al., "TPU v4", arXiv:2304.01433, 2023. No clock is published for all chips:
# `clock` is such that the compiler's estimate for a product of matrices of 8192x8192 takes as long as at the peak rate.
CHIPS = {
    "v4": Chip(
        "TPU v4", "v4-{}", 2, 275e12, int(30.75 * 2**30), 1200e9, 50e9, 3, 4, 1.13e9, _CUBES, f"{_DOCS}v4",
        {"chip_config_name": "megacore"},
    ),
    "v5e": Chip(
        "TPU v5 lite", "v5litepod-{}", 1, 197e12, int(15.75 * 2**30), 819e9, 50e9, 2, 16, 1.71e9, _PLANE, f"{_DOCS}v5e"
    ),
    "v5p": Chip("TPU v5", "v5p-{}", 2, 459e12, int(95.74 * 2**30), 2765e9, 100e9, 3, 4, 1.94e9, _CUBES, f"{_DOCS}v5p"),
    "v6e": Chip(
        "TPU v6 lite", "v6e-{}", 1, 918e12, int(31.25 * 2**30), 1638e9, 100e9, 2, 16, 2.49e9, _PLANE, f"{_DOCS}v6e"
    ),
}  # fmt: skip
# Seconds for a message to a neighbouring chip: https://astra-sim.github.io/astra-sim-docs/validation/hardware
HOP = 1e-6


@dataclasses.dataclass(frozen=True)
class Slice:
    """A slice of a pod.

    Attributes:
      name: name of the topology, such as `v5e:4x8`.
      chip: its chips.
      shape: number of chips along each axis of the network.
    """

    name: str
    chip: Chip
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """The number of chips."""
        return math.prod(self.shape)

    def seconds(self, kind: str, size: int, group: int, stride: int = 1) -> float:
        """Estimates the time of a collective operation by the bandwidth of the links, and their latency.

        Chips that share an axis of the network form a ring, or a line where its ends are not linked. All axes that a
        group spans work at the same time. So an all-gather of S bytes among n chips takes S (n - 1) / n, divided by the
        bandwidth of all links into a chip, plus the latency of its longest way. A reduce-scatter takes as long, and an
        all-reduce as long as both. Groups that interleave along an axis share its links.

        Args:
          kind: `all-reduce`, `all-gather`, `reduce-scatter`, `all-to-all` or `collective-permute`.
          size: bytes on each chip: of the whole array, where each has a part.
          group: number of chips that exchange data with each other.
          stride: distance between the numbers of neighbours in the group.

        Returns:
          Seconds.
        """
        axes = self._axes(group, stride)
        if not axes:
            return 0.0
        links = sum((2 if wrapped else 1) / apart for _, wrapped, apart in axes)
        hops = sum((length // 2 if wrapped else length - 1) * apart for length, wrapped, apart in axes)
        if kind == "collective-permute":
            return size / self.chip.link + HOP
        rounds = {"all-reduce": 2.0, "all-to-all": max(1.0, hops / 2)}.get(kind, 1.0)
        return rounds * size * (group - 1) / group / (links * self.chip.link) + min(rounds, 2.0) * hops * HOP

    def _axes(self, group: int, stride: int) -> list[tuple[int, bool, int]]:
        """Returns, for each axis that a group spans, its chips there, whether they are a ring, and how far apart."""
        found, left = list[tuple[int, bool, int]](), group
        for length in reversed(self.shape):  # neighbours in the mesh are neighbours along the last axes
            apart = math.gcd(length, stride)
            part = math.gcd(length // apart, left)
            if part > 1:
                found.append((part, part * apart == length and length >= self.chip.wrap, apart))
            stride, left = stride // apart, left // part
        return found


def parse(name: str) -> Slice:
    """Parses the name of a topology, such as `v5e:4x8` or `v5p:4x4x4`.

    Raises:
      InvalidInputError: for a name of another form, an unknown chip, or a shape that no slice has.
    """
    found = re.fullmatch(r"(\w+):(\d+(?:x\d+)*)", name)
    if found is None or found[1] not in CHIPS:
        raise InvalidInputError(f"topology={name!r}: expected a chip and the shape of a slice. {known()}")
    chip, shape = CHIPS[found[1]], tuple(map(int, found[2].split("x")))
    if shape[chip.torus :] == (1,):  # such as v5e:2x2x1, as the TPU compiler also writes it
        shape = shape[: chip.torus]
    if len(shape) != chip.torus or 0 in shape:
        raise InvalidInputError(
            f"topology={name!r}: the chips of a slice of {found[1]} are arranged along {chip.torus} axes. {known()}"
        )
    documented = {tuple(sorted(map(int, x.split("x")))) for x in chip.shapes}
    cubes = chip.torus == 3 and all(length % 4 == 0 for length in shape)  # slices are made of cubes of 4x4x4
    if tuple(sorted(shape)) not in documented and not (cubes and math.prod(shape) <= max(map(math.prod, documented))):
        raise InvalidInputError(f"topology={name!r}: there is no such slice of {found[1]}. {known()}")
    return Slice(f"{found[1]}:{'x'.join(map(str, shape))}", chip, shape)


def known() -> str:
    """Lists the documented slices, for messages."""
    shapes = "\n".join(f"  {name}: {', '.join(chip.shapes)}" for name, chip in CHIPS.items())
    return f"Known are (and other boxes of 4x4x4 chips of v4 and v5p)\n{shapes}"


def chip_of(device: jax.Device) -> Chip | None:
    """Returns the chip of a device; None for one that is not in `CHIPS`."""
    return next((chip for chip in CHIPS.values() if chip.kind == device.device_kind), None)


def devices(target: Slice) -> list[jax.Device]:
    """Returns devices that the TPU compiler can compile for, and that can run nothing. No TPU is needed.

    Call it before the first use of JAX's devices, with the platform `cpu`: JAX would look for a TPU otherwise.

    Raises:
      InvalidInputError: if the TPU compiler is not installed, or does not know the slice.
    """
    if importlib.util.find_spec("libtpu") is None:
        raise InvalidInputError(
            f"topology={target.name!r} needs the TPU compiler, which is in the package libtpu (for Linux on x86-64; no "
            "TPU is needed): install the extra tpu, such as pip install -c constraints.txt -e '.[tpu]'"
        )
    # Without these, libtpu asks the metadata server of Google's cloud, and waits long where there is none.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("TPU_ACCELERATOR_TYPE", target.chip.accelerator.format(target.size * target.chip.cores))
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")  # no chip is used, so that several processes may compile
    options: dict[str, Any] = dict(target.chip.options)
    if target.size == 1:
        options["chips_per_host_bounds"] = (1, 1, 1)
    try:
        described = topologies.get_topology_desc(platform="tpu", topology_name=target.name, **options)
    except jax.errors.JaxRuntimeError as error:
        raise InvalidInputError(
            f"topology={target.name!r}: the TPU compiler refuses it ({str(error).splitlines()[0]}). {known()}"
        ) from error
    return list(described.devices)
