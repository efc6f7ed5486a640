"""SNGAN's residual networks, for square images of 8, 16, 32 or 64 pixels with any number of channels.

Miyato et al., "Spectral Normalization for Generative Adversarial Networks", arXiv:1802.05957, 2018, table 4 (32x32).
Conditional batch norm and the projection of labels come from Miyato and Koyama, "cGANs with Projection Discriminator",
arXiv:1802.05637, 2018. At 32 pixels with the default widths these are the networks of the authors' code
(github.com/pfnet-research/sngan_projection). Other sizes follow one rule, with the same width in all blocks. The
generator doubles a 4x4 map until it has the image's size. The discriminator halves the image down to an 8x8 map, but at
least once, and continues with two blocks that keep the size. The authors' own 64x64 networks instead double the width
at every halving.

Weights are initialised Xavier-uniform, with gain sqrt(2) in the 3x3 convolutions of the blocks and 1 everywhere else;
biases start at 0. Both are as in that code. Public code differs: mimicry upsamples bilinearly, others initialise
orthogonally or from N(0, 0.02^2), and many have no bias before batch norm. The epsilon of batch norm is Flax's 1e-5; it
is 2e-5 in the authors' code.
"""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from gan_jax import ops
from gan_jax.nets import layers
from gan_jax.types import InvalidInputError, check_images

Op = Callable[..., Array]
_SIZES = (8, 16, 32, 64)
_RESIDUAL = 2.0**0.5  # the gain of the blocks' 3x3 convolutions


def doublings(image_size: int) -> int:
    """Returns how many times a 4x4 map is doubled to reach the size of an image.

    Args:
      image_size: height and width in pixels.

    Returns:
      The number of the generator's blocks, from 1 to 4.

    Raises:
      InvalidInputError: for any size but 8, 16, 32 and 64.
    """
    if image_size not in _SIZES:
        raise InvalidInputError(
            f"image_size={image_size}: these residual networks take images of 8, 16, 32 or 64 pixels; resize them in "
            "the data source, or use DCGAN's networks"
        )
    return image_size.bit_length() - 3


def _xavier(gain: float = 1.0) -> layers.Initializer:
    return nn.initializers.variance_scaling(gain**2, "fan_avg", "uniform")


def _doubled(x: Float[Array, "b h w c"]) -> Float[Array, "b 2*h 2*w c"]:
    """Upsamples by 2 with nearest neighbours."""
    b, h, w, c = x.shape
    return jnp.broadcast_to(x[:, :, None, :, None], (b, h, 2, w, 2, c)).reshape(b, 2 * h, 2 * w, c)


def _halved(x: Float[Array, "b h w c"]) -> Float[Array, "b h/2 w/2 c"]:
    """Downsamples by 2: average pooling over 2x2 pixels."""
    b, h, w, c = x.shape
    return jnp.mean(x.reshape(b, h // 2, 2, w // 2, 2, c), axis=(2, 4))


class _UpBlock(nn.Module):
    """A residual block of the generator, which doubles the map.

    The 1x1 convolution of its shortcut comes before the doubling: the values are the same, at a quarter of the cost.
    """

    features: int
    norm: str
    num_classes: int | None
    dtype: layers.DType

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], label: Array | None, *, train: bool) -> Float[Array, "b 2*h 2*w f"]:
        def activated(x: Array, index: int) -> Array:
            x = layers.normalize_by_label(
                x, label, self.num_classes, self.norm, train=train, dtype=self.dtype, name=f"norm_{index}"
            )
            return jax.nn.relu(x)

        def conv(x: Array, kernel_size: int, gain: float, name: str, op: Op = ops.conv) -> Array:
            init = _xavier(gain)
            padding = kernel_size // 2
            return layers.Conv(
                self.features, kernel_size, padding=padding, op=op, dtype=self.dtype, kernel_init=init, name=name
            )(x)

        y = conv(activated(x, 0), 3, _RESIDUAL, "conv_0", ops.doubled_conv)
        y = conv(activated(y, 1), 3, _RESIDUAL, "conv_1")
        return y + _doubled(conv(x, 1, 1.0, "shortcut"))


class _DownBlock(nn.Module):
    """A residual block of the discriminator, which halves the map or keeps its size.

    The `first` block, which takes the image, begins with a convolution and has no normalisation of activations. A block
    that halves has a shortcut with a 1x1 convolution, applied after the halving: the values are the same, at a quarter
    of the cost. The shortcut of a block that keeps the size is the identity.
    """

    features: int
    norm: str
    dtype: layers.DType
    first: bool = False
    halve: bool = True

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], *, train: bool) -> Float[Array, "b hout wout f"]:
        def activated(x: Array, index: int) -> Array:
            norm = "none" if self.first else self.norm
            return jax.nn.relu(layers.normalize(x, norm, train=train, dtype=self.dtype, name=f"norm_{index}"))

        def conv(x: Array, kernel_size: int, gain: float, name: str, op: Op = ops.conv) -> Array:
            init, padding = _xavier(gain), kernel_size // 2
            layer = layers.Conv(
                self.features, kernel_size, padding=padding, op=op, dtype=self.dtype, kernel_init=init, name=name
            )
            return layers.spectral(layer, x, norm=self.norm, train=train)

        y = conv(x if self.first else activated(x, 0), 3, _RESIDUAL, "conv_0")
        y = conv(activated(y, 1), 3, _RESIDUAL, "conv_1", ops.conv_halved if self.halve else ops.conv)
        return y + (conv(_halved(x), 1, 1.0, "shortcut") if self.halve else x)


