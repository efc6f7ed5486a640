"""Generators for image translation: the ResNet of CycleGAN, CUT and pix2pixHD, and the U-Net of pix2pix.

Zhu et al., "Unpaired Image-to-Image Translation using Cycle-Consistent Adversarial Networks", arXiv:1703.10593, 2017;
Park et al., "Contrastive Learning for Unpaired Image-to-Image Translation" (CUT), arXiv:2007.15651, 2020; Wang et al.,
"High-Resolution Image Synthesis and Semantic Manipulation with Conditional GANs" (pix2pixHD), arXiv:1711.11585, 2017;
Isola et al., "Image-to-Image Translation with Conditional Adversarial Networks" (pix2pix), arXiv:1611.07004, 2016.

Layers, paddings and parameters are those of the authors' PyTorch code, and give its values. Kernels are drawn from
N(0, 0.02^2), and batch norm's scales from N(1, 0.02^2). Convolutions have a bias under instance norm, where it has no
effect, and without a norm, but not under batch norm; the convolution that makes the image always has one.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from gan_jax import ops
from gan_jax.nets import layers
from gan_jax.types import InvalidInputError, check_images

CUT_FEATURES = ("input", "down_0", "down_1", "block_0", "block_4")
"""Layers of `TranslationResNet` whose outputs CUT compares: the padded image, two convolutions and two blocks. The
authors number them 0, 4, 8, 12 and 16."""

cut_init: layers.Initializer = nn.initializers.variance_scaling(0.02**2, "fan_avg", "normal")
"""Initialiser of CUT's kernels: Xavier-normal with gain 0.02."""


def _doubling_conv(x: Array, kernel: Array, *, padding: int) -> Array:
    """Applies a 3x3 transposed convolution with stride 2, `padding=1` and, as PyTorch calls it, `output_padding=1`."""
    del padding
    return ops.conv_transpose(x, kernel, stride=2)[:, 1:, 1:]


def _divisible(network: nn.Module, x: Array, count: int, needed: str) -> None:
    """Refuses images whose height and width cannot be halved `count` times."""
    if x.shape[1] % (1 << count) or x.shape[2] % (1 << count) or min(x.shape[1:3]) < 1 << count:
        raise InvalidInputError(
            f"images of {x.shape[1]}x{x.shape[2]} pixels: this {type(network).__name__} takes multiples of "
            f"{1 << count} ({needed}); crop, pad or resize the images"
        )


class TranslationResNet(nn.Module):
    """Generator from images to images of the same size: convolutions, residual blocks, and convolutions that upsample.

    With the defaults and 9 blocks it is the generator of CycleGAN for 256 pixels, and with 6 blocks that for 128. With
    `antialias` and `kernel_init=cut_init` it is CUT's. With 4 downsamplings and `norm='instance'` it is pix2pixHD's
    global generator. Height and width must be multiples of 2^downsamplings.

    Attributes:
      channels: number of channels of the output.
      width: feature maps of the first convolution; their number doubles at every downsampling.
      blocks: number of residual blocks.
      downsamplings: number of times that height and width are halved.
      antialias: whether to resample with low-pass filters, [1, 2, 1] and [1, 3, 3, 1], as CUT does, in place of strided
        convolutions.
      dropout: fraction of activations dropped within each block in training; 0.5 in pix2pix's ResNet.
      features: names of layers, such as `CUT_FEATURES`. If there are any, the result is a dict of `'image'` and
        `'features'`, the outputs of these layers by name: `input` (the padded image), `down_0`, `down_1`, ...
        (convolutions, before their norm), `block_0`, `block_1`, ...
      norm: normalisation of the activations: 'instance', 'batch' or 'none'.
      dtype: dtype of the computation; parameters and images are float32.
      kernel_init: initialiser of the kernels.
    """

    channels: int
    width: int = 64
    blocks: int = 9
    downsamplings: int = 2
    antialias: bool = False
    dropout: float = 0.0
    features: tuple[str, ...] = ()
    norm: str = "instance"
    dtype: layers.DType = jnp.float32
    kernel_init: layers.Initializer = layers.dcgan_init

    def _conv(self, features: int, kernel_size: int, name: str, **options: Any) -> layers.Conv:
        options = {"use_bias": self.norm != "batch", "dtype": self.dtype, "kernel_init": self.kernel_init} | options
        return layers.Conv(features, kernel_size, padding=kernel_size // 2, name=name, **options)

    def _norm(self, x: Array, name: str, train: bool) -> Array:
        return layers.normalize(
            x, self.norm, train=train, dtype=self.dtype, name=f"norm_{name}", scale_init=layers.dcgan_scale_init
        )

    def _block(self, x: Array, index: int, train: bool) -> Array:
        """Adds to x the result of two convolutions, with a norm each and a ReLU in between."""
        y = x
        for part in (0, 1):
            name = f"block_{index}_{part}"
            y = self._norm(self._conv(x.shape[-1], 3, name, mode="reflect")(y), name, train)
            if part == 0:
                y = nn.Dropout(self.dropout, deterministic=not train)(jax.nn.relu(y))
        return x + y

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], *, train: bool) -> PyTree:
        layers.check_settings(self.dtype, channels=self.channels, width=self.width, blocks=self.blocks)
        layers.check_norm(self, self.norm, "instance", "batch", "none")
        layers.check_dropout(self.dropout)
        check_images(x=x)
        _divisible(self, x, self.downsamplings, f"{self.downsamplings} downsamplings")
        seen = {"input": ops.pad(x.astype(self.dtype), 3)}
        first = layers.Conv(
            self.width, 7, use_bias=self.norm != "batch", dtype=self.dtype, kernel_init=self.kernel_init, name="first"
        )
        x = jax.nn.relu(self._norm(first(seen["input"]), "first", train))
        for level in range(self.downsamplings):
            name = f"down_{level}"
            x = self._conv(self.width << (level + 1), 3, name, stride=1 if self.antialias else 2)(x)
            seen[name] = x
            x = jax.nn.relu(self._norm(x, name, train))
            x = layers.downsample(x) if self.antialias else x
        for index in range(self.blocks):
            x = seen[f"block_{index}"] = self._block(x, index, train)
        for level in reversed(range(self.downsamplings)):
            name, op = f"up_{level}", ops.conv if self.antialias else _doubling_conv
            x = layers.upsample(x) if self.antialias else x
            x = jax.nn.relu(self._norm(self._conv(self.width << level, 3, name, op=op)(x), name, train))
        image = jnp.tanh(self._conv(self.channels, 7, "image", mode="reflect", use_bias=True)(x)).astype(jnp.float32)
        return self._with_features(image, seen)

    def _with_features(self, image: Array, seen: dict[str, Array]) -> PyTree:
        if not self.features:
            return image
        if unknown := [name for name in self.features if name not in seen]:
            raise InvalidInputError(
                f"features={unknown}: with blocks={self.blocks} and downsamplings={self.downsamplings} this network "
                f"has the layers {', '.join(seen)}; choose among them, or set more blocks"
            )
        return {"image": image, "features": {name: seen[name] for name in self.features}}


