"""Time of lazy phases: one compiled program with a condition, compared with two compiled programs.

Training compiles one program, in which a phase that runs every 16th iteration (lazy R1) is under `lax.cond`. The
alternative compiles two programs, one with the phase for 1 iteration and one without it for 15, and alternates between
them. Both run the same iterations, of DCGAN on 32x32 images and of a small MLP. In the MLP the phase is cheap, so the
cost of the condition matters most.

python -m benchmarks.phases        appends to results/phases.jsonl
"""

import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from absl import app

from benchmarks.measure import in_turn, milliseconds, ratio, record, table
from gan_jax import core, gans, nets
from gan_jax.types import Game

EVERY = 16


def dcgan() -> Game:
    """Makes a DCGAN of width 32 for 32x32 images, without batch norm in the discriminator, with lazy R1."""
    networks = nets.DCGANGenerator(32, 3, 32), nets.DCGANDiscriminator(32, norm="none")
    made = [nets.from_linen(network) for network in networks]
    return gans.dcgan(made[0], made[1], core.normal(100), penalties=(gans.r1(1.0, every=EVERY),))


def mlp() -> Game:
    """Makes a GAN of MLPs with three layers of width 128 for points in the plane, with lazy R1."""
    generator, critic = nets.MLPGenerator((2,), (128,) * 3, bounded=False), nets.MLPDiscriminator((128,) * 3)
    networks = nets.from_linen(generator), nets.from_linen(critic)
    return gans.dcgan(networks[0], networks[1], core.normal(2), penalties=(gans.r1(1.0, every=EVERY),))


CASES: dict[str, tuple[Callable[[], Game], tuple[int, ...], int]] = {
    "dcgan": (dcgan, (64, 32, 32, 3), 2),
    "mlp": (mlp, (256, 2), 20),
}


def compiled(game: Game, shape: tuple[int, ...], length: int) -> tuple[Callable[[Any], Any], Any, float]:
    """Compiles a scan of `length` iterations.

    Returns:
      The scan as `state -> state`, an initial state, and the seconds that compiling took.
    """
    data = jnp.zeros((core.batches_per_iteration(game), *shape))
    state = game.init(jax.random.key(0), {"real": data[0]})
    step = core.make_step(game)
    accumulator = core.empty_accumulator(step, state, {"real": data})
    scan = core.make_scan(step, lambda data, inputs, step: {"real": data}, length)
    began = time.perf_counter()
    program = jax.jit(scan, donate_argnums=0).lower(state, accumulator, (data, {}), jnp.zeros(length)).compile()
    seconds = time.perf_counter() - began
    return lambda state: program(state, accumulator, (data, {}), jnp.zeros(length))[0], state, seconds


def main(argv: Sequence[str]) -> None:
    """Runs the benchmark."""
    del argv
    jax.config.update("jax_enable_compilation_cache", False)
    rows: list[list[Any]] = [["case", "one program, ms", "two, ms", "ratio", "compiling one, s", "compiling two, s"]]
    for name, (make, shape, cycles) in CASES.items():
        game = make()
        never = game._replace(phases=tuple(phase for phase in game.phases if phase.every == 1))
        always = game._replace(phases=tuple(phase._replace(every=1) for phase in game.phases))
        one, state, one_seconds = compiled(game, shape, EVERY)
        without, *_, without_seconds = compiled(never, shape, EVERY - 1)
        once, *_, once_seconds = compiled(always, shape, 1)
        boxes = {"one": state, "two": jax.tree.map(jnp.copy, state)}

        def run_one(boxes: dict[str, Any] = boxes, one: Any = one, cycles: int = cycles) -> None:
            for _ in range(cycles):
                boxes["one"] = one(boxes["one"])
            jax.block_until_ready(boxes["one"])

        def run_two(
            boxes: dict[str, Any] = boxes, without: Any = without, once: Any = once, cycles: int = cycles
        ) -> None:
            for _ in range(cycles):
                boxes["two"] = without(once(boxes["two"]))
            jax.block_until_ready(boxes["two"])

        taken = in_turn({"one": run_one, "two": run_two})
        taken = {key: [x / cycles / EVERY for x in times] for key, times in taken.items()}
        times, faster = milliseconds(taken), ratio(taken, "one", "two")
        compiling = {"one": one_seconds, "two": without_seconds + once_seconds}
        record("phases", {"case": name, "every": EVERY, "milliseconds": times, "ratio": faster, "compiling": compiling})
        medians = [times[key]["median"] for key in ("one", "two")]
        rows.append([name, *medians, faster, compiling["one"], compiling["two"]])
    print(table(rows))


if __name__ == "__main__":
    app.run(main)
