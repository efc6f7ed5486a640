"""Tables of the results of a sweep."""

import csv
import json
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from gan_jax.host import replacing


def write_table(workdir: pathlib.Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes `results.jsonl` and `results.csv` with a row for each trial; each file is replaced atomically."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    for name in ("results.jsonl", "results.csv"):
        with replacing(workdir / name, newline="") as file:
            if name.endswith(".jsonl"):
                file.writelines(json.dumps(row) + "\n" for row in rows)
            else:
                writer = csv.DictWriter(file, columns)
                writer.writeheader()
                writer.writerows(rows)


def best(rows: Sequence[Mapping[str, Any]], metric: str, mode: str) -> int | None:
    """Finds the best trial: among those that trained longest, the one with the best value of the metric.

    Args:
      rows: rows of the table of results.
      metric: metric by which trials are compared.
      mode: whether the `min` or the `max` of the metric is best.

    Returns:
      The index of the row; None if every trial has diverged or lacks a finite value of the metric.
    """
    sign = -1.0 if mode == "min" else 1.0
    known = [
        i for i, row in enumerate(rows) if row["status"] != "diverged" and math.isfinite(row.get(metric, math.nan))
    ]
    return max(known, key=lambda i: (rows[i]["images"], sign * rows[i][metric])) if known else None
