"""Discriminators of patches, for image translation: PatchGAN, its form for single pixels, and pix2pixHD's scales.

Isola et al., "Image-to-Image Translation with Conditional Adversarial Networks" (pix2pix), arXiv:1611.07004, 2016; Wang
et al., "High-Resolution Image Synthesis and Semantic Manipulation with Conditional GANs" (pix2pixHD), arXiv:1711.11585,
2017. Layers, paddings and parameters are those of the authors' PyTorch code, and give its values; for CUT's
anti-aliased form those of the code of Park et al., arXiv:2007.15651, 2020. Initialisation and biases are as in
`gan_jax.nets.translation`.

All take the image, and any number of condition images of the same size, whose channels come before those of the image:
pix2pix's discriminator sees the source in this way.
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from gan_jax import ops
from gan_jax.nets import layers
from gan_jax.types import InvalidInputError, check_images

Images = Float[Array, "b h w _"]


def _joined(x: Array, condition: tuple[Array, ...], dtype: layers.DType) -> Array:
    check_images(x=x)
    for other in condition:
        if other.shape[:-1] != x.shape[:-1]:
            raise InvalidInputError(
                f"condition {other.shape}, x {x.shape}: expected the same batch, height and width; resize one of them"
            )
    return jnp.concatenate([*condition, x], axis=-1).astype(dtype) if condition else x.astype(dtype)


class PatchDiscriminator(nn.Module):
    """PatchGAN: a discriminator with one logit for each of many overlapping patches, `[b, h', w']`.

    With 3 layers a logit sees 70x70 pixels, and an image of 256 pixels has 30x30 logits.

    Attributes:
      width: feature maps of the first convolution; their number doubles at every layer, up to 8 times as many.
      depth: number of convolutions with stride 2; two with stride 1 follow. The authors call it `n_layers`.
      antialias: whether to halve with a low-pass filter, as CUT does, in place of strided convolutions.
      padding: number of zeros on every side of each layer's input; 2 in pix2pixHD.
      spectral: which kernels are divided by their largest singular value: 'none', 'all', or 'inner' for those of all
        layers but the first and the last, as in SPADE. It goes with any `norm`.
      features: whether to return a dict of `'logits'` and `'features'`, a list of the activations of all other layers.
      norm: normalisation of the activations of all layers but the first and the last: 'batch', 'instance', 'none', or
        'act' (`layers.ActNorm`), as in taming-transformers with `use_actnorm`.
      dtype: dtype of the computation; parameters and logits are float32.
      kernel_init: initialiser of the kernels.
    """

    width: int = 64
    depth: int = 3
    antialias: bool = False
    padding: int = 1
    spectral: str = "none"
    features: bool = False
    norm: str = "batch"
    dtype: layers.DType = jnp.float32
    kernel_init: layers.Initializer = layers.dcgan_init

    @nn.compact
    def __call__(self, x: Images, *condition: Images, train: bool) -> PyTree:
        layers.check_settings(self.dtype, width=self.width, depth=self.depth)
        layers.check_norm(self, self.norm, "batch", "instance", "act", "none")
        if self.spectral not in ("none", "all", "inner"):
            raise InvalidInputError(f"spectral={self.spectral!r}: expected 'none', 'all' or 'inner'")
        x = _joined(x, condition, self.dtype)
        found: list[Array] = []

        def conv(x: Array, features: int, stride: int, name: str, *, inner: bool) -> Array:
            bias = not (inner and self.norm == "batch")
            conv = layers.Conv(
                features, 4, stride, self.padding, use_bias=bias, dtype=self.dtype, kernel_init=self.kernel_init,
                name=name,
            )  # fmt: skip
            divided = self.spectral == "all" or (self.spectral == "inner" and inner)
            return layers.spectral(conv, x, norm="spectral" if divided else "none", train=train)

        for level in range(self.depth + 1):
            halves, inner = level < self.depth, level > 0
            stride = 2 if halves and not self.antialias else 1
            x = conv(x, self.width * min(2**level, 8), stride, f"conv_{level}", inner=inner)
            if inner:
                x = layers.normalize(
                    x, self.norm, train=train, dtype=self.dtype, name=f"norm_{level}",
                    scale_init=layers.dcgan_scale_init,
                )  # fmt: skip
            x = layers.leaky_relu(x)
            x = layers.downsample(x) if halves and self.antialias else x
            found.append(x)
        logits = conv(x, 1, 1, "logit", inner=False)[..., 0].astype(jnp.float32)
        return {"logits": logits, "features": found} if self.features else logits


class PixelDiscriminator(nn.Module):
    """Discriminator of single pixels: 1x1 convolutions, with one logit per pixel, `[b, h, w]`.

    Attributes:
      width: feature maps of the first convolution; the second has twice as many.
      norm: normalisation of the activations of the second convolution: 'batch', 'instance' or 'none'.
      dtype: dtype of the computation; parameters and logits are float32.
      kernel_init: initialiser of the kernels.
    """

    width: int = 64
    norm: str = "batch"
    dtype: layers.DType = jnp.float32
    kernel_init: layers.Initializer = layers.dcgan_init

    @nn.compact
    def __call__(self, x: Images, *condition: Images, train: bool) -> Float[Array, "b h w"]:
        layers.check_settings(self.dtype, width=self.width)
        layers.check_norm(self, self.norm, "batch", "instance", "none")
        x = _joined(x, condition, self.dtype)
        bias = self.norm != "batch"  # as in the authors' code, the logit's convolution too

        def conv(x: Array, features: int, name: str, *, use_bias: bool) -> Array:
            return layers.Conv(
                features, 1, use_bias=use_bias, dtype=self.dtype, kernel_init=self.kernel_init, name=name
            )(x)

        x = layers.leaky_relu(conv(x, self.width, "conv_0", use_bias=True))
        x = conv(x, 2 * self.width, "conv_1", use_bias=bias)
        x = layers.normalize(
            x, self.norm, train=train, dtype=self.dtype, name="norm_1", scale_init=layers.dcgan_scale_init
        )
        return conv(layers.leaky_relu(x), 1, "logit", use_bias=bias)[..., 0].astype(jnp.float32)


class MultiScaleDiscriminator(nn.Module):
    """pix2pixHD's discriminators: PatchGANs of the image and of smaller versions of it, which return features too.

    Each smaller version averages over 3x3 pixels, at every second row and column; pixels beyond the edge do not count.
    The result is a dict of `'logits'`, a list of `[b, h', w']` from the full size down, and `'features'`, a list of
    lists. `gans.terms.gan_loss` adds up the losses of the scales, and `gans.terms.feature_matching` uses the features.

    Attributes:
      scales: number of discriminators.
      width: as in `PatchDiscriminator`.
      depth: as in `PatchDiscriminator`.
      padding: as in `PatchDiscriminator`.
      spectral: as in `PatchDiscriminator`; 'inner' in SPADE.
      norm: normalisation of the activations of all layers but the first and the last: 'batch', 'instance' or 'none'.
      dtype: dtype of the computation; parameters and logits are float32.
      kernel_init: initialiser of the kernels.
    """

    scales: int = 2
    width: int = 64
    depth: int = 3
    padding: int = 2
    spectral: str = "none"
    norm: str = "instance"
    dtype: layers.DType = jnp.float32
    kernel_init: layers.Initializer = layers.dcgan_init

    @nn.compact
    def __call__(self, x: Images, *condition: Images, train: bool) -> dict[str, list[Any]]:
        layers.check_settings(self.dtype, scales=self.scales)
        layers.check_norm(self, self.norm, "batch", "instance", "none")
        x = _joined(x, condition, jnp.float32)
        logits, features = [], []
        for scale in range(self.scales):
            critic = PatchDiscriminator(
                self.width, self.depth, padding=self.padding, spectral=self.spectral, features=True, norm=self.norm,
                dtype=self.dtype, kernel_init=self.kernel_init, name=f"scale_{scale}",
            )  # fmt: skip
            found = critic(x, train=train)
            logits.append(found["logits"])
            features.append(found["features"])
            x = halved(x) if scale < self.scales - 1 else x
        return {"logits": logits, "features": features}


def halved(x: Images) -> Images:
    """Averages over 3x3 pixels, at every second row and column; at the edge over those pixels that exist."""
    ones = jnp.ones((1, *x.shape[1:3], 1), x.dtype)
    total, count = (ops.upfirdn(y, (1.0, 1.0, 1.0), down=2, padding=(1, 1)) for y in (x, ones))
    return total / count
