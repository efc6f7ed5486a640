"""The library's networks in PyTorch, for speed comparisons, and a check that both compute the same values.

Each family is a function that takes the widths of the JAX networks and returns (generator, discriminator) as PyTorch
modules for NCHW images, with that family's initialisation. Modules and parameters have the same names as in the JAX
networks, so that `copy_weights` works for all of them. Needs PyTorch, which the library itself does not.

python -m benchmarks.torch_networks     copies weights and compares the outputs; a second or two per line
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax import traverse_util
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import spectral_norm

from benchmarks import torch_translation
from gan_jax import nets
from gan_jax.nets.dcgan import halvings
from gan_jax.nets.resnet import doublings

Pair = tuple[nn.Module, nn.Module]
TOLERANCE = 1e-4  # largest difference, relative to the largest output


def _layer(layer: Any, gain: float, spectral: bool) -> Any:
    """Initialises a layer with Xavier-uniform weights and zero biases, and adds spectral norm if requested."""
    nn.init.xavier_uniform_(layer.weight, gain)
    nn.init.zeros_(layer.bias)
    return spectral_norm(layer, eps=1e-12) if spectral else layer


def _conv(inputs: int, outputs: int, kernel_size: int, gain: float = 1.0, spectral: bool = False) -> Any:
    return _layer(nn.Conv2d(inputs, outputs, kernel_size, padding=kernel_size // 2), gain, spectral)


class _UpBlock(nn.Module):
    """A residual block that upsamples by 2.

    As in `nets.resnet`, the 1x1 shortcut comes before the upsampling: this gives equal values at a quarter of the cost.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm_0, self.norm_1 = nn.BatchNorm2d(width), nn.BatchNorm2d(width)
        self.conv_0, self.conv_1 = (_conv(width, width, 3, math.sqrt(2)) for _ in range(2))
        self.shortcut = _conv(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = functional.interpolate(functional.relu(self.norm_0(x)), scale_factor=2, mode="nearest")
        y = self.conv_1(functional.relu(self.norm_1(self.conv_0(y))))
        return y + functional.interpolate(self.shortcut(x), scale_factor=2, mode="nearest")


class _DownBlock(nn.Module):
    def __init__(self, inputs: int, width: int, *, first: bool, halve: bool, spectral: bool) -> None:
        super().__init__()
        self.first, self.halve = first, halve
        self.conv_0 = _conv(inputs, width, 3, math.sqrt(2), spectral)
        self.conv_1 = _conv(width, width, 3, math.sqrt(2), spectral)
        if halve:
            self.shortcut = _conv(inputs, width, 1, 1.0, spectral)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv_0(x if self.first else functional.relu(x))
        y = self.conv_1(functional.relu(y))
        if not self.halve:
            return x + y
        return functional.avg_pool2d(y, 2) + self.shortcut(functional.avg_pool2d(x, 2))


class _ResNetGenerator(nn.Module):
    def __init__(self, image_size: int, channels: int, latents: int, width: int) -> None:
        super().__init__()
        self.input = _layer(nn.Linear(latents, 16 * width), 1.0, False)
        self.blocks = [f"block_{index}" for index in range(doublings(image_size))]
        for name in self.blocks:
            self.add_module(name, _UpBlock(width))
        self.norm = nn.BatchNorm2d(width)
        self.output = _conv(width, channels, 3)

    def forward(self, z: Tensor) -> Tensor:
        x = self.input(z).view(z.shape[0], -1, 4, 4)
        for name in self.blocks:
            x = self.get_submodule(name)(x)
        return torch.tanh(self.output(functional.relu(self.norm(x))))


class _ResNetDiscriminator(nn.Module):
    def __init__(self, image_size: int, channels: int, width: int, spectral: bool) -> None:
        super().__init__()
        down = max(1, doublings(image_size) - 1)
        self.blocks = [f"block_{index}" for index in range(down + 2)]
        for index, name in enumerate(self.blocks):
            inputs, halve = width if index else channels, index < down
            self.add_module(name, _DownBlock(inputs, width, first=index == 0, halve=halve, spectral=spectral))
        self.logit = _layer(nn.Linear(width, 1), 1.0, spectral)

    def forward(self, x: Tensor) -> Tensor:
        for name in self.blocks:
            x = self.get_submodule(name)(x)
        return self.logit(functional.relu(x).sum((2, 3)))[:, 0]


def resnet(
    image_size: int = 32,
    channels: int = 3,
    *,
    latents: int = 128,
    generator_width: int = 256,
    discriminator_width: int = 128,
    spectral: bool = True,
) -> Pair:
    """Makes SNGAN's residual networks: `nets.ResNetGenerator` and `nets.ResNetDiscriminator` without labels.

    Args:
      image_size: height and width of the image: 8, 16, 32 or 64.
      channels: number of channels of the image.
      latents: length of z; the JAX generator takes it from its input.
      generator_width: feature maps of the generator's blocks.
      discriminator_width: feature maps of the discriminator's blocks.
      spectral: whether the discriminator's kernels are divided by their spectral norm, estimated with one power
        iteration per forward pass in training.

    Returns:
      The generator, from z `[b, latents]` to images `[b, channels, image_size, image_size]`, and the discriminator,
      from images to logits `[b]`.
    """
    return (
        _ResNetGenerator(image_size, channels, latents, generator_width),
        _ResNetDiscriminator(image_size, channels, discriminator_width, spectral),
    )


class _DCGANGenerator(nn.Module):
    def __init__(self, image_size: int, channels: int, latents: int, width: int) -> None:
        super().__init__()
        levels = halvings(image_size)
        self.levels, self.size = list(reversed(range(1, levels))), image_size >> levels
        features = width << (levels - 1)
        self.input = nn.Linear(latents, self.size**2 * features, bias=False)
        self.norm_input = nn.BatchNorm2d(features)
        for level in self.levels:
            up = nn.ConvTranspose2d(width << level, width << (level - 1), 4, 2, 1, bias=False)
            self.add_module(f"up_{level}", up)
            self.add_module(f"norm_{level}", nn.BatchNorm2d(width << (level - 1)))
        self.output = nn.ConvTranspose2d(width, channels, 4, 2, 1)
        _normal(self)

    def forward(self, z: Tensor) -> Tensor:
        x = functional.relu(self.norm_input(self.input(z).view(z.shape[0], -1, self.size, self.size)))
        for level in self.levels:
            x = functional.relu(self.get_submodule(f"norm_{level}")(self.get_submodule(f"up_{level}")(x)))
        return torch.tanh(self.output(x))


class _DCGANDiscriminator(nn.Module):
    def __init__(self, image_size: int, channels: int, width: int) -> None:
        super().__init__()
        self.levels = range(halvings(image_size))
        for level in self.levels:
            inputs = width << (level - 1) if level else channels
            self.add_module(f"down_{level}", nn.Conv2d(inputs, width << level, 4, 2, 1, bias=level == 0))
            self.add_module(f"norm_{level}", nn.BatchNorm2d(width << level) if level else nn.Identity())
        self.logit = nn.Linear((width << self.levels[-1]) * (image_size >> len(self.levels)) ** 2, 1)
        _normal(self)

    def forward(self, x: Tensor) -> Tensor:
        for level in self.levels:
            y = self.get_submodule(f"norm_{level}")(self.get_submodule(f"down_{level}")(x))
            x = functional.leaky_relu(y, 0.2)
        return self.logit(x.flatten(1))[:, 0]


def _normal(module: nn.Module) -> None:
    for layer in module.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(layer.weight, std=0.02)


def dcgan(image_size: int = 32, channels: int = 3, *, latents: int = 100, width: int = 64) -> Pair:
    """Makes DCGAN's networks: `nets.DCGANGenerator` and `nets.DCGANDiscriminator` with batch norm.

    Arguments and results are those of `resnet`.
    """
    return _DCGANGenerator(image_size, channels, latents, width), _DCGANDiscriminator(image_size, channels, width)


class _MLP(nn.Module):
    def __init__(self, inputs: int, features: Sequence[int], name: str, shape: Sequence[int], bounded: bool) -> None:
        super().__init__()
        self.shape, self.name, self.bounded = shape, name, bounded
        widths = [inputs, *features]
        self.hidden = [f"dense_{index}" for index in range(len(features))]
        for layer, before, after in zip(self.hidden, widths, widths[1:], strict=False):
            self.add_module(layer, nn.Linear(before, after))
        self.add_module(name, nn.Linear(widths[-1], math.prod(shape)))

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        for layer in self.hidden:
            x = functional.leaky_relu(self.get_submodule(layer)(x), 0.2)
        x = self.get_submodule(self.name)(x).view(-1, *self.shape)
        return torch.tanh(x) if self.bounded else x


def mlp(
    shape: Sequence[int], *, latents: int, generator: Sequence[int], discriminator: Sequence[int], bounded: bool = True
) -> Pair:
    """Makes multi-layer perceptrons: `nets.MLPGenerator` and `nets.MLPDiscriminator` for samples of a shape."""
    return (
        _MLP(latents, generator, "output", shape, bounded),
        _MLP(math.prod(shape), discriminator, "logit", (), False),
    )


_NAMES = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}


