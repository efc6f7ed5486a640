"""Time of a train step against the same networks and update written in PyTorch, alternating both in one run.

A step is one iteration of the game: all critic updates and the generator's. JAX's is the compiled scan that training
runs, on data that are on the device. PyTorch's is the loop that its users write, in eager mode, in channels-last memory
format and compiled; on a GPU too, where there is one. Needs the extra `bench`.

python -m benchmarks.steps                       all cases; appends to results/steps.jsonl and prints a table
python -m benchmarks.steps --only=dcgan,ring     some
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import torch
from absl import app, flags
from torch.nn import functional

from benchmarks import torch_networks
from benchmarks.measure import in_turn, milliseconds, rates, ratio, record, table
from gan_jax import core, gans, nets
from gan_jax.types import Game

_ONLY = flags.DEFINE_list("only", [], "cases; all by default")
_ROUNDS = flags.DEFINE_integer("rounds", 7, "turns of each contender", lower_bound=1)
_SECONDS = flags.DEFINE_float("seconds", 1.5, "of a turn", lower_bound=0.0)
_MODES = ("eager", "channels_last", "compiled")
Loss = Callable[[torch.Tensor], torch.Tensor]


class Case(NamedTuple):
    """A game in both frameworks.

    Attributes:
      game: without an averaged generator, which PyTorch's does not have either.
      twins: makes PyTorch's networks.
      shape: of one sample, channels last.
      batch: examples.
      latents: length of z.
      critic_steps: updates of the discriminator in an iteration.
      betas: of both players' Adam.
      losses: of logits: the discriminator's of reals and of fakes, and the generator's.
      length: iterations in one dispatch.
    """

    game: Callable[[], Game]
    twins: Callable[[], torch_networks.Pair]
    shape: tuple[int, ...]
    batch: int
    latents: int
    critic_steps: int
    betas: tuple[float, float]
    losses: tuple[Loss, Loss, Loss]
    length: int = 10


_SOFTPLUS: tuple[Loss, Loss, Loss] = (
    lambda real: functional.softplus(-real),
    lambda fake: functional.softplus(fake),
    lambda fake: functional.softplus(-fake),
)
_HINGE: tuple[Loss, Loss, Loss] = (
    lambda real: functional.relu(1 - real),
    lambda fake: functional.relu(1 + fake),
    lambda fake: -fake,
)
_RING = (128, 128, 128)
_WIDE = (512, 1024, 3328)  # 168 million parameters for images of 128 pixels, as the first Keras tutorial's generator


def _dcgan() -> Game:
    generator, discriminator = nets.DCGANGenerator(32, 3, 64), nets.DCGANDiscriminator(64)
    networks = nets.from_linen(generator), nets.from_linen(discriminator)
    return gans.dcgan(networks[0], networks[1], core.normal(100), ema_halflife_images=None)


def _sngan() -> Game:
    generator, discriminator = nets.ResNetGenerator(32, 3, 128), nets.ResNetDiscriminator(64)
    return gans.sngan(nets.from_linen(generator), nets.from_linen(discriminator), core.normal(128))


def _mlp(shape: tuple[int, ...], generator: Sequence[int], discriminator: Sequence[int], latents: int) -> Game:
    made = nets.MLPGenerator(shape, tuple(generator), bounded=len(shape) == 3)
    critic = nets.MLPDiscriminator(tuple(discriminator))
    return gans.vanilla(nets.from_linen(made), nets.from_linen(critic), core.normal(latents))


CASES = {
    "dcgan": Case(_dcgan, torch_networks.dcgan, (32, 32, 3), 64, 100, 1, (0.5, 0.999), _SOFTPLUS),
    "sngan": Case(
        _sngan, functools.partial(torch_networks.resnet, generator_width=128, discriminator_width=64),
        (32, 32, 3), 64, 128, 5, (0.0, 0.9), _HINGE, 2,
    ),
    "ring": Case(
        functools.partial(_mlp, (2,), _RING, _RING, 2),
        functools.partial(
            torch_networks.mlp, (2,), latents=2, generator=_RING, discriminator=_RING, bounded=False
        ),
        (2,), 256, 2, 1, (0.5, 0.999), _SOFTPLUS, 500,
    ),
    "wide_mlp": Case(
        functools.partial(_mlp, (128, 128, 3), _WIDE, (512, 256), 100),
        functools.partial(torch_networks.mlp, (3, 128, 128), latents=100, generator=_WIDE, discriminator=(512, 256)),
        (128, 128, 3), 128, 100, 1, (0.5, 0.999), _SOFTPLUS, 2,
    ),
}  # fmt: skip


def ours(case: Case) -> tuple[Callable[[], None], float]:
    """The compiled scan of `case.length` iterations, and the operations of one iteration by XLA's count."""
    game = case.game()
    draws = core.num_draws(game)
    real = jax.random.uniform(jax.random.key(0), (draws, case.batch, *case.shape), minval=-1.0)
    state = jax.jit(game.init)(jax.random.key(0), {"real": real[0]})
    window = core.empty_window(game, state, {"real": real})
    scan = core.make_scan(game, lambda data, inputs, step: {"real": data}, case.length)
    inputs = jnp.zeros(case.length)
    compiled = jax.jit(scan, donate_argnums=0).lower(state, window, real, inputs).compile()
    flops = float((compiled.cost_analysis() or {})["flops"])  # of the loop's body, once
    box = [state]

    def run() -> None:
        box[0], out = compiled(box[0], window, real, inputs)
        jax.block_until_ready((box[0], out))

    return run, flops


