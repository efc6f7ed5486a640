"""StyleGAN2's networks in PyTorch, for comparisons; the same arguments give the same sizes as in `gan_jax.nets`.

The code uses plain `torch.nn.functional`, without custom extensions. Modulated convolutions have two forms: with a
separate kernel for each example (`fused`, a grouped convolution, which the authors' code uses in evaluation), or with
scaled inputs and outputs (which the authors' code uses in training, and `gan_jax` always). The filter (1, 3, 3, 1) is a
depthwise convolution. Images are `[b, c, h, w]`.

python -m benchmarks.torch_stylegan2     copies weights from JAX and compares the outputs
"""

import math
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the name that PyTorch's own documentation uses
from torch import Tensor, nn

from gan_jax import nets
from gan_jax.nets.stylegan2 import levels, style_layers


def upfirdn(x: Tensor, *, up: int = 1, down: int = 1, padding: tuple[int, int] = (0, 0), gain: float = 1.0) -> Tensor:
    """Upsamples with zeros, pads, filters with (1, 3, 3, 1) of sum `gain` per axis, and keeps each `down`-th pixel."""
    b, c, h, w = x.shape
    if up > 1:
        x = F.pad(x.reshape(b, c, h, 1, w, 1), (0, up - 1, 0, 0, 0, up - 1)).reshape(b, c, h * up, w * up)
    x = F.pad(x, padding * 2)
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0], dtype=x.dtype, device=x.device) * (gain / 8)
    kernel = torch.outer(taps, taps).expand(c, 1, 4, 4)
    return F.conv2d(x, kernel, stride=down, groups=c)


def activate(x: Tensor) -> Tensor:
    """Applies the leaky ReLU times sqrt(2)."""
    return F.leaky_relu(x, 0.2) * math.sqrt(2)


def normalize(x: Tensor) -> Tensor:
    """Scales each example to mean square 1."""
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-8)


class EqualDense(nn.Module):
    """The counterpart of `gan_jax.nets.stylegan2.EqualDense`."""

    def __init__(self, inputs: int, features: int, bias: float = 0.0, lr_multiplier: float = 1.0) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(features, inputs) / lr_multiplier)
        self.bias = nn.Parameter(torch.full((features,), bias / lr_multiplier))
        self.lr_multiplier, self.scale = lr_multiplier, lr_multiplier / math.sqrt(inputs)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.kernel * self.scale, self.bias * self.lr_multiplier)


class EqualConv(nn.Module):
    """The counterpart of `gan_jax.nets.stylegan2.EqualConv`."""

    def __init__(self, inputs: int, features: int, size: int, *, down: bool = False, bias: bool = True) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(features, inputs, size, size))
        self.bias = nn.Parameter(torch.zeros(features)) if bias else None
        self.size, self.down, self.scale = size, down, 1 / math.sqrt(inputs * size**2)

    def forward(self, x: Tensor) -> Tensor:
        kernel, half = self.kernel * self.scale, self.size // 2
        if not self.down:
            return F.conv2d(x, kernel, self.bias, padding=half)
        if self.size == 1:
            return F.conv2d(upfirdn(x, down=2, padding=(1, 1)), kernel, self.bias)
        return F.conv2d(upfirdn(x, padding=(half + 1, half + 1)), kernel, self.bias, stride=2)


