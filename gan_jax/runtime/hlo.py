"""A reader of compiled programs as XLA prints them: their instructions, how often each is executed, and its arrays.

XLA's own cost analysis counts the body of a loop once, and both branches of a condition as the more costly one. It also
gives totals alone. Here an instruction is counted as often as the loops around it run, and each can be looked at.
"""

import dataclasses
import functools
import math
import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

_NAMES = re.compile(r"%([\w.$-]+)")
_COMPUTATION = re.compile(r"^(ENTRY )?%([\w.$-]+) \(.*\) -> .*\{$")
_INSTRUCTION = re.compile(r"^\s*(ROOT )?%([\w.$-]+) = ")
_ARRAY = re.compile(r"\b([a-z]+\d*(?:e\d+m\d+\w*)?)\[([\d,]*)\](?:\{([\d,]*)((?::[^{}]*)?)\})?")
_BITS = {"pred": 8, "token": 0, "opaque": 0}
_NO_WORK = {
    *("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "partition-id", "replica-id"),
    *("opt-barrier", "optimization-barrier", "add-dependency"),
}


class ArrayShape(NamedTuple):
    """An array as the compiler lays it out.

    Attributes:
      dtype: element type as XLA names it, such as `f32`.
      dims: length of each axis.
      order: axes from the fastest to the slowest in memory.
      tile: lengths of a tile; the fastest axes are padded to multiples of them.
      space: memory that holds the array: 0 is HBM; others are on the chip.
    """

    dtype: str
    dims: tuple[int, ...]
    order: tuple[int, ...]
    tile: tuple[int, ...]
    space: int

    @property
    def bits(self) -> int:
        """Bits of one element."""
        return _BITS[self.dtype] if self.dtype in _BITS else int(re.sub(r"\D.*", "", self.dtype.lstrip("bfsuc")) or 0)

    @property
    def size(self) -> int:
        """Bytes without padding."""
        return math.prod(self.dims) * self.bits // 8

    @property
    def padded(self) -> int:
        """Bytes in memory, with the padding to whole tiles."""
        lengths = [self.dims[axis] for axis in reversed(self.order)]
        lengths = [1] * (len(self.tile) - len(lengths)) + lengths
        for at, step in enumerate(reversed(self.tile), 1):
            lengths[-at] = -(-lengths[-at] // step) * step
        return math.prod(lengths) * self.bits // 8


def arrays(text: str) -> list[ArrayShape]:
    """Parses the arrays of a shape; those of a tuple, nested or not, one after another."""
    found = []
    for dtype, dims, order, layout in _ARRAY.findall(text):
        lengths = tuple(int(x) for x in dims.split(",") if x)
        axes = tuple(int(x) for x in order.split(",") if x) or tuple(reversed(range(len(lengths))))
        tile, space = re.search(r"T\(([\d,]+)\)", layout), re.search(r"S\((\d+)\)", layout)
        steps = tuple(int(x) for x in tile[1].split(",")) if tile else ()
        found.append(ArrayShape(dtype, lengths, axes, steps, int(space[1]) if space else 0))
    return found


@dataclasses.dataclass(frozen=True)
class Instruction:
    """An instruction of a computation.

    Attributes:
      name: its name.
      opcode: what it does, such as `fusion` or `all-reduce`.
      shape: text of the shape of its result.
      operands: names of the instructions whose results it takes.
      text: everything after its operands: attributes and metadata.
      root: whether its result is that of the computation.
      index: number of a parameter, or element of a tuple that it takes; -1 for other instructions.
    """

    name: str
    opcode: str
    shape: str
    operands: tuple[str, ...]
    text: str
    root: bool
    index: int

    @functools.cached_property
    def arrays(self) -> list[ArrayShape]:
        """The arrays of its result."""
        return arrays(self.shape)

    @property
    def scope(self) -> str:
        """The path of names that JAX gave it, such as `jit(scan)/while/body/generator/...`."""
        found = re.search(r'op_name="([^"]*)"', self.text)
        return found[1] if found else ""

    def called(self, *attributes: str) -> list[str]:
        """Returns the names of the computations in some of its attributes, such as `calls` or `body`."""
        found = []
        for attribute in attributes:
            for group in re.findall(rf"\b{attribute}=(\{{[^}}]*\}}|%[\w.$-]+)", self.text):
                found += _NAMES.findall(group)
        return found


Computation = dict[str, Instruction]  # by name, in the order of the text


@dataclasses.dataclass(frozen=True)
class Module:
    """A compiled program.

    Attributes:
      computations: its computations, by name.
      entry: name of the one that runs.
    """

    computations: Mapping[str, Computation]
    entry: str

    def trips(self, loop: Instruction) -> int | None:
        """Returns how often a loop runs, where its condition compares a counter that starts at 0 with a constant."""
        condition = self.computations[loop.called("condition")[0]]
        root = next(x for x in condition.values() if x.root)
        limits = [condition[name] for name in root.operands if name in condition]
        constants = [x.index for x in limits if x.opcode == "constant" and x.index >= 0]
        return constants[0] if root.opcode == "compare" and "direction=LT" in root.text and constants else None


class Executed(NamedTuple):
    """An instruction that the program executes, in the computation that it belongs to, and how often."""

    instruction: Instruction
    computation: Computation
    times: float


def parse(text: str) -> Module:
    """Parses a program from `jax.stages.Compiled.as_text()`."""
    computations, entry, current = dict[str, Computation](), "", dict[str, Instruction]()
    for line in text.splitlines():
        if head := _COMPUTATION.match(line):
            current = computations[head[2]] = {}
            entry = head[2] if head[1] else entry
        elif found := _INSTRUCTION.match(line):
            current[found[2]] = _instruction(found[2], bool(found[1]), line[found.end() :])
    return Module(computations, entry)


def _instruction(name: str, root: bool, rest: str) -> Instruction:
    shape, rest = rest[: (end := _closing(rest, 0) if rest.startswith("(") else rest.index(" "))], rest[end:].lstrip()
    opcode, rest = rest[: (begin := rest.index("("))], rest[begin:]
    end = _closing(rest, 0)
    inner, text = rest[1 : end - 1], rest[end:]
    element = re.search(r"\bindex=(\d+)", text) if opcode == "get-tuple-element" else re.fullmatch(r"\d+", inner)
    index = int(element[element.lastindex or 0]) if element else -1
    return Instruction(name, opcode, shape, tuple(_NAMES.findall(inner)), text, root, index)


def _closing(text: str, begin: int) -> int:
    """Returns the position after the bracket that closes the one at `begin`."""
    depth = 0
    for at in range(begin, len(text)):
        depth += (text[at] == "(") - (text[at] == ")")
        if not depth:
            return at + 1
    return len(text)


def executed(module: Module, outer: int = 1, share: Mapping[str, float] | None = None) -> Iterator[Executed]:
    """Yields the instructions that a program executes. Those inside a fusion are not yielded: the fusion is.

    Args:
      module: the program.
      outer: how often a loop runs whose number of iterations is not in the text.
      share: by the name of a phase, the share of the iterations in which it runs. Of the two branches of a condition
        with this name in its scope, the longer one counts by this share, and the other by the rest. The longest branch
        of any other condition counts whole.
    """
    yield from _executed(module, module.entry, 1.0, outer, share or {})


def _executed(module: Module, name: str, times: float, outer: int, share: Mapping[str, float]) -> Iterator[Executed]:
    for one in module.computations[name].values():
        if one.opcode == "while":
            trips = module.trips(one)
            inner = times * (outer if trips is None else trips)
            yield from _executed(module, one.called("body")[0], inner, outer if trips is None else 1, share)
        elif one.opcode == "conditional":
            for branch, part in _branches(module, one, share):
                yield from _executed(module, branch, times * part, outer, share)
        elif one.opcode in ("call", "async-start"):
            for inside in one.called("to_apply", "calls", "called_computations"):
                yield from _executed(module, inside, times, outer, share)
        elif one.opcode not in _NO_WORK and not one.opcode.endswith("-done"):
            yield Executed(one, module.computations[name], times)


def _branches(module: Module, one: Instruction, share: Mapping[str, float]) -> Iterator[tuple[str, float]]:
    names = one.called("true_computation", "false_computation", "branch_computations")
    names.sort(key=lambda name: _length(module, name))
    path = one.scope.split("/")
    part = next((value for name, value in share.items() if name in path), 1.0)
    yield names[-1], part
    if part < 1.0:
        yield names[0], 1.0 - part


def _length(module: Module, name: str) -> int:
    inside = module.computations[name].values()
    return len(inside) + sum(_length(module, x) for one in inside for x in one.called("calls", "body", "to_apply"))
