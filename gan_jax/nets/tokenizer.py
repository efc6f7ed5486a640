"""Autoencoders of images with a bottleneck, as in VQGAN: residual encoder and decoder with group norm.

Esser, Rombach and Ommer, "Taming Transformers for High-Resolution Image Synthesis" (VQGAN), arXiv:2012.09841, 2021;
Chang et al., "MaskGIT", arXiv:2202.04200, 2022. The layout is that of VQGAN; images are halved by an average behind a
3x3 convolution, and doubled by nearest neighbours before one. Public code differs: taming-transformers halves with a
convolution of stride 2 and asymmetric padding, MaskGIT by average pooling.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from gan_jax import ops
from gan_jax.nets import layers
from gan_jax.types import InvalidInputError, check_images

_init = nn.initializers.variance_scaling(1.0, "fan_in", "truncated_normal")


def group_norm(x: Array, groups: int, dtype: layers.DType, name: str, *, affine: bool = True) -> Array:
    """Normalises groups of channels over each image; epsilon 1e-6, as in VQGAN.

    Raises:
      InvalidInputError: if the number of groups does not divide that of channels.
    """
    if x.shape[-1] % groups:
        raise InvalidInputError(f"groups={groups}: expected a divisor of the {x.shape[-1]} channels of a layer")
    return nn.GroupNorm(groups, epsilon=1e-6, use_scale=affine, use_bias=affine, dtype=dtype, name=name)(x)


class ResidualBlock(nn.Module):
    """Residual block: twice group norm, swish and a 3x3 convolution.

    Attributes:
      features: number of output channels.
      groups: number of groups of the norms.
      shortcut_of_output: whether, at a change of width, the shortcut is a 1x1 convolution of the block's output instead
        of its input, so that the input is lost. MaskGIT's published weights need this.
      dtype: dtype of the computation.
    """

    features: int
    groups: int
    shortcut_of_output: bool = False
    dtype: layers.DType = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w features"]:
        y = x
        for index in range(2):
            y = jax.nn.silu(group_norm(y, self.groups, self.dtype, f"norm_{index}"))
            y = layers.Conv(
                self.features, 3, padding=1, dtype=self.dtype, kernel_init=_init, name=f"conv_{index}"
            )(y)  # fmt: skip
        if x.shape[-1] != self.features:
            source = y if self.shortcut_of_output else x
            x = layers.Conv(self.features, 1, dtype=self.dtype, kernel_init=_init, name="shortcut")(source)
        return x + y


class Attention(nn.Module):
    """Self-attention over all positions of a map, with one head, added to its input.

    Attributes:
      groups: number of groups of the norm.
      dtype: dtype of the computation.
    """

    groups: int
    dtype: layers.DType = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        b, h, w, c = x.shape
        y = group_norm(x, self.groups, self.dtype, "norm").reshape(b, h * w, c)
        dense = lambda name: nn.Dense(c, dtype=self.dtype, kernel_init=_init, name=name)  # noqa: E731
        query, key, value = (dense(name)(y) for name in ("query", "key", "value"))
        logits = jnp.einsum("bnc,bmc->bnm", query, key).astype(jnp.float32) * c**-0.5
        mixed = jnp.einsum("bnm,bmc->bnc", jax.nn.softmax(logits).astype(self.dtype), value)
        return x + dense("output")(mixed).reshape(b, h, w, c)


class _Trunk(nn.Module):
    """Settings that encoder and decoder share.

    Attributes:
      widths: number of channels at each resolution, from the finest on; there is one halving less than widths.
      blocks: number of residual blocks at each resolution.
      groups: number of groups of the norms; it must divide the widths.
      attention: whether there is self-attention between the residual blocks at the coarsest resolution.
      shortcut_of_output: see `ResidualBlock`.
      dtype: dtype of the computation; parameters and outputs are float32.
    """

    widths: tuple[int, ...] = (128, 128, 256, 256, 512)
    blocks: int = 2
    groups: int = 32
    attention: bool = True
    shortcut_of_output: bool = False
    dtype: layers.DType = jnp.float32

    def _check(self) -> None:
        layers.check_settings(self.dtype, widths=min(self.widths, default=0), blocks=self.blocks, groups=self.groups)

    def _block(self, x: Array, features: int, name: str) -> Array:
        return ResidualBlock(features, self.groups, self.shortcut_of_output, self.dtype, name=name)(x)

    def _conv(self, x: Array, features: int, name: str, op: Any = ops.conv) -> Array:
        return layers.Conv(features, 3, padding=1, op=op, dtype=self.dtype, kernel_init=_init, name=name)(x)

    def _middle(self, x: Array) -> Array:
        x = self._block(x, x.shape[-1], "middle_0")
        if self.attention:
            x = Attention(self.groups, self.dtype, name="attention")(x)
        return self._block(x, x.shape[-1], "middle_1")


class TokenizerEncoder(_Trunk):
    """Encoder that maps images to maps `[b, h / 2^k, w / 2^k, widths[-1]]`, where k is the number of widths minus 1.

    Attributes:
      widths: number of channels at each resolution, from the finest on; there is one halving less than widths.
      blocks: number of residual blocks at each resolution.
      groups: number of groups of the norms; it must divide the widths.
      attention: whether there is self-attention between the residual blocks at the coarsest resolution.
      shortcut_of_output: see `ResidualBlock`.
      dtype: dtype of the computation; parameters and outputs are float32.
    """

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], *, train: bool) -> Float[Array, "b hout wout features"]:
        del train
        check_images(x=x)
        self._check()
        factor = 1 << (len(self.widths) - 1)
        if x.shape[1] % factor or x.shape[2] % factor:
            raise InvalidInputError(
                f"images of {x.shape[1]}x{x.shape[2]} pixels: this encoder takes multiples of {factor} (widths has "
                f"{len(self.widths)} resolutions); crop or resize the images, or give fewer widths"
            )
        x = self._conv(x.astype(self.dtype), self.widths[0], "input")
        for level, width in enumerate(self.widths):
            for index in range(self.blocks):
                x = self._block(x, width, f"level_{level}_block_{index}")
            if level < len(self.widths) - 1:
                x = self._conv(x, width, f"down_{level}", ops.conv_halved)
        x = self._middle(x)
        return jax.nn.silu(group_norm(x, self.groups, self.dtype, "norm")).astype(jnp.float32)


class TokenizerDecoder(_Trunk):
    """Decoder that maps codes to images, the mirror image of `TokenizerEncoder`.

    It returns the images and the input of the last convolution, from which `gans.tokenizer` computes the adaptive
    weight (`TOKENIZER_LAST_LAYER`). The images are not bounded: there is no tanh, as in VQGAN.

    Attributes:
      channels: number of image channels.
      widths: number of channels at each resolution, from the finest on; there is one doubling less than widths.
      blocks: number of residual blocks at each resolution; there is one more, as in VQGAN.
      groups: number of groups of the norms; it must divide the widths.
      attention: whether there is self-attention between the residual blocks at the coarsest resolution.
      shortcut_of_output: see `ResidualBlock`.
      dtype: dtype of the computation; parameters and outputs are float32.
    """

    channels: int = 3

    @nn.compact
    def __call__(
        self, codes: Float[Array, "b h w d"], *, train: bool
    ) -> tuple[Float[Array, "b hout wout c"], Float[Array, "b hout wout width"]]:
        del train
        self._check()
        x = self._middle(self._conv(codes.astype(self.dtype), self.widths[-1], "input"))
        for level, width in reversed(list(enumerate(self.widths))):
            for index in range(self.blocks + 1):
                x = self._block(x, width, f"level_{level}_block_{index}")
            if level:
                x = self._conv(x, width, f"up_{level}", ops.doubled_conv)
        hidden = jax.nn.silu(group_norm(x, self.groups, self.dtype, "norm")).astype(jnp.float32)
        images = layers.Conv(self.channels, 3, padding=1, kernel_init=_init, name="output")(hidden)
        return images, hidden


def last_kernel(params: PyTree) -> Array:
    """Selects the kernel of the last convolution from the parameters of a `Tokenizer` with a `TokenizerDecoder`."""
    return params["decoder"]["output"]["kernel"]


def last_layer(kernel: Array, hidden: Array) -> Array:
    """Applies the last convolution of a `TokenizerDecoder`, without its bias."""
    return ops.conv(hidden, kernel, padding=1)


TOKENIZER_LAST_LAYER = (last_kernel, last_layer)
"""The argument `last_layer` of `gans.tokenizer` for a `Tokenizer` with a `TokenizerDecoder`."""


class Tokenizer(nn.Module):
    """Encoder, bottleneck and decoder. It maps images to reconstructions, or codes or their ids to images.

    The result is a dict: `'images'` are the outputs of the decoder and `'hidden'` the input of its last layer. For
    images there are also `'codes'` and `'losses'`, the bottleneck's loss terms by name, and `'ids'`, unless the
    bottleneck is a Gaussian. Under `jax.jit`, parts of the network whose outputs are not used are not computed.

    Attributes:
      encoder: module from images to maps. A 1x1 convolution brings their channels to those of the bottleneck.
      bottleneck: module of `gan_jax.nets.quantize`.
      decoder: module from codes to images and the input of the last layer.
    """

    encoder: nn.Module
    bottleneck: nn.Module
    decoder: nn.Module

    def setup(self) -> None:
        self.to_codes = layers.Conv(self.bottleneck.channels, 1, kernel_init=_init)

    def __call__(
        self,
        images: Float[Array, "b h w c"] | None = None,
        codes: Float[Array, "b i j d"] | None = None,
        ids: Int[Array, "b i j"] | None = None,
        *,
        train: bool,
    ) -> dict[str, Any]:
        if sum(x is not None for x in (images, codes, ids)) != 1:
            raise InvalidInputError("a Tokenizer takes images, or codes, or ids: exactly one of the three")
        made: dict[str, Any] = {}
        if images is not None:
            found = self.bottleneck(self.to_codes(self.encoder(images, train=train)), train=train)
            made = {"codes": found.codes, "losses": found.losses}
            made |= {} if found.ids is None else {"ids": found.ids}
            codes = found.codes
        elif ids is not None:
            codes = self.bottleneck.lookup(ids)
        made["images"], made["hidden"] = self.decoder(codes, train=train)
        return made
