"""Time of a train step compared with the same networks and update in PyTorch, in alternating turns.

A step is one iteration of the game: all critic updates, the generator's update, and a share of the lazy updates. In JAX
it is part of the compiled scan that training runs, with the data on the device. In PyTorch it is the loop that users
write, in eager mode, in the channels-last memory format, and compiled. The GAN of the first Keras tutorial is also
compared with its loop in Keras. If there is a GPU, JAX and PyTorch run on it. Needs the extra `bench`.

The floor is a lower bound of the time: the operations of our program, as counted by XLA, divided by the machine's rate
of matrix products. The direct floor is the same for the operations that PyTorch counts, with all convolutions computed
directly; Winograd's algorithm needs fewer.

python -m benchmarks.steps                       times all cases; appends to results/steps.jsonl, prints a table
python -m benchmarks.steps --only=dcgan,ring     times some cases
python -m benchmarks.steps --dtype=bfloat16      uses mixed precision in both frameworks
python -m benchmarks.steps --tf32                uses TF32 for float32 products, on a GPU that supports it
"""

import contextlib
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import torch
from absl import app, flags
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import torch_networks, torch_stylegan2
from benchmarks.measure import in_turn, milliseconds, rates, ratio, record, table
from gan_jax import core, gans, nets
from gan_jax.types import Game

_ONLY = flags.DEFINE_list("only", [], "names of the cases to time; all by default")
_ROUNDS = flags.DEFINE_integer("rounds", 7, "number of turns of each contender", lower_bound=1)
_SECONDS = flags.DEFINE_float("seconds", 1.5, "minimum length of a turn in seconds", lower_bound=0.0)
_DTYPE = flags.DEFINE_enum(
    "dtype", "float32", ["float32", "bfloat16"], "dtype of the networks' activations and products"
)
_TF32 = flags.DEFINE_bool(
    "tf32", False, "use TF32 (factors rounded to 10 bits) for float32 products on GPUs, in both frameworks"
)
_MODES = ("eager", "channels_last", "compiled")
Loss = Callable[[torch.Tensor], torch.Tensor]


class Case(NamedTuple):
    """A game in both frameworks.

    Attributes:
      game: makes the JAX game for a dtype, without an averaged generator, which the PyTorch loop does not have either.
      twins: makes the PyTorch networks.
      shape: shape of one sample, channels last.
      batch: batch size.
      latents: length of z.
      critic_steps: number of discriminator updates per iteration.
      betas: betas of both players' Adam.
      losses: functions of logits: the discriminator's loss on reals, its loss on fakes, and the generator's loss.
      length: number of iterations in one dispatch.
      modes: PyTorch modes to time; `keras` adds the Keras loop.
      r1: gamma of R1, and the number of iterations between its lazy updates; None for no R1.
    """

    game: Callable[[str], Game]
    twins: Callable[[], torch_networks.Pair]
    shape: tuple[int, ...]
    batch: int
    latents: int
    critic_steps: int
    betas: tuple[float, float]
    losses: tuple[Loss, Loss, Loss]
    length: int = 10
    modes: tuple[str, ...] = _MODES
    r1: tuple[float, int] | None = None


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
_WIDE = (512, 1024, 3328)  # 168 million parameters for 128x128 images, as in the first Keras tutorial's generator


def _dcgan(dtype: str) -> Game:
    networks = nets.DCGANGenerator(32, 3, 64, dtype=dtype), nets.DCGANDiscriminator(64, dtype=dtype)
    made = [nets.from_linen(network) for network in networks]
    return gans.dcgan(made[0], made[1], core.normal(100), ema_halflife_images=None)


def _sngan(dtype: str) -> Game:
    networks = nets.ResNetGenerator(32, 3, 128, dtype=dtype), nets.ResNetDiscriminator(64, dtype=dtype)
    made = [nets.from_linen(network) for network in networks]
    return gans.sngan(made[0], made[1], core.normal(128))


_STYLE: dict[str, Any] = {"fmap_base": 2048, "fmap_max": 128}


def _stylegan2(dtype: str) -> Game:
    generator = nets.StyleGAN2Generator(32, 3, style_size=128, mapping_layers=2, dtype=dtype, **_STYLE)
    networks = (*generator.parts(), nets.StyleGAN2Discriminator(dtype=dtype, **_STYLE))
    made = [nets.from_linen(network) for network in networks]
    return gans.stylegan2(
        made[0], made[1], made[2], core.normal(128),
        r1_gamma=0.1, r1_every=16, path_length_weight=None, style_mixing=0.0, ema_halflife_images=None,
    )  # fmt: skip


