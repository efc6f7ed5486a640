"""The results as text: a summary of a directory, and the tables of docs/accelerator.md."""

import pathlib


def summary(out: pathlib.Path, code: str) -> str:
    return "summary"
