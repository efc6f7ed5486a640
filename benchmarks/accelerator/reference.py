"""Computes the CPU's values of all cases, in their order: the other side of `numerics`, which starts this process."""

import os
import pathlib
import sys
from concurrent import futures

import numpy as np

from benchmarks.accelerator.cases import cases
from benchmarks.accelerator.numerics import file_of, reference, workers
from benchmarks.accelerator.supervise import die_with_parent


def main() -> None:
    """Writes a file for each case that has none; it appears once it is complete."""
    die_with_parent()
    home, tiny = pathlib.Path(sys.argv[1]), bool(int(sys.argv[2]))
    known = cases(tiny)

    def write(name: str) -> None:
        path = file_of(home, name)
        if not path.exists():
            partial = path.with_suffix(".partial")
            with partial.open("wb") as file:
                np.savez(file, allow_pickle=False, **reference(known[name]))
            os.replace(partial, path)

    with futures.ThreadPoolExecutor(workers()) as pool:
        list(pool.map(write, known))  # raises what a case has raised


if __name__ == "__main__":
    main()
