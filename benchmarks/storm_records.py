"""Records that a storm compares: what an undisturbed command has left on disk, and a disturbed one."""

import collections
import csv
import hashlib
import json
import os
import pathlib
from typing import Any

_SPEED = "images_per_second"  # differs from run to run
_HALF_WRITTEN = ("**/*.tmp", "**/*.orbax-checkpoint-tmp*", "**/damaged")
_FINISHED = (1, 2, 3)  # Optuna's numbers of the states complete, pruned and failed


def _json(path: pathlib.Path) -> Any:
    """Reads a JSON record without speeds; None if there is none."""
    found = json.loads(path.read_text()) if path.exists() else None
    if isinstance(found, dict):
        found.get("metrics", {}).pop(_SPEED, None)
    return found


def _lines(path: pathlib.Path) -> list[dict[str, Any]]:
    """Reads a file of JSON lines without speeds; no lines if there is none."""
    found = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return [{name: value for name, value in line.items() if name != _SPEED} for line in found]


def _names(directory: pathlib.Path, pattern: str) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.glob(pattern))


def _table(workdir: pathlib.Path) -> list[dict[str, str]]:
    """Reads `results.csv`, ordered by trials, without speeds."""
    with (workdir / "results.csv").open() as file:
        rows = [{name: value for name, value in row.items() if name != _SPEED} for row in csv.DictReader(file)]
    return sorted(rows, key=lambda row: int(row["trial"]))


def of_run(workdir: pathlib.Path) -> dict[str, Any]:
    """Reads what a run has left: result, log, rollbacks, checkpoints, pictures, and what is half-written."""
    pictures = sorted((workdir / "samples").glob("*.png"))
    return {
        "result": _json(workdir / "result.json"),
        "log": _lines(workdir / "metrics.jsonl"),
        "rollbacks": _json(workdir / "rollbacks.json"),
        "checkpoints": _names(workdir, "checkpoints/*"),
        "samples": {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in pictures},
        "half-written": [name for pattern in _HALF_WRITTEN for name in _names(workdir, pattern)],
    }


def of_population(workdir: pathlib.Path) -> dict[str, Any]:
    """Reads what a population has left: decisions, the table, and for each member result and log."""
    members = sorted((workdir / "members").iterdir())
    return {
        "decisions": _lines(workdir / "decisions.jsonl"),
        "table": _table(workdir),
        "results": {home.name: _json(home / "result.json") for home in members},
        "logs": {home.name: _lines(home / "metrics.jsonl") for home in members},
        "checkpoints": _names(workdir, "population/*/*"),
        "exported": _names(workdir, "trials/*/checkpoints/*"),
        "half-written": [name for pattern in _HALF_WRITTEN for name in _names(workdir, pattern)],
    }


def of_study(workdir: pathlib.Path) -> dict[str, Any]:
    """Reads what a study has left: the table, how often each trial has ended, and what each trial has left."""
    journal = _lines(workdir / "study.journal")
    ends = collections.Counter(line["trial_id"] for line in journal if line.get("state") in _FINISHED)
    return {
        "table": _table(workdir),
        "ends": dict(sorted(ends.items())),
        "trials": {home.name: of_run(home) for home in sorted((workdir / "trials").iterdir())},
    }


def equal(found: Any, wanted: Any, where: str = "") -> None:
    """Checks that two records are equal.

    Raises:
      AssertionError: naming the first place where they differ, and both values there.
    """
    if isinstance(wanted, dict) and isinstance(found, dict):
        for name in wanted.keys() | found.keys():
            equal(found.get(name), wanted.get(name), f"{where}.{name}")
    elif isinstance(wanted, list) and isinstance(found, list) and len(found) == len(wanted):
        for index, both in enumerate(zip(found, wanted, strict=True)):
            equal(*both, f"{where}[{index}]")
    else:
        assert found == wanted, f"{where or 'the record'}: {found!r}, undisturbed {wanted!r}"


def equal_study(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Checks a study against one without a pruner: every trial has ended once, and logged what that one has.

    Raises:
      AssertionError: naming the trial that has not.
    """
    assert len(found["table"]) == len(wanted["table"]), found["table"]
    assert list(found["ends"].values()) == [1] * len(wanted["table"]), f"ends of trials: {found['ends']}"
    for row, undisturbed in zip(found["table"], wanted["table"], strict=True):
        name = f"{int(row['trial']):05d}"
        trial, whole = found["trials"][name], wanted["trials"][name]
        assert row["status"] in ("done", "pruned"), row
        assert trial["result"]["status"] == row["status"], (row, trial["result"])
        if row["status"] == "done":
            equal(row, undisturbed, name)
            equal(trial, whole, name)
        else:
            equal(trial["log"], whole["log"][: len(trial["log"])], f"{name}.log")
            assert trial["log"] and trial["half-written"] == [], trial


def check_logs(workdir: pathlib.Path) -> None:
    """Checks that no log has a step twice, or an earlier one later; a killed process may leave half of a last line.

    Raises:
      AssertionError: naming the log.
    """
    # Unlike `rglob`, this passes over directories that are deleted meanwhile, as checkpoints are.
    homes = [pathlib.Path(home) for home, _, files in os.walk(workdir) if "metrics.jsonl" in files]
    for path in (home / "metrics.jsonl" for home in homes):
        steps = [json.loads(line)["step"] for line in path.read_text().split("\n")[:-1]]
        assert steps == sorted(set(steps)), f"{path}: steps {steps}"
