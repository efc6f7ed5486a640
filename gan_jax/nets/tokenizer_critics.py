"""Discriminators of tokenizers: a PatchGAN with group norm and blur, and heads on the features of a frozen network.

The plain PatchGAN is `nets.PatchDiscriminator`, StyleGAN2's `nets.StyleGAN2Discriminator`.
"""

import math
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from gan_jax import ops
from gan_jax.nets import layers
from gan_jax.nets.adapter import from_linen
from gan_jax.nets.tokenizer import group_norm
from gan_jax.types import InvalidInputError, Network, PRNGKey, check_images


class BlurPatchDiscriminator(nn.Module):
    """PatchGAN with group norm, which halves maps with a low-pass filter: one logit per patch, `[b, h', w']`.

    A 5x5 convolution; for each stage a 3x3 convolution, a blur with [1, 3, 3, 1] and stride 2, and group norm; then 1x1
    and 5x5 convolutions. Leaky ReLU has the slope 0.1. No logit depends on other images.

    Attributes:
      width: feature maps of the first convolution and of the first stage; their number doubles at every later one.
      stages: number of halvings.
      groups: number of groups of the norms; it must divide the width.
      pool: largest map of logits: larger ones are max-pooled to this size before the last convolutions.
      dtype: dtype of the computation; parameters and logits are float32.

    References:
      Weber et al., "MaskBit: Embedding-free Image Generation via Bit Tokens", arXiv:2409.16211, 2024; the code of TiTok
      (Yu et al., arXiv:2406.07550, 2024) has this network with 3 stages and width 128. There, maps that are smaller
      than 16x16 are enlarged to this size, which repeats logits; here they are not.
    """

    width: int = 128
    stages: int = 3
    groups: int = 32
    pool: int = 16
    dtype: layers.DType = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], *, train: bool) -> Float[Array, "b hout wout"]:
        del train
        check_images(x=x)
        layers.check_settings(self.dtype, width=self.width, stages=self.stages, groups=self.groups, pool=self.pool)
        factor = 1 << self.stages
        if x.shape[1] % factor or x.shape[2] % factor:
            raise InvalidInputError(
                f"images of {x.shape[1]}x{x.shape[2]} pixels: with {self.stages} stages this discriminator takes "
                f"multiples of {factor}; crop or resize the images"
            )
        init = nn.initializers.variance_scaling(1.0, "fan_in", "truncated_normal")

        def conv(x: Array, features: int, size: int, name: str) -> Array:
            return layers.Conv(
                features, size, padding=size // 2, dtype=self.dtype, kernel_init=init, name=name
            )(x)  # fmt: skip

        def activate(x: Array) -> Array:
            return jax.nn.leaky_relu(x, 0.1)

        x = activate(conv(x.astype(self.dtype), self.width, 5, "input"))
        for stage in range(self.stages):
            x = ops.blur_pool(conv(x, self.width << stage, 3, f"conv_{stage}"))
            x = activate(group_norm(x, self.groups, self.dtype, f"norm_{stage}"))
        x = _pooled(x, self.pool)
        x = activate(conv(x, x.shape[-1], 1, "mix"))
        return conv(x, 1, 5, "logit")[..., 0].astype(jnp.float32)


