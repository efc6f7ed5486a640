"""Computes the CPU's values of all cases, in their order: the other side of `numerics`, which starts this process."""

import functools
import os
import pathlib
import sys
from collections.abc import Callable, Mapping
from concurrent import futures

import numpy as np

from benchmarks.accelerator.cases import cases
from benchmarks.accelerator.numerics import NARROW, file_of, own_deviations, own_file, reference, workers
from benchmarks.accelerator.supervise import die_with_parent


def main() -> None:
    """Writes a file for each case that has none; it appears once it is complete."""
    die_with_parent()
    home, tiny = pathlib.Path(sys.argv[1]), bool(int(sys.argv[2]))
    known = cases(tiny)

    def write(path: pathlib.Path, make: Callable[[], Mapping[str, np.ndarray]]) -> None:
        if not path.exists():
            partial = path.with_suffix(".partial")
            with partial.open("wb") as file:
                np.savez(file, allow_pickle=False, **make())
            os.replace(partial, path)

    def in_float32(name: str) -> None:
        write(file_of(home, name), lambda: reference(known[name]))

    def narrow(name: str) -> None:
        with np.load(file_of(home, name)) as file:
            kept = dict(file)
        for precision in NARROW:
            write(
                own_file(file_of(home, name), precision),
                functools.partial(own_deviations, known[name], precision, kept),
            )

    with futures.ThreadPoolExecutor(workers()) as pool:
        for stage in (in_float32, narrow):  # float32 is what the other side wants first
            list(pool.map(stage, known))  # raises what a case has raised


if __name__ == "__main__":
    main()
