"""Time per member and step of a population in one program, for several numbers of members.

The members are distributed over all devices (on CPUs, one device per core). Each member has its own parameters, and
therefore its own convolution kernels. The ring (three layers of 128, batch size 256) and the digits (DCGAN of width 32,
batch size 32) run with 1, 2, 4, ... members, compiled as in `gan_jax.sweep`.

The benchmark also runs races, with start-up and compiling included. 16 ring GANs train for 5,000 steps as one
population, by `experiments.sweep`, against 16 sequential runs of `experiments.train`, of which the first compiles the
program and the others find it in the cache. The population runs twice: first it compiles its program, then it finds it
in the cache. The config is `experiments/configs/ring.py`, unchanged and in a small version with layers of 32 and
batches of 64.

python -m benchmarks.population            appends to results/population.jsonl
python -m benchmarks.population --races=   skips the races
python -m benchmarks.population --alone=4  times only four of the sequential runs: the first, which compiles, and three
                                           others, whose mean stands for all the rest
python -m benchmarks.population --table    runs nothing: prints tables of the recorded results
python -m benchmarks.population --write    runs nothing: writes the tables into docs/speed.md, and draws the picture
"""

import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
from absl import app, flags

from benchmarks.measure import RESULTS, in_turn, put, record, recorded, table
from gan_jax import core, data, gans, nets, runtime
from gan_jax.data import Source
from gan_jax.sweep import Member
from gan_jax.sweep import members as programs
from gan_jax.types import Game

_MEMBERS = flags.DEFINE_list("members", ["1", "2", "4", "8", "16", "32", "64"], "numbers of members of the population")
_CASES = flags.DEFINE_list("cases", ["ring", "digits"], "names of the games to time")
_RACES = flags.DEFINE_list("races", ["ring", "small ring"], "names of the games to race")
_RACE = flags.DEFINE_integer("race", 16, "number of members of a race", lower_bound=1)
_STEPS = flags.DEFINE_integer("steps", 5000, "number of steps of a race", lower_bound=50)
_ALONE = flags.DEFINE_integer("alone", 0, "number of sequential runs of a race to time; 0 for all", lower_bound=0)
_TABLE = flags.DEFINE_bool("table", False, "run nothing: print the recorded results")
_WRITE = flags.DEFINE_bool("write", False, "run nothing: write tables and picture into docs/")


def ring() -> Game:
    """Makes the ring's game, the same as in `benchmarks.steps`."""
    generator, critic = nets.MLPGenerator((2,), (128,) * 3, bounded=False), nets.MLPDiscriminator((128,) * 3)
    return gans.vanilla(nets.from_linen(generator), nets.from_linen(critic), core.normal(2))


def digits() -> Game:
    """Makes a DCGAN for the 8x8 digits."""
    generator, critic = nets.DCGANGenerator(8, 1, 32), nets.DCGANDiscriminator(32, norm="none")
    return gans.dcgan(nets.from_linen(generator), nets.from_linen(critic), core.normal(32))


# Game, data, batch size, iterations per dispatch.
CASES: dict[str, tuple[Callable[[], Game], Callable[[], Source], int, int]] = {
    "ring": (ring, data.ring, 256, 50),
    "digits": (digits, lambda: data.digits(labels=False), 32, 10),
}


def population(name: str, game: Game, members: int) -> Callable[[], None]:
    """Compiles a population, and returns a function that runs one dispatch of all members."""
    return compiled(name, game, members)[0]


def compiled(name: str, game: Game, members: int) -> tuple[Callable[[], None], programs.Population]:
    """Compiles a population; returns a function that runs one dispatch of all members, and the program."""
    _, make_source, batch_size, length = CASES[name]
    experiment = runtime.Experiment(
        game=game, source=make_source, preview=runtime.image_grid, seed=0, batch_size=batch_size, steps=length,
        steps_per_dispatch=length, report_every=length, sample_every=0, checkpoint_every=length,
    )  # fmt: skip
    source, mesh = experiment.open_source(), programs.make_trial_mesh(members)
    all_members, slots = [Member(seed) for seed in range(members)], list(range(members))
    slots += [programs.EMPTY] * (programs.num_slots(members, mesh) - members)
    start = programs.build_start(experiment, source, all_members, slots, mesh)
    made = programs.build_population(experiment, source, all_members, slots, mesh, start)
    box, inputs = [start.init()], next(made.stream(0))

    def run() -> None:
        box[0] = jax.block_until_ready(made.run(box[0], made.data, inputs))

    return run, made


# The games of the races, as changes of the ring's config.
GAMES = {"ring": [], "small ring": ["--config.width=32", "--config.batch_size=64"]}