class UNet(nn.Module):
    """Generator from images to images of the same size, with a skip connection at every resolution: pix2pix's U-Net.

    Convolutions with 4x4 kernels and stride 2 halve the image `levels` times, and transposed ones double it again. Each
    of these takes what the convolution of its resolution made, beside what comes from below. There is no other noise
    than dropout. Height and width must be multiples of 2^levels; for square images of 64, 128 and 256 pixels the
    authors use 6, 7 and 8 levels, down to one pixel.

    Attributes:
      channels: number of channels of the output.
      levels: number of times that height and width are halved.
      width: feature maps of the first convolution; their number doubles at every level, up to 8 times as many.
      dropout: fraction of activations dropped in training at the inner levels, from the fifth on, but the innermost. So
        a network of 5 levels or fewer has no dropout.
      norm: normalisation of the activations: 'batch', 'instance' or 'none'. With 'batch' an output depends on the other
        images of the batch; the authors' batches have one image. Use 'instance' for larger ones.
      dtype: dtype of the computation; parameters and images are float32.
      kernel_init: initialiser of the kernels.
    """

    channels: int
    levels: int = 8
    width: int = 64
    dropout: float = 0.5
    norm: str = "batch"
    dtype: layers.DType = jnp.float32
    kernel_init: layers.Initializer = layers.dcgan_init

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], *, train: bool) -> Float[Array, "b h w channels"]:
        layers.check_settings(self.dtype, channels=self.channels, levels=self.levels, width=self.width)
        layers.check_norm(self, self.norm, "batch", "instance", "none")
        layers.check_dropout(self.dropout)
        check_images(x=x)
        _divisible(self, x, self.levels, f"{self.levels} levels")

        def conv(x: Array, features: int, name: str, *, op: Any = ops.conv, bias: bool = False) -> Array:
            bias = bias or self.norm != "batch"
            return layers.Conv(
                features, 4, 2, 1, op=op, use_bias=bias, dtype=self.dtype, kernel_init=self.kernel_init, name=name
            )(x)

        def norm(x: Array, name: str) -> Array:
            return layers.normalize(
                x, self.norm, train=train, dtype=self.dtype, name=f"norm_{name}", scale_init=layers.dcgan_scale_init
            )

        widths = [self.width * min(2**level, 8) for level in range(self.levels)]
        skips: list[Array] = []
        for level, width in enumerate(widths):
            name = f"down_{level}"
            x = conv(layers.leaky_relu(x) if level else x.astype(self.dtype), width, name)
            x = norm(x, name) if 0 < level < self.levels - 1 else x
            skips.append(x)
        for level in reversed(range(1, self.levels)):
            name = f"up_{level}"
            x = norm(conv(jax.nn.relu(x), widths[level - 1], name, op=ops.conv_transpose), name)
            if 4 <= level < self.levels - 1:
                x = nn.Dropout(self.dropout, deterministic=not train, name=f"dropout_{level}")(x)
            x = jnp.concatenate([skips[level - 1], x], axis=-1)
        x = conv(jax.nn.relu(x), self.channels, "image", op=ops.conv_transpose, bias=True)
        return jnp.tanh(x).astype(jnp.float32)


class PatchProjector(nn.Module):
    """CUT's network F: maps features of places in an image to the vectors that `losses.patch_nce` compares.

    Each layer of features has its own two dense layers, with a ReLU in between. The result is divided by its length
    (plus 1e-7).

    Attributes:
      width: length of the vectors, and number of hidden units.
      kernel_init: initialiser of the kernels.
    """

    width: int = 256
    kernel_init: layers.Initializer = cut_init

    @nn.compact
    def __call__(self, features: dict[str, Float[Array, "b n _"]], *, train: bool) -> dict[str, Float[Array, "b n d"]]:
        def dense(x: Array, name: str) -> Array:
            return nn.Dense(self.width, kernel_init=self.kernel_init, name=name)(x)

        found = {}
        for name, x in features.items():
            y = dense(jax.nn.relu(dense(x.astype(jnp.float32), f"{name}_hidden")), f"{name}_out")
            # The floor under the root keeps the gradient finite where all entries are 0.
            length = jnp.sqrt(jnp.maximum(jnp.sum(jnp.square(y), axis=-1, keepdims=True), 1e-20))
            found[name] = y / (length + 1e-7)
        return found
