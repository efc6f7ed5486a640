"""The training loops in PyTorch that `benchmarks.step_cases` is compared with: the same networks and updates.

It needs PyTorch, and no flags.
"""

import contextlib
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import torch_networks, torch_stylegan2, torch_translation
from benchmarks.step_cases import CASES, RING, STYLE, WIDE

Loss = Callable[[torch.Tensor], torch.Tensor]


class Twins(NamedTuple):
    """A case's networks and losses in PyTorch.

    Attributes:
      networks: makes the generator and the discriminator.
      losses: functions of logits: the discriminator's loss on reals, its loss on fakes, and the generator's loss.
    """

    networks: Callable[[], torch_networks.Pair]
    losses: tuple[Loss, Loss, Loss]


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


def _stylegan2() -> torch_networks.Pair:
    generator = torch_stylegan2.StyleGAN2Generator(32, 3, style_size=128, mapping_layers=2, latents=128, **STYLE)
    return generator, torch_stylegan2.StyleGAN2Discriminator(32, 3, **STYLE)


_mlp = torch_networks.mlp
TWINS = {
    "dcgan": Twins(torch_networks.dcgan, _SOFTPLUS),
    "sngan": Twins(
        functools.partial(torch_networks.resnet, generator_width=128, discriminator_width=64), _HINGE
    ),
    "stylegan2": Twins(_stylegan2, _SOFTPLUS),
    "ring": Twins(
        functools.partial(_mlp, (2,), latents=2, generator=RING, discriminator=RING, bounded=False), _SOFTPLUS
    ),
    "wide_mlp": Twins(
        functools.partial(_mlp, (3, 128, 128), latents=100, generator=WIDE, discriminator=(512, 256)), _SOFTPLUS
    ),
}  # fmt: skip


TRANSLATIONS = {"pix2pix": torch_translation.pix2pix, "cyclegan": torch_translation.cyclegan}


def _translation(name: str, mode: str, dtype: str, batch: int | None) -> Callable[[], None]:
    """Returns a function that runs one iteration of a translation game: an update of each player, in their order."""
    case = CASES[name]
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    images = [
        torch.rand(batch or case.batch, shape[-1], *shape[:-1], device=device) * 2 - 1
        for shape in case.shapes().values()
    ]
    form = torch.channels_last if mode.startswith("channels_last") else torch.contiguous_format
    images = [image.to(memory_format=form) for image in images]

    def ready(network: torch.nn.Module) -> Any:
        moved: Any = network.to(device)
        moved.to(memory_format=form)
        return torch.compile(network) if mode.endswith("compiled") else network

    players = TRANSLATIONS[name](images[0], images[1], ready)
    optimizers = [torch.optim.Adam(player.module.parameters(), 2e-4, case.betas) for player in players]

    def run() -> None:
        for player, optimizer in zip(players, optimizers, strict=True):
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast(device, torch.bfloat16, enabled=dtype == "bfloat16"):
                value = player.loss()
            value.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        if device == "cuda":
            torch.cuda.synchronize()

    return run


def theirs(name: str, mode: str, dtype: str, batch: int | None = None) -> Callable[[], None]:
    """Returns a function that runs PyTorch iterations: one, or with lazy R1 a whole interval with its lazy update.

    Args:
      name: name of the case.
      mode: `eager`, `channels_last`, `compiled`, or `channels_last_compiled` for both.
      dtype: `float32`, or `bfloat16` for automatic mixed precision.
      batch: batch size; that of the case by default.
    """
    if name in TRANSLATIONS:
        return _translation(name, mode, dtype, batch)
    case, twins = CASES[name], TWINS[name]
    size = batch or case.batch
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    generator, discriminator = (network.to(device) for network in twins.networks())
    real_shape = case.shape if len(case.shape) == 1 else (case.shape[-1], *case.shape[:-1])
    real = torch.rand(size, *real_shape, device=device) * 2 - 1
    if mode.startswith("channels_last"):
        generator, discriminator = (x.to(memory_format=torch.channels_last) for x in (generator, discriminator))
        real = real.to(memory_format=torch.channels_last)
    optimizers = [torch.optim.Adam(x.parameters(), 2e-4, case.betas) for x in (generator, discriminator)]
    of_real, of_fake, of_generator = twins.losses

    def critic_loss() -> torch.Tensor:
        with torch.no_grad():
            fake = generator(torch.randn(size, case.latents, device=device))
        return of_real(discriminator(real)).mean() + of_fake(discriminator(fake)).mean()

    def generator_loss() -> torch.Tensor:
        return of_generator(discriminator(generator(torch.randn(size, case.latents, device=device)))).mean()

    def penalty() -> torch.Tensor:
        gamma, every = case.r1 or (0.0, 1)
        x = real.detach().requires_grad_()
        (slope,) = torch.autograd.grad(discriminator(x).sum(), x, create_graph=True)
        return slope.square().sum((1, 2, 3)).mean() * (gamma / 2 * every)

    if mode.endswith("compiled"):
        critic_loss, generator_loss = torch.compile(critic_loss), torch.compile(generator_loss)

    def update(player: int, loss: Callable[[], torch.Tensor]) -> None:
        optimizers[player].zero_grad(set_to_none=True)
        with torch.autocast(device, torch.bfloat16, enabled=dtype == "bfloat16"):
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


class _NoModules(contextlib.nullcontext[None]):
    """A module tracker that tracks nothing: PyTorch's own uses hooks, which fail if an input needs no gradient."""

    parents = ("Global",)


def direct_operations(name: str, run: Callable[[], None]) -> float:
    """Counts the operations of one iteration of `run`, a loop of `theirs`, with convolutions computed directly."""
    counter: Any = FlopCounterMode(display=False)
    counter.mod_tracker = _NoModules()
    with counter:
        run()
    lazy = CASES[name].r1
    return counter.get_total_flops() / (lazy[1] if lazy else 1)
