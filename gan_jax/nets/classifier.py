"""A small classifier of small images, whose features replace Inception's where nothing can be downloaded."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gan_jax.nets import layers
from gan_jax.types import InvalidInputError, check_images


class Classifier(nn.Module):
    """Classifier that maps images `[b, h, w, c]` in [-1, 1], 8x8 or larger, to features `[b, features]` and logits.

    As long as the map is at least 8x8, two convolutions follow: one of kernel 3 and stride 1, and one of kernel 4 and
    stride 2 with twice as many feature maps. Each is followed by batch norm and ReLU. Then come the mean over the map,
    a dense layer with ReLU, whose outputs are the features, and a dense layer to the logits.

    Attributes:
      num_classes: number of classes.
      width: feature maps of the first convolution.
      features: number of features.
    """

    num_classes: int
    width: int = 32
    features: int = 128

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], *, train: bool
    ) -> tuple[Float[Array, "b features"], Float[Array, "b classes"]]:
        check_images(x=x)
        layers.check_settings(jnp.float32, num_classes=self.num_classes, width=self.width, features=self.features)
        if min(x.shape[1:3]) < 8:
            raise InvalidInputError(f"images of {x.shape[1]}x{x.shape[2]}: the classifier takes 8x8 or more")
        init, level = nn.initializers.he_normal(), 0
        while min(x.shape[1:3]) >= 8:
            for name, width, kernel, stride in (("plain", 1, 3, 1), ("halved", 2, 4, 2)):
                x = layers.Conv(
                    self.width * width << level, kernel, stride, 1, use_bias=False, kernel_init=init,
                    name=f"{name}_{level}",
                )(x)  # fmt: skip
                x = jax.nn.relu(
                    nn.BatchNorm(use_running_average=not train, momentum=0.9, name=f"{name}_norm_{level}")(x)
                )
            level += 1
        features = jax.nn.relu(nn.Dense(self.features, name="features")(jnp.mean(x, axis=(1, 2))))
        return features, nn.Dense(self.num_classes, name="logits")(features)