def _pooled(x: Float[Array, "b h w c"], size: int) -> Float[Array, "b hout wout c"]:
    """Max-pools maps that are larger than `size`, by whole factors."""
    b, h, w, c = x.shape
    rows, columns = (max(1, length // size) for length in (h, w))
    if rows == columns == 1:
        return x
    if h % rows or w % columns:
        raise InvalidInputError(f"a map of {h}x{w} is not a multiple of pool={size}: choose a pool that divides it")
    return jnp.max(x.reshape(b, h // rows, rows, w // columns, columns, c), axis=(2, 4))


class _Head(nn.Module):
    """Logits of one level of features, `[b, n]`, from tokens `[b, n, d]`; see `feature_heads`."""

    width: int
    group_size: int

    @nn.compact
    def __call__(self, x: Float[Array, "b n d"], *, train: bool) -> Float[Array, "b n"]:
        def block(x: Array, size: int, index: int) -> Array:
            layer = nn.Conv(self.width, (size,), padding="CIRCULAR", name=f"conv_{index}")
            x = layers.spectral(layer, x, norm="spectral", train=train)
            return layers.leaky_relu(LocalBatchNorm(self.group_size, name=f"norm_{index}")(x))

        x = block(x, 1, 0)
        x = (x + block(x, 9, 1)) / math.sqrt(2.0)
        return layers.spectral(nn.Conv(1, (1,), name="logit"), x, norm="spectral", train=train)[..., 0]


class LocalBatchNorm(nn.Module):
    """Normalises tokens by the statistics of consecutive groups of images, in training and at evaluation alike.

    Attributes:
      group_size: images per group, which must divide the batch; a smaller batch is one group. 1 normalises each image
        on its own. On several devices, whole groups must be on one device, or examples are moved.
    """

    group_size: int

    @nn.compact
    def __call__(self, x: Float[Array, "b n d"]) -> Float[Array, "b n d"]:
        b, n, d = x.shape
        size = min(self.group_size, b)
        if b % size:
            raise InvalidInputError(f"a batch of {b} images: expected a multiple of group_size={self.group_size}")
        groups = x.reshape(b // size, size * n, d)
        centred = groups - jnp.mean(groups, axis=1, keepdims=True)
        normed = centred * jax.lax.rsqrt(jnp.mean(centred**2, axis=1, keepdims=True) + 1e-5)
        scale = self.param("scale", nn.initializers.ones, (d,), jnp.float32)
        return normed.reshape(b, n, d) * scale + self.param("bias", nn.initializers.zeros, (d,), jnp.float32)


class _Heads(nn.Module):
    """One head for each level of features; the logits are joined along the tokens."""

    width: int
    group_size: int

    @nn.compact
    def __call__(self, levels: Sequence[Float[Array, "b n d"]], *, train: bool) -> Float[Array, "b n"]:
        heads = [
            _Head(self.width, self.group_size, name=f"head_{index}")(x.astype(jnp.float32), train=train)
            for index, x in enumerate(levels)
        ]
        return jnp.concatenate(heads, axis=1)


def feature_heads(levels: int, width: int, *, group_size: int = 8) -> Network:
    """Creates the discriminator of StyleGAN-T and RAE: small heads on the levels of a frozen vision transformer.

    Each head has convolutions over the sequence of tokens, all with spectral norm: one of size 1, a residual one of
    size 9 with circular padding, divided by sqrt(2), both with local batch norm and leaky ReLU; and one to the logits.

    Args:
      levels: number of levels of features.
      width: number of channels of the tokens.
      group_size: images whose statistics the local batch norm joins; 8 in StyleGAN-T, 1 in RAE.

    Returns:
      The network, from a list of tokens `[b, n, width]`, one entry for each level, to logits `[b, all n]`. Its `init`
      ignores the example inputs: the game gives it images there (`gans.tokenizer(features=...)`).

    Raises:
      InvalidInputError: for sizes below 1.

    References:
      Sauer et al., "StyleGAN-T: Unlocking the Power of GANs for Fast Large-Scale Text-to-Image Synthesis",
      arXiv:2301.09515, 2023; Zheng et al., "Diffusion Transformers with Representation Autoencoders", arXiv:2510.11690,
      2025. Both use DINO, not DINOv2.
    """
    layers.check_settings(jnp.float32, levels=levels, width=width, group_size=group_size)
    inner = from_linen(_Heads(width, group_size))

    def init(key: PRNGKey, *inputs: Any) -> tuple[PyTree, PyTree]:
        del inputs
        return inner.init(key, [jnp.zeros((1, 9, width))] * levels)

    return Network(init, inner.apply)
