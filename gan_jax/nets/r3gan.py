"""R3GAN's networks: residual blocks with grouped convolutions, no normalisation, Fix-up initialisation.

Huang et al., "The GAN is dead; long live the GAN! A Modern GAN Baseline", arXiv:2501.05441, 2025, configuration E, and
its authors' code.

A residual block has three convolutions: 1x1 to twice the width, 3x3 in groups, and 1x1 back to the width. The second
and the third are preceded by a bias and a leaky ReLU (slope 0.2); the convolutions have no bias of their own. The block
adds its input to the result.

Kernels are drawn from N(0, gain^2 / fan-in). In the first two convolutions of a block the gain is
sqrt(2 / 1.04) L^(-1/4), with L the number of blocks in the network. In the third it is 0, so that every block starts as
the identity. All other kernels have gain 1. The generator's output has no tanh.
"""

import math
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from gan_jax import ops
from gan_jax.nets import layers
from gan_jax.types import InvalidInputError, check_images

_EXPANSION = 2
_GAIN = math.sqrt(2.0 / 1.04)


class R3GANPreset(NamedTuple):
    """Sizes of both networks; there is one stage for each resolution from 4x4 pixels up.

    Attributes:
      widths: number of channels of each stage: at 4x4, 8x8, and so on.
      groups: number of groups of the 3x3 convolutions, for each stage.
      embedding: size of a label's embedding, in the generator and in the discriminator.
      bfloat16_stages: number of stages, counted from the finest, that the authors compute in half precision.
    """

    widths: tuple[int, ...]
    groups: tuple[int, ...]
    bfloat16_stages: int
    embedding: tuple[int, int] = (64, 768)


R3GAN_PRESETS = {
    "cifar10": R3GANPreset((768,) * 4, (96,) * 4, 3),
    "ffhq64": R3GANPreset((768,) * 4 + (384,), (96,) * 4 + (48,), 4),
    "ffhq256": R3GANPreset((768,) * 4 + (384, 192, 96), (96,) * 4 + (48, 24, 12), 4),
    "imagenet32": R3GANPreset((1536,) * 4, (96,) * 4, 3, (64, 1536)),
    "imagenet64": R3GANPreset((1536,) * 5, (96,) * 5, 4, (64, 1536)),
}
"""The paper's configurations by data set. All have two blocks in each stage, the default of the networks."""


def _normal(gain: float = 1.0, *, fan_in: int | None = None) -> layers.Initializer:
    """Returns an initialiser that draws from N(0, gain^2 / fan_in); None takes the fan-in from the kernel's shape."""

    def init(key: Array, shape: tuple[int, ...], dtype: layers.DType = jnp.float32) -> Array:
        inputs = math.prod(shape[:-1]) if fan_in is None else fan_in
        return gain / math.sqrt(inputs) * jax.random.normal(key, shape, dtype)

    return init


def _checked(widths: tuple[int, ...], groups: tuple[int, ...], blocks: int | tuple[int, ...]) -> tuple[int, ...]:
    """Checks the sizes of the stages; returns the number of blocks in each stage."""
    each = (blocks,) * len(widths) if isinstance(blocks, int) else tuple(blocks)
    good = len(widths) == len(groups) == len(each) > 0 and min(each) > 0
    if not good or any(n < 1 or (_EXPANSION * w) % n for w, n in zip(widths, groups, strict=False)):
        raise InvalidInputError(
            f"widths={widths}, groups={groups}, blocks={blocks}: expected one number of groups for each width, "
            "a divisor of twice the width, and at least one block in each stage"
        )
    return each


class _Block(nn.Module):
    """A residual block; `depth` is the number of blocks in the network, on which the initialisation depends."""

    groups: int
    depth: int
    dtype: layers.DType

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        width, wide = x.shape[-1], _EXPANSION * x.shape[-1]
        begin = _normal(_GAIN * self.depth**-0.25)

        def conv(
            x: Array, features: int, kernel_size: int, init: layers.Initializer, index: int, groups: int = 1
        ) -> Array:
            return layers.Conv(
                features, kernel_size, padding=kernel_size // 2, use_bias=False, dtype=self.dtype, kernel_init=init,
                groups=groups, name=f"conv_{index}",
            )(x)  # fmt: skip

        def activated(x: Array, index: int) -> Array:
            bias = self.param(f"bias_{index}", nn.initializers.zeros, (wide,), jnp.float32)
            return layers.leaky_relu(x + bias.astype(self.dtype))

        y = activated(conv(x, wide, 1, begin, 0), 0)
        y = activated(conv(y, wide, 3, begin, 1, self.groups), 1)
        return x.astype(self.dtype) + conv(y, width, 1, nn.initializers.zeros, 2)


def _mix(x: Array, features: int, dtype: layers.DType, name: str) -> Array:
    """Changes the width to `features` by a 1x1 convolution, left out if the width is the same (but not for `image`)."""
    if x.shape[-1] == features and name != "image":
        return x
    return layers.Conv(features, 1, use_bias=False, dtype=dtype, kernel_init=_normal(), name=name)(x)


def _dtypes(dtype: layers.DType, fine: int, stages: int) -> list[layers.DType]:
    """Returns the dtype of each stage from 4x4 up: `dtype` for the `fine` finest stages, float32 for the others."""
    return [dtype if stage >= stages - fine else jnp.float32 for stage in range(stages)]


