"""The games whose steps are timed, and our program of each, compiled for any batch size and precision.

`benchmarks.torch_steps` has the same in PyTorch. This module needs neither PyTorch nor flags.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gan_jax import core, gans, nets
from gan_jax.types import Game


class Case(NamedTuple):
    """A game in both frameworks.

    Attributes:
      game: makes the JAX game for a dtype, without an averaged generator, which the PyTorch loop does not have either.
      shape: shape of one sample, channels last.
      sources: shape of the source of a translation game; its batch has sources `'a'` and targets `'b'`.
      batch: batch size.
      latents: length of z.
      critic_steps: number of discriminator updates per iteration.
      betas: betas of both players' Adam.
      length: number of iterations in one dispatch.
      modes: PyTorch modes to time; `keras` adds the Keras loop.
      r1: gamma of R1, and the number of iterations between its lazy updates; None for no R1.
    """

    game: Callable[[str], Game]
    shape: tuple[int, ...]
    batch: int
    latents: int
    critic_steps: int
    betas: tuple[float, float]
    length: int = 10
    modes: tuple[str, ...] = ("eager", "channels_last", "compiled")
    r1: tuple[float, int] | None = None
    sources: tuple[int, ...] | None = None

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Returns the shapes of an example by the names of its arrays."""
        return {"real": self.shape} if self.sources is None else {"a": self.sources, "b": self.shape}


RING = (128, 128, 128)
WIDE = (512, 1024, 3328)  # 168 million parameters for 128x128 images, as in the first Keras tutorial's generator
STYLE: dict[str, Any] = {"fmap_base": 2048, "fmap_max": 128}


def _dcgan(dtype: str) -> Game:
    networks = nets.DCGANGenerator(32, 3, 64, dtype=dtype), nets.DCGANDiscriminator(64, dtype=dtype)
    made = [nets.from_linen(network) for network in networks]
    return gans.dcgan(made[0], made[1], core.normal(100), ema_halflife_images=None)


def _sngan(dtype: str) -> Game:
    networks = nets.ResNetGenerator(32, 3, 128, dtype=dtype), nets.ResNetDiscriminator(64, dtype=dtype)
    made = [nets.from_linen(network) for network in networks]
    return gans.sngan(made[0], made[1], core.normal(128))


def _stylegan2(dtype: str) -> Game:
    generator = nets.StyleGAN2Generator(32, 3, style_size=128, mapping_layers=2, dtype=dtype, **STYLE)
    networks = (*generator.parts(), nets.StyleGAN2Discriminator(dtype=dtype, **STYLE))
    made = [nets.from_linen(network) for network in networks]
    return gans.stylegan2(
        made[0], made[1], made[2], core.normal(128),
        r1_gamma=0.1, r1_every=16, path_length_weight=None, style_mixing=0.0, ema_halflife_images=None,
    )  # fmt: skip


def _mlp(
    shape: tuple[int, ...], generator: Sequence[int], discriminator: Sequence[int], latents: int, dtype: str
) -> Game:
    made = nets.MLPGenerator(shape, tuple(generator), bounded=len(shape) == 3, dtype=dtype)
    critic = nets.MLPDiscriminator(tuple(discriminator), dtype=dtype)
    return gans.vanilla(nets.from_linen(made), nets.from_linen(critic), core.normal(latents))


def _pix2pix(dtype: str) -> Game:
    """pix2pix with the paper's widths, which at 64 pixels has 6 levels; instance norm, as batches have 8 images."""
    networks = nets.UNet(3, 6, norm="instance", dtype=dtype), nets.PatchDiscriminator(norm="instance", dtype=dtype)
    made = [nets.from_linen(network) for network in networks]
    return gans.pix2pix(made[0], made[1])


def _cyclegan(dtype: str) -> Game:
    """CycleGAN with the paper's widths, and 6 blocks, as its authors have for images of up to 128 pixels."""
    networks = nets.TranslationResNet(3, 64, 6, dtype=dtype), nets.PatchDiscriminator(norm="instance", dtype=dtype)
    made = [nets.from_linen(network) for network in networks]
    return gans.cyclegan(made[0], made[1])


