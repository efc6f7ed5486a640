"""Multi-layer perceptrons, as in the first GAN (2014) and for two-dimensional toy data."""

import math

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from gan_jax.nets import layers


class MLPGenerator(nn.Module):
    """Generator that maps latents to samples of any shape.

    Attributes:
      shape: shape of one sample, such as `(28, 28, 1)` or `(2,)`.
      features: width of each hidden layer.
      norm: normalisation after each hidden layer's activation: 'batch', 'layer' or 'none'.
      bounded: whether the output goes through tanh, for images in [-1, 1].
      num_classes: number of classes of a conditional generator, which appends an embedding of the label to the
        latents; None for an unconditional one.
      dtype: dtype of the computation; parameters and outputs are float32.
    """

    shape: tuple[int, ...]
    features: tuple[int, ...] = (256, 512, 1024)
    norm: str = "none"
    bounded: bool = True
    num_classes: int | None = None
    dtype: layers.DType = jnp.float32

    @nn.compact
    def __call__(
        self, z: Float[Array, "b d"], label: Int[Array, " b"] | None = None, *, train: bool
    ) -> Float[Array, "b ..."]:
        layers.check_settings(self.dtype, features=min(self.features, default=1))
        layers.check_norm(self, self.norm, "batch", "layer", "none")
        x = layers.append_label(z.astype(self.dtype), label, self.num_classes, 32)
        for index, features in enumerate(self.features):
            x = layers.leaky_relu(nn.Dense(features, dtype=self.dtype, name=f"dense_{index}")(x))
            x = layers.normalize(x, self.norm, train=train, dtype=self.dtype, name=f"norm_{index}")
        x = nn.Dense(math.prod(self.shape), dtype=self.dtype, name="output")(x).astype(jnp.float32)
        return (jnp.tanh(x) if self.bounded else x).reshape(-1, *self.shape)


class MLPDiscriminator(nn.Module):
    """Discriminator that maps samples of any shape to logits `[b]`, or to a dict of logits and activations of a layer.

    Attributes:
      features: width of each hidden layer.
      dropout: fraction of the hidden units dropped in training.
      num_classes: number of classes of a projection discriminator; None for an unconditional one.
      dtype: dtype of the computation; parameters and logits are float32.
      norm: normalisation: 'batch' or 'layer' (after each hidden activation), 'spectral' (spectral norm of the kernels)
        or 'none'. A gradient penalty needs one that treats examples independently: any but 'batch'.
      feature_layer: index, from 0, of the layer whose activations are returned too: the output is then a dict with
        'logits' and 'features', float32. None for logits alone.
    """

    features: tuple[int, ...] = (512, 256)
    dropout: float = 0.0
    num_classes: int | None = None
    dtype: layers.DType = jnp.float32
    norm: str = "none"
    feature_layer: int | None = None

    @nn.compact
    def __call__(
        self, x: Float[Array, "b ..."], label: Int[Array, " b"] | None = None, *, train: bool
    ) -> Float[Array, " b"] | dict[str, Array]:
        layers.check_settings(self.dtype, features=min(self.features, default=1))
        layers.check_norm(self, self.norm, "batch", "layer", "spectral", "none")
        layers.check_dropout(self.dropout)
        x, activations = x.reshape(x.shape[0], -1).astype(self.dtype), list[Array]()
        for index, features in enumerate(self.features):
            dense = nn.Dense(features, dtype=self.dtype, name=f"dense_{index}")
            x = layers.leaky_relu(layers.spectral(dense, x, norm=self.norm, train=train))
            x = layers.normalize(x, self.norm, train=train, dtype=self.dtype, name=f"norm_{index}")
            x = nn.Dropout(self.dropout, deterministic=not train)(x)
            activations.append(x)
        dense = nn.Dense(1, dtype=self.dtype, name="logit")
        logits = layers.spectral(dense, x, norm=self.norm, train=train)[:, 0].astype(jnp.float32)
        logits = logits + layers.project_label(x, label, self.num_classes, norm=self.norm, train=train)
        return layers.with_features(logits, activations, self.feature_layer)
