"""What the instructions of a compiled program cost: operations, bytes of HBM, and what devices send to each other."""

import math
import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from gan_jax.runtime.hlo import ArrayShape, Computation, Executed, Instruction, Module

COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
_VIEWS = ("dynamic-slice", "gather", "slice")  # these read the part of an array that they return


class Collective(NamedTuple):
    """A collective operation.

    Attributes:
      kind: what it is, such as `all-reduce`.
      size: its bytes on each device.
      group: number of devices that exchange data with each other.
      overlaps: whether it overlaps with computation.
      stride: distance between the numbers of neighbours in a group.
    """

    kind: str
    size: int
    group: int
    overlaps: bool
    stride: int = 1


def collective(one: Executed) -> Collective | None:
    """Returns the collective operation of an instruction; None if it is another one."""
    opcode, text = one.instruction.opcode, one.instruction.text
    kind = opcode.removesuffix("-start")
    if kind not in COLLECTIVES:
        return None
    taken = [x for name in one.instruction.operands for x in one.computation[name].arrays]
    made = one.instruction.arrays if kind == "all-gather" else taken
    members = _members(text)
    stride = members[1] - members[0] if len(members) > 1 else 1
    return Collective(kind, sum(x.size for x in made), len(members), opcode != kind, stride)


def _members(text: str) -> list[int]:
    """Returns the devices of the first group of `replica_groups`, in each of the forms in which XLA writes them."""
    if found := re.search(
        r"replica_groups=mesh\[([^\]]*)\](?:, device_ids=\(([^)]*(?:\([^)]*\))?)\))? ?\{([^}]*)\}", text
    ):
        axes = re.findall(r"'([^']+)'=(\d+)", found[1])
        shape = [int(length) for _, length in axes]
        ids = (_iota(found[2]) if found[2] else np.arange(math.prod(shape))).reshape(shape)
        used = re.findall(r"'([^']+)'", found[3])
        return ids[tuple(slice(None) if name in used else 0 for name, _ in axes)].ravel().tolist()
    if found := re.search(r"replica_groups=\[([\d,]+)\]<=(\[[\d,]+\](?:T\([\d,]+\))?)", text):
        return _iota(found[2]).reshape(-1, int(found[1].split(",")[-1]))[0].tolist()
    if found := re.search(r"replica_groups=\{\{([\d,]*)\}", text):
        return [int(x) for x in found[1].split(",")]
    if found := re.search(r"source_target_pairs=\{\{(\d+),(\d+)\}", text):
        return [int(found[1]), int(found[2])]
    raise ValueError(f"no group of devices is known in: {text}")


def _iota(text: str) -> np.ndarray:
    """Returns the devices in the order that `[4,2]T(1,0)` describes: numbered in that shape, then transposed."""
    shape, *order = re.findall(r"[\[(]([\d,]+)[\])]", text)
    ids = np.arange(math.prod(map(int, shape.split(",")))).reshape([int(x) for x in shape.split(",")])
    return (ids.transpose([int(x) for x in order[0].split(",")]) if order else ids).ravel()


def operations(module: Module, one: Instruction, computation: Computation) -> tuple[float, float]:
    """Counts the operations of convolutions and matrix products in an instruction, those inside a fusion included.

    Products with padding and with the zeros between the pixels of a dilated image are not counted, as in XLA's own
    analysis. Element-wise operations are not counted: they are bound by memory.

    Returns:
      The operations, and the same with those of higher precision counted as often as the chip multiplies in bfloat16:
      3 times for `high`, 6 times for `highest`.
    """
    if one.opcode in ("convolution", "dot"):
        count = _convolution(one, computation) if one.opcode == "convolution" else _dot(one, computation)
        precision = re.search(r"operand_precision=\{(\w+)", one.text)
        return count, count * {"high": 3, "highest": 6}.get(precision[1] if precision else "", 1)
    whole = passes = 0.0
    for name in one.called("calls") if one.opcode == "fusion" else ():
        for inside in module.computations[name].values():
            added = operations(module, inside, module.computations[name])
            whole, passes = whole + added[0], passes + added[1]
    return whole, passes


def _dot(one: Instruction, computation: Computation) -> float:
    left = computation[one.operands[0]].arrays[0]
    found = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", one.text)
    contracted = math.prod(left.dims[int(axis)] for axis in (found[1].split(",") if found and found[1] else ()))
    return 2.0 * math.prod(one.arrays[0].dims) * contracted


