"""pix2pix and CycleGAN in PyTorch: the library's networks of image translation, and the losses of the authors' loops.

Networks have the names of modules and parameters that `torch_networks.copy_weights` expects. The losses follow the
authors' code (junyanz/pytorch-CycleGAN-and-pix2pix): fakes are made once in an iteration, and both players use them.
"""

import random
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional


class Player(NamedTuple):
    """One player of a translation game.

    Attributes:
      module: its networks.
      loss: loss of the player; of the second player, after the first one's update.
    """

    module: nn.Module
    loss: Callable[[], Tensor]


class UNet(nn.Module):
    """`nets.UNet(norm="instance")`."""

    def __init__(self, inputs: int, channels: int, levels: int, width: int) -> None:
        super().__init__()
        self.levels = levels
        widths = [width * min(2**level, 8) for level in range(levels)]
        for level, out in enumerate(widths):
            self.add_module(f"down_{level}", nn.Conv2d(widths[level - 1] if level else inputs, out, 4, 2, 1))
        for level in range(1, levels):
            joined = 1 if level == levels - 1 else 2
            self.add_module(f"up_{level}", nn.ConvTranspose2d(joined * widths[level], widths[level - 1], 4, 2, 1))
        self.image = nn.ConvTranspose2d(2 * width, channels, 4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        skips: list[Tensor] = []
        for level in range(self.levels):
            x = self.get_submodule(f"down_{level}")(functional.leaky_relu(x, 0.2) if level else x)
            x = functional.instance_norm(x) if 0 < level < self.levels - 1 else x
            skips.append(x)
        for level in reversed(range(1, self.levels)):
            x = functional.instance_norm(self.get_submodule(f"up_{level}")(functional.relu(x)))
            x = functional.dropout(x, 0.5, self.training) if 4 <= level < self.levels - 1 else x
            x = torch.cat([skips[level - 1], x], 1)
        return torch.tanh(self.image(functional.relu(x)))


class ResNet(nn.Module):
    """`nets.TranslationResNet`, with instance norm and two downsamplings."""

    def __init__(self, channels: int, width: int, blocks: int) -> None:
        super().__init__()
        self.blocks = blocks
        self.first = nn.Conv2d(channels, width, 7)
        self.down_0, self.down_1 = (nn.Conv2d(width << i, width << (i + 1), 3, 2, 1) for i in range(2))
        for index in range(blocks):
            for part in (0, 1):
                self.add_module(f"block_{index}_{part}", nn.Conv2d(4 * width, 4 * width, 3))
        self.up_0, self.up_1 = (nn.ConvTranspose2d(width << (i + 1), width << i, 3, 2, 1, 1) for i in range(2))
        self.image = nn.Conv2d(width, channels, 7)

    def _block(self, x: Tensor, index: int) -> Tensor:
        y = functional.pad(x, (1,) * 4, "reflect")
        y = functional.relu(functional.instance_norm(self.get_submodule(f"block_{index}_0")(y)))
        y = functional.pad(y, (1,) * 4, "reflect")
        return x + functional.instance_norm(self.get_submodule(f"block_{index}_1")(y))

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(functional.instance_norm(self.first(functional.pad(x, (3,) * 4, "reflect"))))
        for layer in (self.down_0, self.down_1):
            x = functional.relu(functional.instance_norm(layer(x)))
        for index in range(self.blocks):
            x = self._block(x, index)
        for layer in (self.up_1, self.up_0):
            x = functional.relu(functional.instance_norm(layer(x)))
        return torch.tanh(self.image(functional.pad(x, (3,) * 4, "reflect")))


class Patches(nn.Module):
    """`nets.PatchDiscriminator(norm="instance")`, of an image or of a source and an image joined."""

    def __init__(self, inputs: int, width: int, depth: int) -> None:
        super().__init__()
        self.depth = depth
        widths = [inputs, *(width * min(2**level, 8) for level in range(depth + 1))]
        for level in range(depth + 1):
            stride = 2 if level < depth else 1
            self.add_module(f"conv_{level}", nn.Conv2d(widths[level], widths[level + 1], 4, stride, 1))
        self.logit = nn.Conv2d(widths[-1], 1, 4, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        for level in range(self.depth + 1):
            x = self.get_submodule(f"conv_{level}")(x)
            x = functional.leaky_relu(functional.instance_norm(x) if level else x, 0.2)
        return self.logit(x)[:, 0]


class Twice(nn.Module):
    """Two networks of CycleGAN: one for each domain."""

    def __init__(self, make: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.a, self.b = make(), make()


def normal(module: nn.Module) -> nn.Module:
    """Draws the kernels from N(0, 0.02^2) and sets the biases to 0, as the authors do."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(layer.weight, std=0.02)
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)
    return module


def frozen(module: nn.Module, function: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """Returns the function with the module's parameters taken as constants, as the authors' `set_requires_grad`."""

    def run() -> Tensor:
        module.requires_grad_(False)
        try:
            return function()
        finally:
            module.requires_grad_(True)

    return run


def pix2pix(a: Tensor, b: Tensor, compiled: Callable[[Any], Any]) -> list[Player]:
    """Makes the players of pix2pix at 64 pixels, in their order.

    Args:
      a: sources.
      b: targets.
      compiled: applied to both networks: `torch.compile`, or the identity.

    Returns:
      The discriminator, and then the generator, which uses the fakes that the discriminator's loss has made.
    """
    generator, critic = normal(UNet(a.shape[1], b.shape[1], 6, 64)), normal(Patches(a.shape[1] + b.shape[1], 64, 3))
    translate, judge = compiled(generator), compiled(critic)
    made: dict[str, Tensor] = {}

    def critic_loss() -> Tensor:
        made["b"] = translate(a)
        real, fake = judge(torch.cat([a, b], 1)), judge(torch.cat([a, made["b"].detach()], 1))
        return functional.softplus(-real).mean() + functional.softplus(fake).mean()

    def generator_loss() -> Tensor:
        fake = judge(torch.cat([a, made["b"]], 1))
        return functional.softplus(-fake).mean() + 100.0 * functional.l1_loss(made["b"], b)

    return [Player(critic, critic_loss), Player(generator, frozen(critic, generator_loss))]


class ImagePool:
    """Up to 50 earlier fakes: half of the time, one of them is returned and replaced by the new one."""

    def __init__(self, size: int = 50) -> None:
        self.size, self.images = size, list[Tensor]()

    def query(self, images: Tensor) -> Tensor:
        returned = []
        for image in images.detach().split(1):
            if len(self.images) < self.size:
                self.images.append(image)
            elif random.random() < 0.5:
                place = random.randrange(self.size)
                image, self.images[place] = self.images[place], image
            returned.append(image)
        return torch.cat(returned)


def cyclegan(a: Tensor, b: Tensor, compiled: Callable[[Any], Any]) -> list[Player]:
    """Makes the players of CycleGAN at 64 pixels: both generators, and then both discriminators. See `pix2pix`."""
    generators = normal(Twice(lambda: ResNet(3, 64, 6)))
    critics = normal(Twice(lambda: Patches(3, 64, 3)))
    to_a, to_b, judge_a, judge_b = map(compiled, (generators.a, generators.b, critics.a, critics.b))
    pools, made = {"a": ImagePool(), "b": ImagePool()}, dict[str, Tensor]()

    def generator_loss() -> Tensor:
        made["a"], made["b"] = to_a(b), to_b(a)
        loss = ((judge_a(made["a"]) - 1) ** 2).mean() + ((judge_b(made["b"]) - 1) ** 2).mean()
        loss = loss + 10 * (functional.l1_loss(to_a(made["b"]), a) + functional.l1_loss(to_b(made["a"]), b))
        return loss + 5 * (functional.l1_loss(to_b(b), b) + functional.l1_loss(to_a(a), a))

    def critic_loss() -> Tensor:
        found = []
        for name, judge, real in (("a", judge_a, a), ("b", judge_b, b)):
            fake = pools[name].query(made[name])
            found.append((((judge(real) - 1) ** 2).mean() + (judge(fake) ** 2).mean()) / 2)
        return found[0] + found[1]

    return [Player(generators, frozen(critics, generator_loss)), Player(critics, critic_loss)]
