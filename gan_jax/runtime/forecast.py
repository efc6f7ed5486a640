"""What a program will cost on a slice of TPUs, from the program that the TPU compiler makes of it: nothing is run.

The time is a model. An instruction takes as long as its operations take at the chip's peak rate, its bytes at the rate
of HBM, or the compiler's own estimate of its clock cycles, whichever is most; instructions follow one another. Copies
that the compiler has made asynchronous take no time of their own, but all bytes together take no less than the rate of
HBM allows. Collective operations (`distributed.topology.Slice.seconds`) come on top, unless they are asynchronous.
"""

import collections
import dataclasses
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import jax

from gan_jax.distributed.topology import Slice
from gan_jax.runtime import costs, hlo
from gan_jax.types import Game, InvalidInputError

_UNITS = {"G": 2**30, "M": 2**20, "K": 2**10, "": 1}


@dataclasses.dataclass(frozen=True)
class Forecast:
    """The costs of a compiled program on each chip. Costs of training are those of one iteration.

    Attributes:
      program: what it is, such as `training`.
      compile_seconds: duration of the compilation.
      memory: bytes of HBM by what they are for; `needed` alone if the compiler has refused the program.
      fits: whether they fit into the memory of a chip.
      operations: operations of convolutions and matrix products.
      moved: bytes that are read from and written to HBM, with the padding of layouts.
      exchanges: the collective operations, and how often each is executed.
      seconds: time by the model: of the chips by what bounds them (`operations`, `memory`, `cycles`), and of `links`.
      instructions: number of instructions that are executed.
    """

    program: str
    compile_seconds: float
    memory: Mapping[str, int]
    fits: bool
    operations: float = 0.0
    moved: float = 0.0
    exchanges: Mapping[costs.Collective, float] = dataclasses.field(default_factory=dict)
    seconds: Mapping[str, float] = dataclasses.field(default_factory=dict)
    instructions: float = 0.0

    @property
    def needed(self) -> int:
        """Bytes of HBM in all."""
        return sum(self.memory.values())

    @property
    def total_seconds(self) -> float:
        """Time by the model."""
        return sum(self.seconds.values())

    @property
    def collectives(self) -> dict[str, tuple[float, float]]:
        """The collective operations of each kind: their number, and their bytes together."""
        found = dict[str, tuple[float, float]]()
        for one, times in self.exchanges.items():
            count, size = found.get(one.kind, (0.0, 0.0))
            found[one.kind] = count + times, size + times * one.size
        return found


def lazy_shares(game: Game) -> dict[str, float]:
    """Returns the share of the iterations in which a phase runs, by name, for the phases that do not always run."""
    return {phase.name: 1 / phase.every for phase in game.phases if phase.every > 1}


def forecast(
    program: str,
    lowered: jax.stages.Lowered,
    target: Slice,
    *,
    iterations: int = 1,
    shares: Mapping[str, float] | None = None,
) -> Forecast:
    """Compiles a program for a slice, and computes its costs.

    Args:
      program: what it is.
      lowered: the program, lowered for devices of `topology.devices`.
      target: the slice.
      iterations: iterations of training in one dispatch; costs are divided by it.
      shares: see `hlo.executed`.

    Returns:
      The costs.
    """
    began = time.monotonic()
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        return Forecast(program, time.monotonic() - began, {"needed": _exceeded(error)}, fits=False)
    seconds, memory = time.monotonic() - began, _memory(compiled.memory_analysis())
    fits = sum(memory.values()) <= target.chip.memory
    found = _costs(compiled.as_text() or "", target, iterations, shares or {})
    return Forecast(program, seconds, memory, fits, **found)


def _memory(analysis: Any) -> dict[str, int]:
    """Returns the bytes of a compiled program by what they are for."""
    outputs = analysis.output_size_in_bytes - analysis.alias_size_in_bytes  # donated arguments share their memory
    return {
        "arguments": analysis.argument_size_in_bytes,
        "outputs": outputs,
        "temporaries": analysis.temp_size_in_bytes,
        "program": analysis.generated_code_size_in_bytes,
    }