def _convolution(one: Instruction, computation: Computation) -> float:
    image, kernel = (computation[name].arrays[0] for name in one.operands)
    labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", one.text)
    assert labels is not None, one.text
    window = dict(re.findall(r"(\w+)=([^ }]+)", (re.search(r"window=\{([^}]*)\}", one.text) or ["", ""])[1]))
    places = [axis for axis in labels[3] if axis.isdigit()]

    def numbers(name: str, default: int) -> list[int]:
        return [int(x) for x in window[name].split("x")] if name in window else [default] * len(places)

    pads = [tuple(map(int, x.split("_"))) for x in window["pad"].split("x")] if "pad" in window else [(0, 0)] * 3
    options = [numbers(name, 1) for name in ("stride", "lhs_dilate", "rhs_dilate")]
    valid = 1
    for axis in places:
        at, size = int(axis), image.dims[labels[1].index(axis)]
        taps, results = kernel.dims[labels[2].index(axis)], one.arrays[0].dims[labels[3].index(axis)]
        valid *= _valid(size, taps, results, pads[at][0], *(option[at] for option in options))
    groups = re.search(r"batch_group_count=(\d+)", one.text)
    batch = image.dims[labels[1].index("b")] // (int(groups[1]) if groups else 1)
    return 2.0 * batch * math.prod(kernel.dims[labels[2].index(x)] for x in "io") * valid


def _valid(size: int, taps: int, results: int, low: int, stride: int, spread: int, reach: int) -> int:
    """Counts the pairs of a result and a tap along one axis for which the tap meets a pixel of the image."""
    count = 0
    for tap in range(taps):
        # The tap meets place p = stride r + reach tap - low of the dilated image, for each result r.
        first = reach * tap - low
        period = spread // math.gcd(stride, spread)
        start = next((r for r in range(period) if (stride * r + first) % spread == 0), None)
        if start is None:
            continue
        least = max(0, -(-(-first - stride * start) // (stride * period)))
        most = min((results - 1 - start) // period, ((size - 1) * spread - first - stride * start) // (stride * period))
        count += max(0, most - least + 1)
    return count


def moved(module: Module, one: Executed) -> float:
    """Returns the bytes that an instruction reads from and writes to HBM, with the padding of their layouts.

    An array that is only sliced or gathered from counts with the parts that are read, and one that is updated in place
    with the update.
    """
    instruction, computation = one.instruction, one.computation
    if instruction.opcode in ("copy-start", "slice-start"):  # between memories: (to, from), or (from, to)
        sides = instruction.arrays[:2]
        return min(x.padded for x in sides) * sum(x.space == 0 for x in sides)
    inside = instruction.called("calls") if instruction.opcode == "fusion" else []
    body = module.computations[inside[0]] if inside else {instruction.name: instruction}
    if not inside and instruction.opcode in _VIEWS:
        return 2 * _hbm(instruction.arrays)
    reads = 0.0
    for index, name in enumerate(instruction.operands):
        whole = _hbm(computation[name].arrays)
        reads += min(whole, _read(module, body, index)) if inside and whole else whole
    return reads + sum(_written(body, root, computation if not inside else body) for root in _roots(body))


def _hbm(arrays: Iterable[ArrayShape]) -> int:
    return sum(x.padded for x in arrays if x.space == 0)


def _read(module: Module, body: Computation, index: int) -> float:
    """Returns the bytes that a fusion reads of its parameter; infinite if it reads all of it."""
    name = next(x.name for x in body.values() if x.opcode == "parameter" and x.index == index)
    read = 0.0
    for user in (x for x in body.values() if name in x.operands):
        if user.opcode in _VIEWS and user.operands[0] == name:
            read += sum(x.padded for x in user.arrays)
        elif user.opcode == "fusion":
            inner = module.computations[user.called("calls")[0]]
            read += sum(_read(module, inner, at) for at, operand in enumerate(user.operands) if operand == name)
        elif user.opcode == "bitcast" or not (user.opcode == "dynamic-update-slice" and user.operands[0] == name):
            return math.inf
    return read


def _roots(body: Computation) -> Iterator[Instruction]:
    root = next((x for x in body.values() if x.root), next(iter(body.values())))
    yield from (body[name] for name in root.operands) if root.opcode == "tuple" else (root,)


def _written(body: Computation, root: Instruction, around: Computation) -> float:
    if root.opcode == "dynamic-update-slice" and root.operands[1] in around:
        return sum(x.padded for x in around[root.operands[1]].arrays) * (_hbm(root.arrays) > 0)
    return _hbm(root.arrays)


def cycles(one: Instruction) -> int:
    """Returns the TPU compiler's own estimate of an instruction's clock cycles; 0 where it gives none."""
    found = re.search(r'"estimated_cycles":"(\d+)"', one.text)
    return int(found[1]) if found else 0
