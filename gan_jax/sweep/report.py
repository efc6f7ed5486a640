"""What a sweep found, as tables."""

import csv
import json
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from gan_jax.host import replacing


def write_table(workdir: pathlib.Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes `results.jsonl` and `results.csv`, a row for each trial, each file in one piece."""
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
    """The index of the row with the best value of a metric among the trials that were not lost; None without one."""
    sign = -1.0 if mode == "min" else 1.0
    known = [
        i for i, row in enumerate(rows) if row["status"] != "diverged" and math.isfinite(row.get(metric, math.nan))
    ]
    return max(known, key=lambda i: (rows[i]["images"], sign * rows[i][metric])) if known else None