class ResNetGenerator(nn.Module):
    """Generator that maps latents to images `[b, image_size, image_size, channels]` in [-1, 1].

    Its layers are a dense layer to a 4x4 map, blocks that double the map up to the image's size, norm, ReLU, a 3x3
    convolution and tanh.

    Attributes:
      image_size: height and width in pixels: 8, 16, 32 or 64.
      channels: number of image channels.
      width: feature maps of every block.
      norm: normalisation of the activations: 'batch', 'layer' or 'none'.
      num_classes: number of classes of a conditional generator; None for an unconditional one. In the norms of the
        blocks each label then has its own scale and shift (conditional batch norm); those of the last norm are shared
        by all labels, as in the authors' code.
      dtype: dtype of the computation; parameters and images are float32.

    References:
      The papers and differences listed in `gan_jax.nets.resnet`.
    """

    image_size: int
    channels: int
    width: int = 256
    norm: str = "batch"
    num_classes: int | None = None
    dtype: layers.DType = jnp.float32

    @nn.compact
    def __call__(
        self, z: Float[Array, "b d"], label: Int[Array, " b"] | None = None, *, train: bool
    ) -> Float[Array, "b h w c"]:
        classes = 1 if self.num_classes is None else self.num_classes
        layers.check_settings(self.dtype, width=self.width, channels=self.channels, num_classes=classes)
        layers.check_norm(self, self.norm, "batch", "layer", "none")
        x = nn.Dense(16 * self.width, dtype=self.dtype, kernel_init=_xavier(), name="input")(z.astype(self.dtype))
        x = x.reshape(-1, 4, 4, self.width)
        for index in range(doublings(self.image_size)):
            block = _UpBlock(self.width, self.norm, self.num_classes, self.dtype, name=f"block_{index}")
            x = block(x, label, train=train)
        x = jax.nn.relu(layers.normalize(x, self.norm, train=train, dtype=self.dtype, name="norm"))
        x = layers.Conv(self.channels, 3, padding=1, dtype=self.dtype, kernel_init=_xavier(), name="output")(x)
        return jnp.tanh(x.astype(jnp.float32))


class ResNetDiscriminator(nn.Module):
    """Discriminator that maps images to logits `[b]`.

    Its layers are blocks that halve the image, two blocks that keep its size, ReLU, the sum over all positions, and a
    dense layer to one logit. The sum and the logit are computed in float32.

    Attributes:
      width: feature maps of every block.
      norm: normalisation: 'spectral' (spectral norm of all kernels), 'layer' (layer norm before each ReLU of every
        block but the first, as in WGAN-GP's critics) or 'none'. 'batch' is an error: it would make a logit depend on
        the other examples.
      num_classes: number of classes of a projection discriminator; None for an unconditional one.
      dtype: dtype of the computation; parameters and logits are float32.

    References:
      The papers and differences listed in `gan_jax.nets.resnet`. The logit of the authors' 32x32 discriminator has no
      bias; mimicry's and this one have. The authors' epsilon of spectral norm is the same as here, 1e-12; see
      `layers.spectral`.
    """

    width: int = 128
    norm: str = "spectral"
    num_classes: int | None = None
    dtype: layers.DType = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], label: Int[Array, " b"] | None = None, *, train: bool
    ) -> Float[Array, " b"]:
        classes = 1 if self.num_classes is None else self.num_classes
        check_images(x=x)
        layers.check_settings(self.dtype, width=self.width, num_classes=classes)
        layers.check_norm(self, self.norm, "spectral", "layer", "none")
        if x.shape[1] != x.shape[2]:
            raise InvalidInputError(f"x {x.shape}: these networks take square images; crop them in the data source")
        halvings = max(1, doublings(x.shape[1]) - 1)
        x = x.astype(self.dtype)
        for index in range(halvings + 2):
            block = _DownBlock(
                self.width, self.norm, self.dtype, first=index == 0, halve=index < halvings, name=f"block_{index}"
            )
            x = block(x, train=train)
        features = jnp.sum(jax.nn.relu(x).astype(jnp.float32), axis=(1, 2))
        dense = nn.Dense(1, kernel_init=_xavier(), name="logit")
        logits = layers.spectral(dense, features, norm=self.norm, train=train)[:, 0]
        return logits + layers.project_label(
            features, label, self.num_classes, norm=self.norm, train=train, embedding_init=_xavier()
        )
