"""Memory of a device, and the check that arrays fit into it before they are allocated."""

import math
import os
import pathlib
import resource
from collections.abc import Mapping
from typing import Any

import jax
from jaxtyping import PyTree

from gan_jax.distributed import topology
from gan_jax.types import InvalidInputError

_CGROUP = pathlib.Path("/sys/fs/cgroup/memory.max")  # the limit of a container; absent, or `max`, without one
_MAPPED = pathlib.Path("/proc/self/statm")  # pages that the process has mapped; Linux has it


def tree_bytes(tree: PyTree) -> int:
    """Returns the bytes per device of arrays, or of the shapes of arrays, each with its sharding if it has one."""

    def size(x: Any) -> int:
        sharding = getattr(x, "sharding", None)
        return math.prod(x.shape if sharding is None else sharding.shard_shape(x.shape)) * x.dtype.itemsize

    return sum(map(size, jax.tree.leaves(tree)))


def available(device: jax.Device) -> int:
    """Returns the memory of a device in bytes; CPU devices share that of the machine, or of its container.

    If the process may map only so much memory (`ulimit -v`, as on some clusters), it is at most what is left of that.
    """
    if device.platform != "cpu":
        chip = topology.chip_of(device)
        if chip is not None and device not in jax.local_devices():  # a device of `topology.devices`, which is not there
            return chip.memory
        if found := (device.memory_stats() or {}).get("bytes_limit", 0):
            return int(found)
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = _CGROUP.read_text(encoding="utf-8").strip() if os.access(_CGROUP, os.R_OK) else "max"
    shared = min(machine, int(limit)) if limit.isdecimal() else machine
    shared = min(shared, _address_space(shared))
    return shared // max(1, sum(other.platform == "cpu" for other in jax.local_devices()))


def _address_space(otherwise: int) -> int:
    """Returns the bytes that the process may still map, or `otherwise` if nothing limits them."""
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit == resource.RLIM_INFINITY or not os.access(_MAPPED, os.R_OK):
        return otherwise
    mapped = int(_MAPPED.read_text(encoding="utf-8").split()[0]) * os.sysconf("SC_PAGE_SIZE")
    return max(0, limit - mapped)


def check(parts: Mapping[str, int], device: jax.Device, what: str, remedy: str) -> None:
    """Raises if arrays need more memory than a device has: an allocation that fails ends the process without a word.

    Args:
      parts: bytes per device, by what they are for.
      device: device that is to hold them.
      what: what needs them, with the values that decide it.
      remedy: what to change.

    Raises:
      InvalidInputError: if the parts do not fit.
    """
    needed, has = sum(parts.values()), available(device)
    if needed > has:
        shown = ", ".join(f"{name} {size / 2**30:,.1f}" for name, size in parts.items())
        raise InvalidInputError(
            f"{what}: this needs at least {needed / 2**30:,.1f} GiB of memory per device ({shown}), and a "
            f"{device.platform} device here has {has / 2**30:,.1f}: {remedy}"
        )
