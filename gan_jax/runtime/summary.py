"""A summary of a run before it starts: parameters and memory."""

import math
from typing import Any

import jax
from jaxtyping import PyTree

from gan_jax.runtime.memory import tree_bytes


def parameter_table(players: dict[str, Any]) -> str:
    """Formats a table of every parameter array of every player, with its shape and size.

    Args:
      players: value of `state.players`, with arrays or with their shapes.

    Returns:
      A table as fixed-width text.
    """
    rows = []
    for name, player in players.items():
        leaves = jax.tree_util.tree_leaves_with_path(player.params)
        sizes = [math.prod(leaf.shape) for _, leaf in leaves]
        rows.append((name, "", f"{sum(sizes):,}"))
        rows += [
            (f"  {jax.tree_util.keystr(path, simple=True, separator='/')}", str(tuple(leaf.shape)), f"{size:,}")
            for (path, leaf), size in zip(leaves, sizes, strict=True)
        ]
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    return "\n".join(f"{a:<{widths[0]}}  {b:<{widths[1]}}  {c:>{widths[2]}}" for a, b, c in rows)


def program_bytes(state: PyTree, analysis: Any) -> dict[str, int]:
    """Returns the bytes per device of a compiled program by XLA's analysis: state, data, and temporary arrays."""
    held = tree_bytes(state)
    data, temporaries = max(0, analysis.argument_size_in_bytes - held), analysis.temp_size_in_bytes
    return {"state": held, "data": data, "temporaries": temporaries}


def memory_line(state: PyTree, analysis: Any) -> str:
    """Describes the memory per device: of the state and, where XLA's analysis is given, of the whole program."""
    state_bytes = tree_bytes(state)
    if analysis is None:
        return f"memory per device: state {state_bytes / 2**20:,.1f} MiB"
    parts = program_bytes(state, analysis)
    peak = sum(parts.values()) + analysis.output_size_in_bytes
    peak -= analysis.alias_size_in_bytes  # donated arguments share their memory with outputs
    shown = ", ".join(f"{name} {size / 2**20:,.1f}" for name, size in parts.items())
    return f"memory per device: about {peak / 2**20:,.1f} MiB ({shown})"
