"""Members of a population in one program: what a member's step costs against the number of members.

`jax.vmap` over the step gives every member its own parameters, so its convolutions have kernels of their own. The ring
(three layers of 128, batch 256) and the digits (DCGAN at width 32, batch 32) run with 1, 2, 4, ... members.

And a race, all start-up and compiling included: 16 ring GANs of 5,000 steps as one population, in a process, against 16
processes with a GAN each, one after the other, which find the program that the first of them has compiled.

python -m benchmarks.population            appends to results/population.jsonl
python -m benchmarks.population --race=0   without the race
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
import jax.numpy as jnp
from absl import app, flags

from benchmarks.measure import in_turn, record, table
from gan_jax import core, gans, nets
from gan_jax.types import Game

_MEMBERS = flags.DEFINE_list("members", ["1", "2", "4", "8", "16", "32", "64"], "sizes of the population")
_RACE = flags.DEFINE_integer("race", 16, "members of the race; 0 for none", lower_bound=0)
_STEPS = flags.DEFINE_integer("steps", 5000, "of the race", lower_bound=50)
_ALONE = flags.DEFINE_integer("alone", 0, "run so many members in this process for --steps, and nothing else")


def ring() -> Game:
    """As `benchmarks.steps` has it."""
    generator, critic = nets.MLPGenerator((2,), (128,) * 3, bounded=False), nets.MLPDiscriminator((128,) * 3)
    return gans.vanilla(nets.from_linen(generator), nets.from_linen(critic), core.normal(2))


def digits() -> Game:
    """Convolutions of 8x8 images."""
    generator, critic = nets.DCGANGenerator(8, 1, 32), nets.DCGANDiscriminator(32, norm="none")
    return gans.dcgan(nets.from_linen(generator), nets.from_linen(critic), core.normal(32))


CASES: dict[str, tuple[Callable[[], Game], tuple[int, ...], int]] = {
    "ring": (ring, (256, 2), 50),
    "digits": (digits, (32, 8, 8, 1), 10),
}


def population(game: Game, shape: tuple[int, ...], members: int, length: int) -> Callable[[], None]:
    """`length` iterations of all members."""
    data = jax.random.normal(jax.random.key(0), (core.num_draws(game), *shape))
    keys = jax.random.split(jax.random.key(1), members)
    state = jax.vmap(lambda key: game.init(key, {"real": data[0]}))(keys)
    step = core.make_step(game)

    def body(_: Any, state: Any) -> Any:
        return jax.vmap(lambda state: step(state, {"real": data})[0])(state)

    def scan(state: Any) -> Any:
        return jax.lax.fori_loop(0, jax.lax.optimization_barrier(jnp.int32(length)), body, state)

    program = jax.jit(scan, donate_argnums=0).lower(state).compile()
    box = [state]

    def run() -> None:
        box[0] = jax.block_until_ready(program(box[0]))

    return run


def race(members: int, steps: int) -> dict[str, list[float]]:
    """Seconds of each process: `together` of the one with all members, `one by one` of each with a member."""
    taken: dict[str, list[float]] = {}
    for name, sizes in (("together", [members]), ("one by one", [1] * members)):
        with tempfile.TemporaryDirectory() as cache:
            taken[name] = [seconds_of_process(size, steps, pathlib.Path(cache)) for size in sizes]
    return taken


def seconds_of_process(members: int, steps: int, cache: pathlib.Path) -> float:
    """From its start to its end."""
    command = [sys.executable, "-m", "benchmarks.population", f"--alone={members}", f"--steps={steps}"]
    kept = {"JAX_COMPILATION_CACHE_DIR": str(cache), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    began = time.perf_counter()
    subprocess.run(command, env=os.environ | kept, check=True)
    return time.perf_counter() - began


def main(argv: Sequence[str]) -> None:
    """See the module."""
    del argv
    make, shape, length = CASES["ring"]
    if _ALONE.value:
        run = population(make(), shape, _ALONE.value, length)
        for _ in range(_STEPS.value // length):
            run()
        return
    if _RACE.value:
        taken = race(_RACE.value, _STEPS.value)
        faster = sum(taken["one by one"]) / sum(taken["together"])
        record("population", {"race": _RACE.value, "steps": _STEPS.value, "seconds": taken, "ratio": faster})
        print(f"{_RACE.value} ring GANs as one population: {faster:.2f} times as fast as one by one", flush=True)
    rows: list[list[Any]] = [["case", "members", "ms per member and step", "times as fast as one"]]
    for name, (make, shape, length) in CASES.items():
        game = make()
        sizes = [int(members) for members in _MEMBERS.value]
        runs = {str(size): population(game, shape, size, length) for size in sizes}
        taken = in_turn(runs, rounds=5, seconds=0.3)
        per = {size: statistics.median(taken[str(size)]) / length / size * 1e3 for size in sizes}
        for size, value in per.items():
            faster = per[sizes[0]] / value
            record("population", {"case": name, "members": size, "ms_per_member_step": value, "gain": faster})
            rows.append([name, size, value, faster])
    print(table(rows))


if __name__ == "__main__":
    app.run(main)