def modulated_conv(
    x: Tensor, kernel: Tensor, style: Tensor, *, up: bool = False, demodulate: bool = True, fused: bool = False
) -> Tensor:
    """Computes `gan_jax.nets.stylegan2.modulated_conv`; `kernel` is `[out, in, k, k]`."""
    b, size, factors = x.shape[0], kernel.shape[-1], None
    if fused:
        kernels = kernel * style[:, None, :, None, None]
        if demodulate:
            kernels = kernels * torch.rsqrt(kernels.square().sum((2, 3, 4), keepdim=True) + 1e-8)
        x, groups = x.reshape(1, -1, *x.shape[2:]), b
        kernel = kernels.transpose(1, 2).flatten(0, 1) if up else kernels.flatten(0, 1)
    else:
        if demodulate:
            factors = torch.rsqrt(style.square() @ kernel.square().sum((2, 3)).T + 1e-8)
        x, groups, kernel = x * style[:, :, None, None], 1, kernel.transpose(0, 1) if up else kernel
    if up:
        x = F.conv_transpose2d(x, kernel, stride=2, groups=groups)
        x = upfirdn(x, padding=((5 - size) // 2,) * 2, gain=2)
    else:
        x = F.conv2d(x, kernel, padding=size // 2, groups=groups)
    x = x.reshape(b, -1, *x.shape[2:])
    return x if factors is None else x * factors[:, :, None, None]


class StyledConv(nn.Module):
    """The counterpart of `gan_jax.nets.stylegan2.StyledConv`; it adds noise in training mode only."""

    def __init__(self, inputs: int, features: int, style_size: int, *, up: bool = False, fused: bool) -> None:
        super().__init__()
        self.style = EqualDense(style_size, inputs, bias=1.0)
        self.kernel = nn.Parameter(torch.randn(features, inputs, 3, 3))
        self.noise_strength = nn.Parameter(torch.zeros(()))
        self.bias = nn.Parameter(torch.zeros(features))
        self.up, self.fused, self.scale = up, fused, 1 / math.sqrt(9 * inputs)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        x = modulated_conv(x, self.kernel * self.scale, self.style(w), up=self.up, fused=self.fused)
        if self.training:
            x = x + self.noise_strength * torch.randn(x.shape[0], 1, *x.shape[2:], device=x.device, dtype=x.dtype)
        return activate(x + self.bias[:, None, None])


class ToImage(nn.Module):
    """The counterpart of `gan_jax.nets.stylegan2.ToImage`."""

    def __init__(self, inputs: int, channels: int, style_size: int, *, fused: bool) -> None:
        super().__init__()
        self.style = EqualDense(style_size, inputs, bias=1.0)
        self.kernel = nn.Parameter(torch.randn(channels, inputs, 1, 1))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.fused, self.scale = fused, 1 / math.sqrt(inputs)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        x = modulated_conv(x, self.kernel * self.scale, self.style(w), demodulate=False, fused=self.fused)
        return x + self.bias[:, None, None]


class LabelEmbedding(nn.Module):
    """The counterpart of `gan_jax.nets.stylegan2.LabelEmbedding`."""

    def __init__(self, num_classes: int, features: int) -> None:
        super().__init__()
        self.embed, self.num_classes = EqualDense(num_classes, features), num_classes

    def forward(self, label: Tensor) -> Tensor:
        return normalize(self.embed(F.one_hot(label, self.num_classes).to(self.embed.kernel.dtype)))


class MappingLayers(nn.Module):
    """The counterpart of `gan_jax.nets.stylegan2.MappingLayers`."""

    def __init__(self, inputs: int, features: int, depth: int) -> None:
        super().__init__()
        for index in range(depth):
            layer = EqualDense(inputs if index == 0 else features, features, lr_multiplier=0.01)
            self.add_module(f"layer_{index}", layer)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.children():
            x = activate(layer(x))
        return x


class StyleGAN2Mapping(nn.Module):
    """The counterpart of `gan_jax.nets.stylegan2.StyleGAN2Mapping`."""

    def __init__(
        self, num_layers: int, latents: int, style_size: int = 512, depth: int = 8, num_classes: int | None = None
    ) -> None:
        super().__init__()
        self.label = None if num_classes is None else LabelEmbedding(num_classes, style_size)
        self.dense = MappingLayers(latents + (0 if num_classes is None else style_size), style_size, depth)
        self.num_layers = num_layers

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        x = normalize(z)
        if self.label is not None:
            x = torch.cat([x, self.label(label)], dim=1)
        return self.dense(x)[:, None].expand(-1, self.num_layers, -1)


def _feature_maps(fmap_base: int, fmap_max: int, image_size: int) -> dict[int, int]:
    return {4 << level: min(fmap_base // (4 << level), fmap_max) for level in range(levels(image_size) + 1)}


class StyleGAN2Synthesis(nn.Module):
    """The counterpart of `gan_jax.nets.stylegan2.StyleGAN2Synthesis`."""

    def __init__(
        self, image_size: int, channels: int, fmap_base: int = 32768, fmap_max: int = 512, style_size: int = 512,
        *, fused: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        features = _feature_maps(fmap_base, fmap_max, image_size)
        self.constant = nn.Parameter(torch.randn(features[4], 4, 4))
        self.image_size = image_size
        for size, maps in features.items():
            if size > 4:
                up = StyledConv(features[size // 2], maps, style_size, up=True, fused=fused)
                self.add_module(f"up_{size}", up)
            self.add_module(f"conv_{size}", StyledConv(maps, maps, style_size, fused=fused))
            self.add_module(f"image_{size}", ToImage(maps, channels, style_size, fused=fused))

    def forward(self, w: Tensor) -> Tensor:
        layer = self.get_submodule
        x = self.constant.expand(w.shape[0], -1, -1, -1)
        x = layer("conv_4")(x, w[:, 0])
        image = layer("image_4")(x, w[:, 1])
        for level in range(1, levels(self.image_size) + 1):
            size, at = 4 << level, 2 * level
            x = layer(f"up_{size}")(x, w[:, at - 1])
            x = layer(f"conv_{size}")(x, w[:, at])
            image = upfirdn(image, up=2, padding=(2, 1), gain=2) + layer(f"image_{size}")(x, w[:, at + 1])
        return image


class StyleGAN2Generator(nn.Module):
    """The counterpart of `gan_jax.nets.StyleGAN2Generator`.

    Additional arguments: `latents` is the length of z, and `fused` selects the form of the modulated convolutions.
    """

    def __init__(
        self, image_size: int, channels: int, fmap_base: int = 32768, fmap_max: int = 512, style_size: int = 512,
        mapping_layers: int = 8, num_classes: int | None = None, *, latents: int = 512, fused: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        count = style_layers(image_size)
        self.mapping = StyleGAN2Mapping(count, latents, style_size, mapping_layers, num_classes)
        self.synthesis = StyleGAN2Synthesis(image_size, channels, fmap_base, fmap_max, style_size, fused=fused)

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        return self.synthesis(self.mapping(z, label))


def minibatch_stddev(x: Tensor, group_size: int) -> Tensor:
    """Computes `gan_jax.nets.stylegan2.minibatch_stddev`."""
    b, c, h, w = x.shape
    group = min(group_size, b)
    std = (x.reshape(b // group, group, c, h, w).var(1, unbiased=False) + 1e-8).sqrt()
    varied = std.mean((1, 2, 3)).repeat_interleave(group)[:, None, None, None]
    return torch.cat([x, varied.expand(b, 1, h, w)], dim=1)


class StyleGAN2Discriminator(nn.Module):
    """The counterpart of `gan_jax.nets.StyleGAN2Discriminator`; the images' size and channels are further arguments."""

    def __init__(
        self, image_size: int, channels: int, fmap_base: int = 32768, fmap_max: int = 512, group_size: int = 4,
        residual: bool = True, num_classes: int | None = None, mapping_layers: int = 8,
    ) -> None:  # fmt: skip
        super().__init__()
        features = _feature_maps(fmap_base, fmap_max, image_size)
        self.image_size, self.group_size, self.residual = image_size, group_size, residual
        self.image = EqualConv(channels, features[image_size], 1)
        for size, maps in list(features.items())[1:]:
            self.add_module(f"conv_{size}", EqualConv(maps, maps, 3))
            self.add_module(f"down_{size}", EqualConv(maps, features[size // 2], 3, down=True))
            if residual:
                self.add_module(f"skip_{size}", EqualConv(maps, features[size // 2], 1, down=True, bias=False))
        last = features[4]
        self.conv_4 = EqualConv(last + 1, last, 3)
        self.dense = EqualDense(16 * last, last)
        self.logit = EqualDense(last, 1 if num_classes is None else last)
        self.label = None if num_classes is None else LabelEmbedding(num_classes, last)
        self.mapping = None if num_classes is None else MappingLayers(last, last, mapping_layers)

    def forward(self, x: Tensor, label: Tensor | None = None) -> Tensor:
        layer = self.get_submodule
        x = activate(self.image(x))
        for level in reversed(range(1, levels(self.image_size) + 1)):
            size = 4 << level
            y = activate(layer(f"down_{size}")(activate(layer(f"conv_{size}")(x))))
            x = (y + layer(f"skip_{size}")(x)) * math.sqrt(0.5) if self.residual else y
        x = activate(self.conv_4(minibatch_stddev(x, self.group_size)))
        x = activate(self.dense(x.permute(0, 2, 3, 1).flatten(1)))  # flattened as (h, w, c), as in JAX
        x = self.logit(x)
        if self.label is None or self.mapping is None:
            return x[:, 0]
        return (x * self.mapping(self.label(label))).sum(1) / math.sqrt(x.shape[1])


# The comparison with the JAX networks.


def copy_params(params: Mapping[str, Any], module: nn.Module) -> None:
    """Copies the parameters of a JAX network to its PyTorch counterpart, which uses the same names."""

    def flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, np.ndarray]]:
        for name, value in tree.items():
            if isinstance(value, Mapping):
                yield from flat(value, f"{prefix}{name}.")
            else:
                yield prefix + name, np.asarray(value)

    orders = {4: (3, 2, 0, 1), 3: (2, 0, 1), 2: (1, 0)}
    values = {
        name: torch.from_numpy(np.array(x.transpose(orders[x.ndim]) if x.ndim > 1 else x)) for name, x in flat(params)
    }
    module.load_state_dict(values)


def _error(ours: Any, theirs: Any) -> float:
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    return float(np.linalg.norm(ours - theirs) / np.linalg.norm(ours))


def _moved(params: Any, seed: int) -> Any:
    """Adds noise of a tenth of each array's standard deviation, at least 0.1, to parameters, so that no bias is 0."""
    leaves, structure = jax.tree.flatten(params)
    rng = np.random.default_rng(seed)
    moved = [
        np.asarray(x) + 0.1 * max(1.0, float(np.std(x))) * rng.normal(size=x.shape).astype(np.float32) for x in leaves
    ]
    return jax.tree.unflatten(structure, moved)


def check_same_values(tolerance: float = 1e-4) -> dict[str, float]:
    """Compares generators, discriminators and the discriminators' gradients of both frameworks with the same weights.

    Args:
      tolerance: largest relative error: the norm of the difference over the norm of the JAX value.

    Returns:
      The relative errors by name.

    Raises:
      ValueError: if an error is above the tolerance.
    """
    errors: dict[str, float] = {}
    for size, classes, residual in ((32, None, True), (16, 5, False)):
        shared: dict[str, Any] = {"fmap_base": 512, "fmap_max": 24, "num_classes": classes}
        key, case = jax.random.key(size), f"{size}x{size}{'' if classes is None else ', conditional'}"
        jax_g = nets.from_linen(nets.StyleGAN2Generator(size, 3, style_size=20, mapping_layers=4, **shared))
        jax_d = nets.from_linen(nets.StyleGAN2Discriminator(residual=residual, **shared))
        z = jax.random.normal(key, (8, 12))
        label = () if classes is None else (jax.random.randint(key, (8,), 0, classes),)
        g_params = _moved(jax.jit(jax_g.init)(key, z, *label)[0], 1)
        images = jax.jit(lambda p, g=jax_g, z=z, y=label: g.apply(p, {}, z, *y, train=False)[0])(g_params)
        d_params = _moved(jax.jit(jax_d.init)(key, images, *label)[0], 2)

        def total(x: Any, p: Any, d: Any = jax_d, y: Any = label) -> Any:
            logits = d.apply(p, {}, x, *y, train=False)[0]
            return logits.sum(), logits

        gradient, logits = jax.jit(jax.grad(total, has_aux=True))(images, d_params)
        torch_label = [torch.from_numpy(np.array(x)).long() for x in label]
        torch_d = StyleGAN2Discriminator(size, 3, residual=residual, **shared).eval()
        copy_params(d_params, torch_d)
        x = torch.from_numpy(np.array(images.transpose(0, 3, 1, 2))).requires_grad_()
        torch_logits = torch_d(x, *torch_label)
        (torch_gradient,) = torch.autograd.grad(torch_logits.sum(), x)
        errors[f"discriminator {case}"] = _error(logits, torch_logits.detach())
        errors[f"discriminator's gradient {case}"] = _error(gradient.transpose(0, 3, 1, 2), torch_gradient)
        for fused in (False, True):
            options: dict[str, Any] = {"style_size": 20, "mapping_layers": 4, "latents": 12, "fused": fused}
            torch_g = StyleGAN2Generator(size, 3, **options, **shared).eval()
            copy_params(g_params, torch_g)
            with torch.no_grad():
                made = torch_g(torch.from_numpy(np.array(z)), *torch_label)
            name = f"generator {case}, {'grouped kernels' if fused else 'scaled images'}"
            errors[name] = _error(images.transpose(0, 3, 1, 2), made)
    wrong = {name: error for name, error in errors.items() if not error <= tolerance}
    if wrong:
        raise ValueError(f"errors above {tolerance}: {wrong}")
    return errors


if __name__ == "__main__":
    try:
        for label, value in check_same_values().items():
            print(f"{label}: relative error {value:.1e}")
    except ValueError as error:
        sys.exit(str(error))
