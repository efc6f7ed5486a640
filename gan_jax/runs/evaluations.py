"""The evaluations of a run: `eval.jsonl`, with one line per checkpoint and protocol."""

import json
import pathlib
from typing import Any

from gan_jax.runtime import environment
from gan_jax.types import InvalidInputError


def read(path: pathlib.Path) -> list[dict[str, Any]]:
    """Reads the lines of `eval.jsonl`; returns none if the file does not exist."""
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []
    except json.JSONDecodeError as error:
        raise InvalidInputError(f"{path} is damaged ({error}): fix or remove the line") from error


def find(path: pathlib.Path, facts: dict[str, Any]) -> dict[str, Any] | None:
    """Finds the newest line that has the given values.

    Args:
      path: path of `eval.jsonl`.
      facts: values that the line must have, by key.

    Returns:
      The line, or None if no line has these values.
    """
    known = [line for line in read(path) if all(line[name] == value for name, value in facts.items())]
    return known[-1] if known else None


def of_protocol(path: pathlib.Path, protocol: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns the newest line of each checkpoint that was evaluated under a protocol."""
    return list({line["step"]: line for line in read(path) if line["protocol"] == protocol}.values())


def append(path: pathlib.Path, line: dict[str, Any]) -> dict[str, Any]:
    """Adds the current versions of the packages to a line, appends it to the file, and returns it."""
    line = line | {"versions": environment.versions()}
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
    return line