def _exceeded(error: Exception) -> int:
    """Returns the bytes that a refused program needs; raises the error if it has another reason."""
    text = str(error)
    found = re.search(r"(?:Used |required for HLO temporaries \()([\d.]+)([GMK]?)", text)
    if "RESOURCE_EXHAUSTED" not in text or found is None:
        raise error
    return int(float(found[1]) * _UNITS[found[2]])


def _costs(text: str, target: Slice, iterations: int, shares: Mapping[str, float]) -> dict[str, Any]:
    module, chip = hlo.parse(text), target.chip
    operations = moved = count = 0.0
    exchanges = collections.defaultdict[costs.Collective, float](float)
    seconds = collections.defaultdict[str, float](float)
    for one in hlo.executed(module, iterations, shares):
        times = one.times / iterations
        if exchanged := costs.collective(one):
            exchanges[exchanged] += times
            if not exchanged.overlaps:
                seconds["links"] += times * target.seconds(
                    exchanged.kind, exchanged.size, exchanged.group, exchanged.stride
                )
            continue
        multiplied, passes = costs.operations(module, one.instruction, one.computation)
        traffic, cycles = costs.moved(module, one), costs.cycles(one.instruction)
        operations, moved, count = operations + times * multiplied, moved + times * traffic, count + times
        bounds = {
            "operations": passes / chip.flops,
            "memory": traffic / chip.bandwidth,
            "cycles": cycles / chip.clock,
        }
        longest = max(bounds, key=lambda name: bounds[name])
        if not one.instruction.opcode.endswith("-start"):
            seconds[longest] += times * bounds[longest]
    chips = sum(seconds.values()) - seconds["links"]
    seconds["memory"] += max(0.0, moved / chip.bandwidth - chips)
    return {
        "operations": operations,
        "moved": moved,
        "exchanges": dict(exchanges),
        "seconds": dict(seconds),
        "instructions": count,
    }


def lines(one: Forecast, target: Slice, images: int = 0) -> Iterator[str]:
    """Formats the costs of a program.

    Args:
      one: the costs.
      target: the slice.
      images: number of images that the program makes or sees on all chips, for the rate; 0 for none.

    Yields:
      Lines of text.
    """
    yield f"{one.program}: compiled in {one.compile_seconds:.1f} s"
    share = one.needed / target.chip.memory
    yield f"  memory per chip   {one.needed / 2**20:,.1f} MiB, {share:.1%} of {target.chip.memory / 2**30:.2f} GiB"
    if one.seconds:
        yield f"    {', '.join(f'{name} {size / 2**20:,.1f}' for name, size in one.memory.items())} MiB"
    if not one.fits:
        yield f"  DOES NOT FIT by   {(one.needed - target.chip.memory) / 2**30:,.2f} GiB"
    if not one.seconds:
        return
    whole = one.operations * target.size
    yield f"  operations        {_scaled(one.operations)}FLOP per chip, {_scaled(whole)}FLOP in all"
    yield f"  HBM traffic       {_scaled(one.moved)}B per chip"
    sent = ", ".join(f"{count:.4g} {kind} ({_scaled(size)}B)" for kind, (count, size) in one.collectives.items())
    yield f"  collectives       {sent or 'none'}"
    rate = f", {images / one.total_seconds:,.0f} images/s" if images else ""
    yield f"  time, by a model  {one.total_seconds * 1e3:.3f} ms{rate}"
    spent = sorted(one.seconds.items(), key=lambda item: -item[1])
    yield f"    bound by {', '.join(f'{name} {x * 1e3:.3f}' for name, x in spent if x)} ms"


def _scaled(value: float) -> str:
    """Formats a number with three digits and a decimal prefix."""
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.3g} "


def check_fits(found: Iterable[Forecast], target: Slice, remedy: Callable[[Forecast], str]) -> None:
    """Raises `InvalidInputError` if a program does not fit into the memory of a chip.

    Args:
      found: the programs.
      target: the slice.
      remedy: says what to change for a program.
    """
    refused = [
        f"{one.program} needs {one.needed / 2**30:,.2f} GiB per chip, and a program on {target.name} can use "
        f"{target.chip.memory / 2**30:.2f}: {remedy(one)}"
        for one in found
        if not one.fits
    ]
    if refused:
        raise InvalidInputError("\n".join(refused))