def copy_weights(module: nn.Module, params: Any, model_state: Any, maps: Mapping[str, tuple[int, ...]]) -> None:
    """Copies the parameters and batch statistics of a Linen network to the PyTorch module with the same names.

    Args:
      module: PyTorch module without spectral norm.
      params: parameters of the JAX network.
      model_state: state of the JAX network; its `batch_stats` are read.
      maps: shapes `(h, w, c)`, by the names of dense layers: the shape to which the layer's output is reshaped or, for
        the layer `logit`, the shape from which its input was flattened. PyTorch's order is `(c, h, w)`, so the layer's
        parameters are permuted.

    Raises:
      ValueError: if the networks do not have the same parameters.
    """
    found: dict[str, Tensor] = {}
    for tree in (params, model_state.get("batch_stats", {})):
        for (*path, kind), value in traverse_util.flatten_dict(tree).items():
            array, layer = np.asarray(value), ".".join(path)
            if layer == "logit" and layer in maps and kind == "kernel":
                array = np.moveaxis(array.reshape(*maps[layer], -1), 2, 0).reshape(array.shape)
            elif layer in maps and layer != "logit":
                array = array.reshape(*array.shape[:-1], *maps[layer])
                array = np.moveaxis(array, -1, -3).reshape(*array.shape[:-3], -1)
            if kind == "kernel":  # [kh, kw, in, out] or [in, out]
                transposed = isinstance(module.get_submodule(layer), nn.ConvTranspose2d)
                array = array.transpose((2, 3, 0, 1) if transposed else (3, 2, 0, 1)) if array.ndim == 4 else array.T
            found[f"{layer}.{_NAMES.get(kind, kind)}"] = torch.tensor(array)
    wanted = {name for name in module.state_dict() if not name.endswith("num_batches_tracked")}
    if wanted != set(found):
        raise ValueError(f"the networks differ in {sorted(wanted ^ set(found))}: expected the same parameters in both")
    module.load_state_dict(found, strict=False)