def race(game: str, members: int, steps: int, alone: int) -> dict[str, list[float]]:
    """Runs a race; returns the seconds of its processes.

    `together` has the two runs of the population, `one by one` has one sequential run for each member.
    """
    settings = [
        "--config=experiments/configs/ring.py", f"--config.steps={steps}", f"--config.checkpoint_every={steps}",
        f"--config.report_every={steps // 5}", "--config.sample_every=0", *GAMES[game],
    ]  # fmt: skip
    seeds = ",".join(map(str, range(members)))
    taken: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as room:
        words = ["experiments.sweep", f"--space=seed={seeds}", "--export=none", *settings]
        taken["together"] = [
            seconds_of_process([*words, f"--workdir={room}/{name}"], f"{room}/cache_together")
            for name in ("compiling", "compiled before")
        ]
        taken["one by one"] = [
            seconds_of_process(
                ["experiments.train", f"--workdir={room}/{seed}", f"--config.seed={seed}", *settings], f"{room}/cache"
            )
            for seed in range(alone or members)
        ]
    return taken


def seconds_of_process(words: Sequence[str], cache: str) -> float:
    """Runs a command, and returns the seconds from its start to its end."""
    command = [sys.executable, "-m", *words, f"--compilation_cache={cache}"]
    root, began = pathlib.Path(__file__).parents[1], time.perf_counter()
    subprocess.run(command, env=os.environ, cwd=root, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def measure_races() -> None:
    """Runs all races, and records a line for each."""
    for game in _RACES.value:
        taken = race(game, _RACE.value, _STEPS.value, _ALONE.value)
        first, *others = taken["one by one"]  # the first run compiles the program
        compiled = statistics.mean(others or [first])
        compiling, found = taken["together"]
        record("population", {
            "race": _RACE.value, "game": game, "steps": _STEPS.value, "seconds": taken,
            "ratio": (first + (_RACE.value - 1) * compiled) / compiling,
            "ratio_compiled_before": _RACE.value * compiled / found,
        })  # fmt: skip


def measure_sizes() -> None:
    """Times all cases with all numbers of members, and records a line for each."""
    sizes = [int(members) for members in _MEMBERS.value]
    for name in _CASES.value:
        game, length = CASES[name][0](), CASES[name][3]
        taken = in_turn({str(size): population(name, game, size) for size in sizes}, rounds=5, seconds=0.3)
        per = {size: statistics.median(taken[str(size)]) / length / size * 1e3 for size in sizes}
        for size, value in per.items():
            record("population", {
                "case": name, "members": size, "ms_per_member_step": value, "gain": per[sizes[0]] / value,
            })  # fmt: skip


def summary() -> str:
    """Makes tables of the newest races and of the newest times for each device, in Markdown."""
    lines = [line for line in recorded("population") if "race" in line]
    races = {(line["machine"]["device"], line.get("game", "ring")): line for line in lines}
    rows: list[list[Any]] = [["device", "race of", "together", "times as fast as one by one", "all compiled before"]]
    for (device, game), line in races.items():
        seconds, before = line["seconds"]["together"][0], line.get("ratio_compiled_before")
        told = "" if before is None else f"{before:.2f}"
        rows.append([device, f"{line['race']} of {game}", f"{seconds:.0f} s", f"{line['ratio']:.2f}", told])
    sizes: list[list[Any]] = [["device", "case", "members", "ms per member and step", "times as fast as one"]]
    for (device, case, members), line in by_size().items():
        sizes.append([device, case, members, f"{line['ms_per_member_step']:.3g}", f"{line['gain']:.2f}"])
    return f"{table(rows)}\n\n{table(sizes)}"


def by_size() -> dict[tuple[str, str, int], dict[str, Any]]:
    """Returns the newest line for each device, case and number of members."""
    return {
        (line["machine"]["device"], line["case"], line["members"]): line
        for line in recorded("population")
        if "case" in line
    }


def picture(path: pathlib.Path) -> None:
    """Plots the milliseconds per member and step against the number of members."""
    from matplotlib.figure import Figure  # noqa: PLC0415 - slow to import

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    curves = by_size()
    for device, case in dict.fromkeys(key[:2] for key in curves):
        points = [(members, line) for (*curve, members), line in curves.items() if curve == [device, case]]
        sizes, values = zip(*((members, line["ms_per_member_step"]) for members, line in points), strict=True)
        axes.semilogx(sizes, values, marker="o", label=f"{case}, {device}")
    axes.set(xlabel="members", ylabel="ms per member and step", ylim=(0, None))
    axes.legend()
    figure.savefig(path, dpi=100)


def main(argv: Sequence[str]) -> None:
    """Runs the benchmark, or prints or writes its tables."""
    del argv
    if not (_TABLE.value or _WRITE.value):
        measure_races()
        measure_sizes()
    print(summary())
    if _WRITE.value:
        docs = RESULTS.parents[1] / "docs"
        put(docs / "speed.md", "benchmarks.population", summary())
        picture(docs / "images" / "population.png")


if __name__ == "__main__":
    jax.config.update("jax_num_cpu_devices", len(os.sched_getaffinity(0)))
    app.run(main)