CASES = {
    "dcgan": Case(_dcgan, (32, 32, 3), 64, 100, 1, (0.5, 0.999)),
    "sngan": Case(_sngan, (32, 32, 3), 64, 128, 5, (0.0, 0.9), 2),
    "stylegan2": Case(_stylegan2, (32, 32, 3), 32, 128, 1, (0.0, 0.99), 16, r1=(0.1, 16)),
    "ring": Case(
        functools.partial(_mlp, (2,), RING, RING, 2), (2,), 256, 2, 1, (0.5, 0.999), 500, ("eager", "compiled")
    ),
    "wide_mlp": Case(
        functools.partial(_mlp, (128, 128, 3), WIDE, (512, 256), 100),
        (128, 128, 3), 128, 100, 1, (0.5, 0.999), 2, ("eager", "compiled", "keras"),
    ),
    "pix2pix": Case(_pix2pix, (64, 64, 3), 8, 0, 1, (0.5, 0.999), 4, sources=(64, 64, 1)),
    "cyclegan": Case(_cyclegan, (64, 64, 3), 1, 0, 1, (0.5, 0.999), 2, sources=(64, 64, 3)),
}  # fmt: skip


def ours(case: Case, dtype: str) -> tuple[Callable[[], None], float]:
    """Returns a function that runs `case.length` iterations of our program, and the operations of one iteration."""
    game = case.game(dtype)
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


def model_operations(case: Case, dtype: str, batch: int | None = None) -> float:
    """Counts the operations of one iteration as the networks define them, whatever a platform makes of them.

    XLA counts them in the program before compilation, as it is for GPUs: convolutions computed directly, without the
    products with padding. Its count of a compiled program would miss what a library of the platform computes. Each
    phase is counted alone, since XLA counts a loop's body once; a lazy one counts as often as it runs.
    """
    game, size = case.game(dtype), batch or case.batch
    one = {name: jax.ShapeDtypeStruct((size, *shape), jnp.float32) for name, shape in case.shapes().items()}
    batches = {name: jax.ShapeDtypeStruct((1, *x.shape), x.dtype) for name, x in one.items()}
    state = jax.eval_shape(game.init, jax.random.key(0), one)
    whole = 0.0
    for phase in game.phases:
        alone = game._replace(phases=(phase._replace(every=1, repeat=1, start=0, reuse_batch=False),))
        traced = jax.jit(core.make_step(alone)).trace(state, batches)
        costs: Any = traced.lower(lowering_platforms=("cuda",)).cost_analysis()
        whole += costs["flops"] * phase.repeat / phase.every
    return whole


def program(
    case: Case, game: Game, length: int, batch: int | None = None
) -> tuple[Callable[[], None], jax.stages.Compiled]:
    """Compiles a scan of `length` iterations.

    Returns:
      A function that runs the scan, each time from the state where it last stopped; and the compiled scan.
    """
    draws = core.batches_per_iteration(game)
    whole = (draws, batch or case.batch)
    batches = {
        name: jax.random.uniform(jax.random.key(seed), (*whole, *shape), minval=-1.0)
        for seed, (name, shape) in enumerate(case.shapes().items())
    }
    state = jax.jit(game.init)(jax.random.key(0), jax.tree.map(lambda x: x[0], batches))
    step = core.make_step(game)
    accumulator = core.empty_accumulator(step, state, batches)
    scan = core.make_scan(step, lambda data, inputs, step: data, length)
    inputs = jnp.zeros(length)
    compiled = jax.jit(scan, donate_argnums=0).lower(state, accumulator, (batches, {}), inputs).compile()
    box = [state]

    def run() -> None:
        box[0], out = compiled(box[0], accumulator, (batches, {}), inputs)
        jax.block_until_ready((box[0], out))

    return run, compiled