def theirs(case: Case, mode: str) -> Callable[[], None]:
    """One iteration as PyTorch's users write it."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    generator, discriminator = (network.to(device) for network in case.twins())
    real_shape = case.shape if len(case.shape) == 1 else (case.shape[-1], *case.shape[:-1])
    real = torch.rand(case.batch, *real_shape, device=device) * 2 - 1
    if mode == "channels_last" and len(case.shape) == 3:
        generator, discriminator = (x.to(memory_format=torch.channels_last) for x in (generator, discriminator))
        real = real.to(memory_format=torch.channels_last)
    optimizers = [torch.optim.Adam(x.parameters(), 2e-4, case.betas) for x in (generator, discriminator)]
    of_real, of_fake, of_generator = case.losses

    def critic_loss() -> torch.Tensor:
        with torch.no_grad():
            fake = generator(torch.randn(case.batch, case.latents, device=device))
        return of_real(discriminator(real)).mean() + of_fake(discriminator(fake)).mean()

    def generator_loss() -> torch.Tensor:
        return of_generator(discriminator(generator(torch.randn(case.batch, case.latents, device=device)))).mean()

    if mode == "compiled":
        critic_loss, generator_loss = torch.compile(critic_loss), torch.compile(generator_loss)

    def run() -> None:
        for _ in range(case.critic_steps):
            optimizers[1].zero_grad(set_to_none=True)
            critic_loss().backward()
            optimizers[1].step()
        discriminator.requires_grad_(False)
        optimizers[0].zero_grad(set_to_none=True)
        generator_loss().backward()
        optimizers[0].step()
        discriminator.requires_grad_(True)
        if device == "cuda":
            torch.cuda.synchronize()

    return run


def measure(name: str, case: Case, ceiling: dict[str, float]) -> list[Any]:
    """Runs one case, records it, and returns its row of the table."""
    run, flops = ours(case)
    modes = _MODES if len(case.shape) == 3 and name != "wide_mlp" else ("eager", "compiled")
    contenders = {"gan_jax": run} | {mode: theirs(case, mode) for mode in modes}
    taken = in_turn(contenders, rounds=_ROUNDS.value, seconds=_SECONDS.value)
    taken["gan_jax"] = [x / case.length for x in taken["gan_jax"]]
    times = milliseconds(taken)
    fastest = min(modes, key=lambda mode: times[mode]["median"])
    floor = flops / ceiling["matmul_gflops"] / 1e6
    faster = ratio(taken, fastest, "gan_jax")
    line = {"case": name, "milliseconds": times, "fastest": fastest, "ratio": faster, "gflop": flops / 1e9}
    record("steps", line | {"floor_ms": floor, "rates": ceiling}, torch=torch.__version__)
    others = ", ".join(f"{mode} {times[mode]['median']:.3g}" for mode in modes)
    return [name, times["gan_jax"]["median"], others, faster, floor, flops / times["gan_jax"]["median"] / 1e6]


def main(argv: Sequence[str]) -> None:
    """See the module."""
    del argv
    unknown = set(_ONLY.value) - set(CASES)
    if unknown:
        raise SystemExit(f"--only={','.join(sorted(unknown))}: expected some of {', '.join(CASES)}")
    ceiling = rates()
    print(", ".join(f"{name} {value:.0f}" for name, value in ceiling.items()), flush=True)
    rows: list[list[Any]] = [["case", "gan_jax, ms", "PyTorch, ms", "ratio to its fastest", "floor, ms", "GFLOP/s"]]
    for name in _ONLY.value or CASES:
        rows.append(measure(name, CASES[name], ceiling))
        print(" ".join(f"{x:.3g}" if isinstance(x, float) else str(x) for x in rows[-1]), flush=True)
    print(table(rows))


if __name__ == "__main__":
    app.run(main)
