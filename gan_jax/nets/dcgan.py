"""DCGAN's networks, for square images of 8 to 64 pixels with any number of channels.

Radford, Metz and Chintala, "Unsupervised Representation Learning with Deep Convolutional Generative Adversarial
Networks", arXiv:1511.06434, 2015: 4x4 kernels of stride 2, batch norm everywhere but at the generator's output and the
discriminator's input, ReLU in the generator, leaky ReLU in the discriminator, weights from N(0, 0.02^2).

The paper's images are 64x64. Here an image is halved as long as the result is at least 4x4: sizes 64, 32 and 16 end at
4, 28 at 7, and 48 at 6. Images of 8 and 12 pixels are halved twice, to 2 and 3, since one layer would not be enough.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from gan_jax import ops
from gan_jax.nets import layers
from gan_jax.types import InvalidInputError, check_images


def halvings(image_size: int) -> int:
    """Returns how many times an image is halved until it reaches the smallest map.

    Args:
      image_size: height and width in pixels.

    Returns:
      The number of stride-2 layers, from 2 to 4.

    Raises:
      InvalidInputError: for a size outside 8 to 64, a size that can be halved only once, or a size whose smallest map
        would be larger than 7.
    """
    count, size = 0, image_size
    while size % 2 == 0 and (size >= 8 or count == 1):
        count, size = count + 1, size // 2
    if not 8 <= image_size <= 64 or size > 7 or count < 2:
        raise InvalidInputError(
            f"image_size={image_size}: DCGAN takes 8, 12, 16, 20, 24, 28, 32, 40, 48, 56 or 64 pixels; "
            "resize the images in the data source"
        )
    return count


class DCGANGenerator(nn.Module):
    """Generator that maps latents to images `[b, image_size, image_size, channels]` in [-1, 1].

    Attributes:
      image_size: height and width in pixels.
      channels: number of image channels.
      width: feature maps before the last layer; their number doubles at every halving of the resolution.
      norm: normalisation of the activations: 'batch', 'layer' or 'none'.
      num_classes: number of classes of a conditional generator, which appends an embedding of the label to the
        latents; None for an unconditional one.
      dtype: dtype of the computation; parameters and images are float32.
      bounded: whether the output goes through tanh; without it, the outputs can be log odds of binary pixels.
    """

    image_size: int
    channels: int
    width: int = 64
    norm: str = "batch"
    num_classes: int | None = None
    dtype: layers.DType = jnp.float32
    bounded: bool = True

    @nn.compact
    def __call__(
        self, z: Float[Array, "b d"], label: Int[Array, " b"] | None = None, *, train: bool
    ) -> Float[Array, "b h w c"]:
        layers.check_settings(self.dtype, width=self.width, channels=self.channels)
        layers.check_norm(self, self.norm, "batch", "layer", "none")
        count = halvings(self.image_size)
        size = self.image_size >> count
        features = self.width << (count - 1)
        bias = self.norm == "none"
        x = layers.append_label(z.astype(self.dtype), label, self.num_classes, 32)
        x = nn.Dense(
            size * size * features, use_bias=bias, dtype=self.dtype, kernel_init=layers.dcgan_init, name="input"
        )(x)
        x = x.reshape(-1, size, size, features)
        x = jax.nn.relu(layers.normalize(x, self.norm, train=train, dtype=self.dtype, name="norm_input"))
        for level in reversed(range(1, count)):
            x = layers.Conv(
                self.width << (level - 1),
                4,
                2,
                1,
                op=ops.conv_transpose,
                use_bias=bias,
                dtype=self.dtype,
                name=f"up_{level}",
            )(x)
            x = jax.nn.relu(layers.normalize(x, self.norm, train=train, dtype=self.dtype, name=f"norm_{level}"))
        x = layers.Conv(self.channels, 4, 2, 1, op=ops.conv_transpose, dtype=self.dtype, name="output")(x)
        return jnp.tanh(x.astype(jnp.float32)) if self.bounded else x.astype(jnp.float32)


class DCGANDiscriminator(nn.Module):
    """Discriminator that maps images to logits `[b]`, or to a dict of logits and the activations of a layer.

    Attributes:
      width: feature maps of the first layer; their number doubles at every halving of the resolution.
      norm: normalisation: 'batch', 'layer', 'spectral' (spectral norm of the kernels) or 'none'. A gradient penalty
        needs one that treats examples independently: any but 'batch'.
      num_classes: number of classes of a projection discriminator; None for an unconditional one.
      dtype: dtype of the computation; parameters and logits are float32.
      feature_layer: index, from 0, of the layer whose activations are returned too: the output is then a dict with
        'logits' and 'features', float32. None for logits alone.
    """

    width: int = 64
    norm: str = "batch"
    num_classes: int | None = None
    dtype: layers.DType = jnp.float32
    feature_layer: int | None = None

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], label: Int[Array, " b"] | None = None, *, train: bool
    ) -> Float[Array, " b"] | dict[str, Array]:
        check_images(x=x)
        layers.check_settings(self.dtype, width=self.width)
        layers.check_norm(self, self.norm, "batch", "layer", "spectral", "none")
        x, activations = x.astype(self.dtype), list[Array]()
        for level in range(halvings(x.shape[1])):
            # as in the paper, the input layer's activations are not normalised; spectral norm is for every kernel
            norm = "none" if level == 0 and self.norm != "spectral" else self.norm
            bias = norm in ("none", "spectral")
            conv = layers.Conv(self.width << level, 4, 2, 1, use_bias=bias, dtype=self.dtype, name=f"down_{level}")
            x = layers.spectral(conv, x, norm=norm, train=train)
            x = layers.leaky_relu(layers.normalize(x, norm, train=train, dtype=self.dtype, name=f"norm_{level}"))
            activations.append(x)
        x = x.reshape(x.shape[0], -1)
        dense = nn.Dense(1, dtype=self.dtype, kernel_init=layers.dcgan_init, name="logit")
        logits = layers.spectral(dense, x, norm=self.norm, train=train)[:, 0].astype(jnp.float32)
        logits = logits + layers.project_label(x, label, self.num_classes, norm=self.norm, train=train)
        return layers.with_features(logits, activations, self.feature_layer)