def _torch_stylegan2() -> torch_networks.Pair:
    generator = torch_stylegan2.StyleGAN2Generator(32, 3, style_size=128, mapping_layers=2, latents=128, **_STYLE)
    return generator, torch_stylegan2.StyleGAN2Discriminator(32, 3, **_STYLE)


def _mlp(
    shape: tuple[int, ...], generator: Sequence[int], discriminator: Sequence[int], latents: int, dtype: str
) -> Game:
    made = nets.MLPGenerator(shape, tuple(generator), bounded=len(shape) == 3, dtype=dtype)
    critic = nets.MLPDiscriminator(tuple(discriminator), dtype=dtype)
    return gans.vanilla(nets.from_linen(made), nets.from_linen(critic), core.normal(latents))


CASES = {
    "dcgan": Case(_dcgan, torch_networks.dcgan, (32, 32, 3), 64, 100, 1, (0.5, 0.999), _SOFTPLUS),
    "sngan": Case(
        _sngan, functools.partial(torch_networks.resnet, generator_width=128, discriminator_width=64),
        (32, 32, 3), 64, 128, 5, (0.0, 0.9), _HINGE, 2,
    ),
    "stylegan2": Case(
        _stylegan2, _torch_stylegan2, (32, 32, 3), 32, 128, 1, (0.0, 0.99), _SOFTPLUS, 16, r1=(0.1, 16)
    ),
    "ring": Case(
        functools.partial(_mlp, (2,), _RING, _RING, 2),
        functools.partial(
            torch_networks.mlp, (2,), latents=2, generator=_RING, discriminator=_RING, bounded=False
        ),
        (2,), 256, 2, 1, (0.5, 0.999), _SOFTPLUS, 500, ("eager", "compiled"),
    ),
    "wide_mlp": Case(
        functools.partial(_mlp, (128, 128, 3), _WIDE, (512, 256), 100),
        functools.partial(torch_networks.mlp, (3, 128, 128), latents=100, generator=_WIDE, discriminator=(512, 256)),
        (128, 128, 3), 128, 100, 1, (0.5, 0.999), _SOFTPLUS, 2, ("eager", "compiled", "keras"),
    ),
}  # fmt: skip


def ours(case: Case) -> tuple[Callable[[], None], float]:
    """Returns a function that runs `case.length` iterations of our program, and the operations of one iteration."""
    game = case.game(_DTYPE.value)
    run, compiled = program(case, game, case.length)
    flops = _operations(compiled)
    lazy = [phase for phase in game.phases if phase.every > 1]
    if lazy:  # XLA counts the lazy phases as if they ran in every iteration
        _, often = program(case, game._replace(phases=tuple(phase for phase in game.phases if phase.every == 1)), 1)
        [every] = {phase.every for phase in lazy}
        flops = _operations(often) + (flops - _operations(often)) / every
    return run, flops


def _operations(compiled: jax.stages.Compiled) -> float:
    return float((compiled.cost_analysis() or {})["flops"])  # XLA counts the body of the scan once, not `length` times


def program(case: Case, game: Game, length: int) -> tuple[Callable[[], None], jax.stages.Compiled]:
    """Compiles a scan of `length` iterations.

    Returns:
      A function that runs the scan, each time from the state where it last stopped; and the compiled scan.
    """
    draws = core.batches_per_iteration(game)
    real = jax.random.uniform(jax.random.key(0), (draws, case.batch, *case.shape), minval=-1.0)
    state = jax.jit(game.init)(jax.random.key(0), {"real": real[0]})
    step = core.make_step(game)
    accumulator = core.empty_accumulator(step, state, {"real": real})
    scan = core.make_scan(step, lambda data, inputs, step: {"real": data}, length)
    inputs = jnp.zeros(length)
    compiled = jax.jit(scan, donate_argnums=0).lower(state, accumulator, (real, {}), inputs).compile()
    box = [state]

    def run() -> None:
        box[0], out = compiled(box[0], accumulator, (real, {}), inputs)
        jax.block_until_ready((box[0], out))

    return run, compiled