def difference(
    network: Any, module: nn.Module, inputs: np.ndarray, maps: Mapping[str, tuple[int, ...]]
) -> tuple[float, np.ndarray]:
    """Compares the outputs of both networks with equal weights.

    Biases, scales and batch statistics are randomised first, because several of them have no effect at their initial
    values.

    Args:
      network: Linen module.
      module: PyTorch module.
      inputs: inputs of the JAX network; images are transposed for PyTorch.
      maps: shapes for `copy_weights`.

    Returns:
      The largest difference relative to the largest output, and the JAX network's outputs.
    """
    made, rng = nets.from_linen(network), np.random.default_rng(0)

    def perturbed(x: Any) -> Any:
        return x + 0.1 * np.abs(rng.normal(size=x.shape)).astype(np.float32) if x.ndim == 1 else x

    params, model_state = jax.tree.map(perturbed, made.init(jax.random.key(0), jnp.asarray(inputs)))
    ours = np.asarray(made.apply(params, model_state, jnp.asarray(inputs), train=False)[0])
    copy_weights(module.eval(), params, model_state, maps)
    with torch.no_grad():
        theirs = module(torch.tensor(inputs.transpose(0, 3, 1, 2) if inputs.ndim == 4 else inputs)).numpy()
    theirs = theirs.transpose(0, 2, 3, 1) if theirs.ndim == 4 else theirs
    return float(np.abs(ours - theirs).max() / np.abs(ours).max()), ours


