"""Time of an iteration with two versions of the library, measured in alternating turns.

Each version runs in its own process, which compiles its program and then waits for its turns. During a turn the other
process sleeps.

git worktree add BEFORE COMMIT
python -m benchmarks.step_pairs --before=BEFORE --data_dir=DIR     appends to results/step_pairs.jsonl
python -m benchmarks.step_pairs --table                            runs nothing: prints the recorded results
"""

import dataclasses
import os
import pathlib
import statistics
import subprocess
import sys
import time
from typing import Any

import jax
from absl import app, flags

from benchmarks.measure import RESULTS, record, recorded, table
from gan_jax import augment, core, gans, losses, nets, runtime
from gan_jax.runs import load_module
from gan_jax.runtime.program import build_start, compile_program

_BEFORE = flags.DEFINE_string("before", "", "path of a working tree of the commit to compare with")
_DATA = flags.DEFINE_string("data_dir", "", "directory in which TFDS prepared mnist and cifar10_jpeg")
_ONLY = flags.DEFINE_list("only", None, "names of the cases; all by default")
_ROUNDS = flags.DEFINE_integer("rounds", 9, "number of turns of each version")
_SECONDS = flags.DEFINE_float("seconds", 3.0, "minimum length of a turn in seconds")
_CHILD = flags.DEFINE_string("child", "", "case to time whenever a line arrives on standard input; used internally")
_TABLE = flags.DEFINE_bool("table", False, "run nothing: print the recorded results")
_SMALL = {"fmap_base": 4096, "fmap_max": 64, "batch_size": 32, "steps_per_dispatch": 16}
AUGMENTED = "stacked_mnist with DiffAugment"
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "ring": ("ring", {}),
    "digits": ("digits", {}),
    AUGMENTED: ("stacked_mnist", {"width": 16}),
    "stacked_mnist": ("stacked_mnist", {"width": 16}),
    "stylegan2_cifar10": ("stylegan2_cifar10", _SMALL | {"path_length_weight": 2.0}),
}


def child(case: str) -> None:
    """Compiles a case, then answers each line on standard input with the seconds per iteration."""
    name, changes = CASES[case]
    module = load_module(pathlib.Path(runtime.__file__).parents[2] / "experiments" / "configs" / f"{name}.py")
    config = module.get_config()
    config.update(changes)
    if "data_dir" in config:
        config.data_dir = _DATA.value
    experiment, mesh = module.build(config), runtime.make_mesh()
    if case == AUGMENTED:
        generator = nets.from_linen(nets.ResNetGenerator(32, 3, 16, norm="none"))
        critic = nets.from_linen(nets.ResNetDiscriminator(16, norm="none"))
        game = gans.adversarial(
            generator, critic, core.normal(64), loss=losses.relativistic_pairing,
            penalties=(gans.r1(1.0), gans.r2(1.0)), augment=gans.Augmentation(augment.diff_augment(), 0.5),
            generator_optimizer=core.adam(2e-4, 0.0, 0.99), discriminator_optimizer=core.adam(2e-4, 0.0, 0.99),
        )  # fmt: skip
        experiment = dataclasses.replace(experiment, game=game)
    with jax.set_mesh(mesh):
        source = experiment.open_source()
        start = build_start(experiment, source.spec, mesh)
        program = compile_program(experiment, source, mesh, start, 0, lambda message: None)
        carried = start.init()
        state, accumulator, stream = carried["state"], carried["window"], program.stream(0)
        print("ready", flush=True)
        for _ in sys.stdin:
            began, done = time.perf_counter(), 0
            while not done or time.perf_counter() - began < _SECONDS.value:
                state, accumulator = program.run(state, accumulator, program.data, next(stream))
                jax.block_until_ready(state)
                done += program.length
            print((time.perf_counter() - began) / done, flush=True)


def measure(case: str) -> None:
    """Times both versions of a case in alternating turns, and records the result."""
    here = RESULTS.parents[1]
    trees = {"before": pathlib.Path(_BEFORE.value).resolve(), "after": here}
    processes = {
        which: subprocess.Popen(
            [sys.executable, str(pathlib.Path(__file__)), f"--child={case}", f"--data_dir={_DATA.value}",
             f"--seconds={_SECONDS.value}"],
            env=os.environ | {"PYTHONPATH": f"{tree}:{here}"}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for which, tree in trees.items()
    }  # fmt: skip

    def ask(which: str) -> str:
        process = processes[which]
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write("go\n")
        process.stdin.flush()
        return process.stdout.readline()

    for process in processes.values():
        assert process.stdout is not None
        if process.stdout.readline() != "ready\n":
            sys.exit(f"{case}: a process failed; its error is above")
    taken: dict[str, list[float]] = {"before": [], "after": []}
    for round_number in range(_ROUNDS.value + 1):
        for which, seconds in taken.items():
            value = float(ask(which))
            if round_number:  # the first round warms up
                seconds.append(value)
    for process in processes.values():
        process.kill()
    ratio = statistics.median(b / a for a, b in zip(taken["before"], taken["after"], strict=True))
    commits = {
        which: subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=tree, check=True, capture_output=True, text=True
        ).stdout.strip()
        for which, tree in trees.items()
    }
    milliseconds = {which: round(1000 * statistics.median(values), 3) for which, values in taken.items()}
    record("step_pairs", {"case": case, "ms": milliseconds, "ratio": round(ratio, 4), "commits": commits})
    print(f"{case}: {milliseconds}, after / before {ratio:.3f}", flush=True)


def main(argv: list[str]) -> None:
    """Runs the benchmark, runs one case as a child process, or prints the table."""
    del argv
    if _CHILD.value:
        child(_CHILD.value)
    elif _TABLE.value:
        rows: list[list[Any]] = [["case", "before, ms", "after, ms", "after / before"]]
        lines = {line["case"]: line for line in recorded("step_pairs")}
        rows += [[name, x["ms"]["before"], x["ms"]["after"], x["ratio"]] for name, x in lines.items()]
        print(table(rows))
    else:
        for case in _ONLY.value or CASES:
            measure(case)


if __name__ == "__main__":
    app.run(main)