def theirs(case: Case, mode: str) -> Callable[[], None]:
    """Returns a function that runs PyTorch iterations: one, or with lazy R1 a whole interval with its lazy update."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    generator, discriminator = (network.to(device) for network in case.twins())
    real_shape = case.shape if len(case.shape) == 1 else (case.shape[-1], *case.shape[:-1])
    real = torch.rand(case.batch, *real_shape, device=device) * 2 - 1
    if mode == "channels_last":
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

    def penalty() -> torch.Tensor:
        gamma, every = case.r1 or (0.0, 1)
        x = real.detach().requires_grad_()
        (slope,) = torch.autograd.grad(discriminator(x).sum(), x, create_graph=True)
        return slope.square().sum((1, 2, 3)).mean() * (gamma / 2 * every)

    if mode == "compiled":
        critic_loss, generator_loss = torch.compile(critic_loss), torch.compile(generator_loss)

    def update(player: int, loss: Callable[[], torch.Tensor]) -> None:
        optimizers[player].zero_grad(set_to_none=True)
        with _autocast(device):
            value = loss()
        value.backward()
        optimizers[player].step()

    def run() -> None:
        for _ in range(case.r1[1] if case.r1 else 1):
            for _ in range(case.critic_steps):
                update(1, critic_loss)
            discriminator.requires_grad_(False)
            update(0, generator_loss)
            discriminator.requires_grad_(True)
        if case.r1:
            update(1, penalty)
        if device == "cuda":
            torch.cuda.synchronize()

    return run


def _autocast(device: str) -> contextlib.AbstractContextManager[Any]:
    return torch.autocast(device, torch.bfloat16, enabled=_DTYPE.value == "bfloat16")


class _NoModules(contextlib.nullcontext[None]):
    """A module tracker that tracks nothing: PyTorch's own uses hooks, which fail if an input needs no gradient."""

    parents = ("Global",)


def measure(name: str, case: Case, ceiling: dict[str, float]) -> list[Any]:
    """Times one case, records the result, and returns its row of the table."""
    run, flops = ours(case)
    contenders = {"gan_jax": run}
    for mode in case.modes:
        if mode == "keras":
            from benchmarks import keras_tutorial  # noqa: PLC0415 - imports TensorFlow, which only this case needs

            contenders[mode] = keras_tutorial.loop(_WIDE, case.shape, case.latents, case.batch)
        else:
            contenders[mode] = theirs(case, mode)
    counter: Any = FlopCounterMode(display=False)
    counter.mod_tracker = _NoModules()
    with counter:
        contenders["eager"]()
    direct = counter.get_total_flops() / (case.r1[1] if case.r1 else 1)
    taken = in_turn(contenders, rounds=_ROUNDS.value, seconds=_SECONDS.value)
    taken["gan_jax"] = [x / case.length for x in taken["gan_jax"]]
    if case.r1:
        taken |= {mode: [x / case.r1[1] for x in taken[mode]] for mode in case.modes}
    times = milliseconds(taken)
    fastest = min({*case.modes} - {"keras"}, key=lambda mode: times[mode]["median"])
    floor = flops / ceiling["matmul_gflops"] / 1e6
    utilisation = floor / times["gan_jax"]["median"]
    ratios = {mode: ratio(taken, mode, "gan_jax") for mode in case.modes}
    line = {"case": name, "milliseconds": times, "fastest": fastest, "ratios": ratios, "gflop": flops / 1e9}
    line |= {"direct_gflop": direct / 1e9, "direct_floor_ms": direct / ceiling["matmul_gflops"] / 1e6}
    more = {"floor_ms": floor, "utilisation": utilisation, "rates": ceiling, "dtype": _DTYPE.value, "tf32": _TF32.value}
    record("steps", line | more, torch=torch.__version__)
    others = ", ".join(f"{mode} {times[mode]['median']:.3g} ({value:.2f})" for mode, value in ratios.items())
    return [name, times["gan_jax"]["median"], others, floor, line["direct_floor_ms"], f"{utilisation:.0%}"]


def main(argv: Sequence[str]) -> None:
    """Runs the benchmark."""
    del argv
    unknown = set(_ONLY.value) - set(CASES)
    if unknown:
        raise SystemExit(f"--only={','.join(sorted(unknown))}: expected some of {', '.join(CASES)}")
    precision = "tensorfloat32" if _TF32.value else "highest"
    if jax.default_backend() == "gpu":
        jax.config.update("jax_default_matmul_precision", precision if _DTYPE.value == "float32" else "default")
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = _TF32.value
    ceiling = rates(dtype=_DTYPE.value)
    print(", ".join(f"{name} {value:.0f}" for name, value in ceiling.items()), flush=True)
    rows: list[list[Any]] = [
        ["case", "gan_jax, ms", "others, ms (times as long)", "floor, ms", "direct, ms", "of the matmul rate"]
    ]
    for name in _ONLY.value or CASES:
        rows.append(measure(name, CASES[name], ceiling))
        print(" ".join(f"{x:.3g}" if isinstance(x, float) else str(x) for x in rows[-1]), flush=True)
    print(table(rows))


if __name__ == "__main__":
    app.run(main)
