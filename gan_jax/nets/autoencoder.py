"""Encoders of autoencoders: they map images to the mean and the log variance of a normal distribution of latents.

Decoders are the generators of the other families, such as `DCGANGenerator` and `MLPGenerator`: an autoencoder and a GAN
that are compared can thus have the same decoder.
"""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from gan_jax.nets import layers
from gan_jax.nets.dcgan import halvings
from gan_jax.types import check_images

# A variance of e^-30 to e^20: beyond, exp over- or underflows in float32 and the KL divergence has no useful gradient.
_LOG_VARIANCES = (-30.0, 20.0)
Posterior = tuple[Float[Array, "b d"], Float[Array, "b d"]]


class MLPEncoder(nn.Module):
    """Encoder of samples of any shape, with dense layers.

    Attributes:
      latents: number of latent variables.
      features: width of each hidden layer.
      norm: normalisation after each hidden layer's activation: 'batch', 'layer' or 'none'.
      dtype: dtype of the computation; parameters and outputs are float32.
    """

    latents: int
    features: tuple[int, ...] = (512, 256)
    norm: str = "none"
    dtype: layers.DType = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b ..."], *, train: bool) -> Posterior:
        layers.check_settings(self.dtype, latents=self.latents, features=min(self.features, default=1))
        layers.check_norm(self, self.norm, "batch", "layer", "none")
        x = x.reshape(x.shape[0], -1).astype(self.dtype)
        for index, features in enumerate(self.features):
            x = layers.leaky_relu(nn.Dense(features, dtype=self.dtype, name=f"dense_{index}")(x))
            x = layers.normalize(x, self.norm, train=train, dtype=self.dtype, name=f"norm_{index}")
        return _posterior(x, self.latents, self.dtype)


class DCGANEncoder(nn.Module):
    """Encoder of square images of 8 to 64 pixels: the mirror image of `DCGANGenerator`, the discriminator's layers.

    Attributes:
      latents: number of latent variables.
      width: feature maps of the first layer; their number doubles at every halving of the resolution.
      norm: normalisation of all activations but the first layer's: 'batch', 'layer' or 'none'.
      dtype: dtype of the computation; parameters and outputs are float32.
    """

    latents: int
    width: int = 64
    norm: str = "batch"
    dtype: layers.DType = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], *, train: bool) -> Posterior:
        check_images(x=x)
        layers.check_settings(self.dtype, latents=self.latents, width=self.width)
        layers.check_norm(self, self.norm, "batch", "layer", "none")
        x = x.astype(self.dtype)
        for level in range(halvings(x.shape[1])):
            norm = "none" if level == 0 else self.norm
            conv = layers.Conv(
                self.width << level, 4, 2, 1, use_bias=norm == "none", dtype=self.dtype, name=f"down_{level}"
            )
            x = layers.leaky_relu(layers.normalize(conv(x), norm, train=train, dtype=self.dtype, name=f"norm_{level}"))
        return _posterior(x.reshape(x.shape[0], -1), self.latents, self.dtype)


def _posterior(x: Array, latents: int, dtype: layers.DType) -> Posterior:
    mean, log_variance = (
        nn.Dense(latents, dtype=dtype, kernel_init=layers.dcgan_init, name=name)(x).astype(jnp.float32)
        for name in ("mean", "log_variance")
    )
    return mean, jnp.clip(log_variance, *_LOG_VARIANCES)