class R3GANGenerator(nn.Module):
    """Generator `z -> images` or `(z, label) -> images`; height and width are 4 * 2^(stages - 1) pixels.

    Attributes:
      channels: number of image channels.
      widths: number of channels of each stage, from 4x4 up.
      groups: number of groups of the 3x3 convolutions, for each stage.
      blocks: number of blocks in each stage: one number for all, or one for each.
      num_classes: number of classes; None for an unconditional generator.
      embedding: size of a label's embedding, which is concatenated to z.
      dtype: dtype of the computation in the finest stages; the other stages, parameters and images are float32.
      fine_stages: number of stages that compute in `dtype`, counted from the finest; None for all.
    """

    channels: int
    widths: tuple[int, ...]
    groups: tuple[int, ...]
    blocks: int | tuple[int, ...] = 2
    num_classes: int | None = None
    embedding: int = 64
    dtype: layers.DType = jnp.float32
    fine_stages: int | None = None

    @nn.compact
    def __call__(
        self, z: Float[Array, "b d"], label: Int[Array, " b"] | None = None, *, train: bool
    ) -> Float[Array, "b h w c"]:
        blocks = _checked(self.widths, self.groups, self.blocks)
        layers.check_settings(self.dtype, channels=self.channels)
        stages = len(self.widths)
        dtypes = _dtypes(self.dtype, stages if self.fine_stages is None else self.fine_stages, stages)
        if self.num_classes is not None:
            init = _normal(fan_in=self.num_classes)
            embed = nn.Embed(self.num_classes, self.embedding, embedding_init=init, name="label")
            z = jnp.concatenate([z, embed(layers.given(label))], axis=-1)
        basis = self.param("basis", nn.initializers.normal(1.0), (4, 4, self.widths[0]), jnp.float32)
        factors = nn.Dense(self.widths[0], use_bias=False, kernel_init=_normal(), name="factors")(z)
        x = basis * factors[:, None, None, :]
        for stage, (width, groups) in enumerate(zip(self.widths, self.groups, strict=True)):
            if stage:
                x = ops.upsample(_mix(x.astype(dtypes[stage]), width, dtypes[stage], f"mix_{stage}"))
            for block in range(blocks[stage]):
                x = _Block(groups, sum(blocks), dtypes[stage], name=f"stage_{stage}_block_{block}")(x)
        return _mix(x, self.channels, dtypes[-1], "image").astype(jnp.float32)


class R3GANDiscriminator(nn.Module):
    """Discriminator `images -> logits` or `(images, label) -> logits`; logits are `[b]`, float32.

    Attributes:
      widths: number of channels of each stage, from 4x4 up.
      groups: number of groups of the 3x3 convolutions, for each stage.
      blocks: number of blocks in each stage: one number for all, or one for each.
      num_classes: number of classes; None for an unconditional discriminator.
      embedding: size of a label's embedding; the logit is the inner product of the embedding and the features.
      dtype: dtype of the computation in the finest stages; the other stages and parameters are float32.
      fine_stages: number of stages that compute in `dtype`, counted from the finest; None for all.
    """

    widths: tuple[int, ...]
    groups: tuple[int, ...]
    blocks: int | tuple[int, ...] = 2
    num_classes: int | None = None
    embedding: int = 768
    dtype: layers.DType = jnp.float32
    fine_stages: int | None = None

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], label: Int[Array, " b"] | None = None, *, train: bool
    ) -> Float[Array, " b"]:
        blocks = _checked(self.widths, self.groups, self.blocks)
        check_images(x=x)
        layers.check_settings(self.dtype)
        stages = len(self.widths)
        if x.shape[1:3] != (4 * 2 ** (stages - 1),) * 2:
            raise InvalidInputError(
                f"images of {x.shape[1]}x{x.shape[2]} pixels: {stages} widths are for {4 * 2 ** (stages - 1)} pixels; "
                "resize the data in its source, or give one width for each size from 4x4 up"
            )
        dtypes = _dtypes(self.dtype, stages if self.fine_stages is None else self.fine_stages, stages)
        x = _mix(x, self.widths[-1], dtypes[-1], "image")
        for stage in reversed(range(stages)):
            for block in range(blocks[stage]):
                x = _Block(self.groups[stage], sum(blocks), dtypes[stage], name=f"stage_{stage}_block_{block}")(x)
            if stage:
                x = _mix(ops.blur_pool(x), self.widths[stage - 1], dtypes[stage], f"mix_{stage}")
        basis = self.param("basis", _normal(fan_in=16), (4, 4, self.widths[0]), jnp.float32)
        features = jnp.sum(x.astype(jnp.float32) * basis, axis=(1, 2))
        if self.num_classes is None:
            return nn.Dense(1, use_bias=False, kernel_init=_normal(), name="logit")(features)[:, 0]
        features = nn.Dense(self.embedding, use_bias=False, kernel_init=_normal(), name="logit")(features)
        init = _normal(self.embedding**-0.5, fan_in=self.num_classes)
        embed = nn.Embed(self.num_classes, self.embedding, embedding_init=init, name="label")
        return jnp.sum(features * embed(layers.given(label)), axis=-1)
