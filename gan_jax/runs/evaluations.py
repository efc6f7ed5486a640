"""The evaluations of a run: `eval.jsonl`, with one line per checkpoint and protocol."""

import pathlib
from typing import Any, TypedDict

from gan_jax.host import append_line, read_lines
from gan_jax.runtime import environment, same_protocol


class _Line(TypedDict):
    step: int
    images: int
    metrics: dict[str, float]
    protocol: dict[str, Any]


def read(path: pathlib.Path) -> list[dict[str, Any]]:
    """Reads the lines of `eval.jsonl`, without an incomplete last one; returns none if the file does not exist."""
    return read_lines(path, _Line, remedy="repair or remove the line; its checkpoint is then evaluated again")


def find(path: pathlib.Path, facts: dict[str, Any], protocol: dict[str, Any]) -> dict[str, Any] | None:
    """Finds the newest line of a protocol that has the given values.

    Args:
      path: path of `eval.jsonl`.
      facts: values that the line must have, by key.
      protocol: protocol of the evaluation.

    Returns:
      The line, or None if no line has these values.
    """
    known = [line for line in read(path) if all(line.get(name) == value for name, value in facts.items())]
    known = [line for line in known if same_protocol(line["protocol"], protocol)]
    return known[-1] if known else None


def of_protocol(path: pathlib.Path, protocol: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns the newest line of each checkpoint that was evaluated under a protocol."""
    return list({line["step"]: line for line in read(path) if same_protocol(line["protocol"], protocol)}.values())


def append(path: pathlib.Path, line: dict[str, Any]) -> dict[str, Any]:
    """Adds the current versions of the packages to a line, appends it to the file, and returns it."""
    line = line | {"versions": environment.versions()}
    append_line(path, line)
    return line