def check_same_values() -> None:
    """Compares all families with the library's networks, in evaluation mode without spectral norm; prints a line each.

    Raises:
      AssertionError: if outputs differ by more than `TOLERANCE`, relative to the largest output.
    """
    latents = np.random.default_rng(0).normal(size=(4, 128)).astype(np.float32)
    for size, channels, width, critic_width in ((8, 1, 8, 4), (16, 3, 8, 4), (64, 3, 8, 4), (32, 3, 256, 128)):
        generator, discriminator = resnet(
            size, channels, generator_width=width, discriminator_width=critic_width, spectral=False
        )
        apart, images = difference(
            nets.ResNetGenerator(size, channels, width), generator, latents, {"input": (4, 4, width)}
        )
        critic = nets.ResNetDiscriminator(critic_width, norm="none")
        critic_apart, _ = difference(critic, discriminator, images, {})
        print(f"resnet {size}x{size}x{channels}, widths {width} and {critic_width}: {apart:.1e} and {critic_apart:.1e}")
        assert max(apart, critic_apart) < TOLERANCE, f"more than {TOLERANCE} apart"

    for size, channels, width in ((28, 1, 8), (32, 3, 64)):
        smallest = size >> halvings(size)
        generator, discriminator = dcgan(size, channels, latents=128, width=width)
        features = width << (halvings(size) - 1)
        maps = {"input": (smallest, smallest, features), "logit": (smallest, smallest, features)}
        apart, images = difference(nets.DCGANGenerator(size, channels, width), generator, latents, maps)
        critic_apart, _ = difference(nets.DCGANDiscriminator(width), discriminator, images, maps)
        print(f"dcgan {size}x{size}x{channels}, width {width}: {apart:.1e} and {critic_apart:.1e}")
        assert max(apart, critic_apart) < TOLERANCE, f"more than {TOLERANCE} apart"
    images, masks = (np.random.default_rng(0).normal(size=(2, 64, 64, c)).astype(np.float32) for c in (3, 1))
    pairs = {
        "unet": (nets.UNet(3, 6, 4, norm="instance"), torch_translation.UNet(1, 3, 6, 4), masks),
        "translation resnet": (nets.TranslationResNet(3, 4, 2), torch_translation.ResNet(3, 4, 2), images),
        "patches": (nets.PatchDiscriminator(4, norm="instance"), torch_translation.Patches(3, 4, 3), images),
    }
    for name, (network, module, inputs) in pairs.items():
        apart, _ = difference(network, module, inputs, {})
        print(f"{name}: {apart:.1e}")
        assert apart < TOLERANCE, f"more than {TOLERANCE} apart"
    generator, discriminator = mlp((2,), latents=128, generator=(32, 16), discriminator=(16,), bounded=False)
    apart, samples = difference(nets.MLPGenerator((2,), (32, 16), bounded=False), generator, latents, {})
    critic_apart, _ = difference(nets.MLPDiscriminator((16,)), discriminator, samples, {})
    print(f"mlp: {apart:.1e} and {critic_apart:.1e}")
    assert max(apart, critic_apart) < TOLERANCE, f"more than {TOLERANCE} apart"


if __name__ == "__main__":
    check_same_values()
