"""Members of a population in one program: what a member's step costs against the number of members.

`jax.vmap` over the step gives every member its own parameters, so its convolutions have kernels of their own. The ring
(three layers of 128, batch 256) and the digits (DCGAN at width 32, batch 32) run with 1, 2, 4, ... members.

python -m benchmarks.population    appends to results/population.jsonl
"""

import statistics
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from absl import app, flags

from benchmarks.measure import in_turn, record, table
from gan_jax import core, gans, nets
from gan_jax.types import Game

_MEMBERS = flags.DEFINE_list("members", ["1", "2", "4", "8", "16", "32", "64"], "sizes of the population")


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


def main(argv: Sequence[str]) -> None:
    """See the module."""
    del argv
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
