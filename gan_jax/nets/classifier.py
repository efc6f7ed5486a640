"""A small classifier of small images, whose features replace Inception's where nothing can be downloaded."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

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


def classifier_maps(classifier: Classifier) -> Callable[[PyTree, Array], list[Array]]:
    """Creates the function that computes a classifier's feature maps, for a perceptual loss without a download.

    Args:
      classifier: the classifier.

    Returns:
      `((params, model_state), images) -> maps`, for images in [-1, 1]: the activations of all convolutions, `[b, h, w,
      c]`, from the finest on. Compare them with `losses.perceptual(..., normalize=True)`. That distance is not LPIPS:
      its network knows one data set, and its weights are not fitted to people's judgements.
    """

    def maps(weights: PyTree, images: Float[Array, "b h w c"]) -> list[Float[Array, "b i j d"]]:
        params, model_state = weights
        _, seen = classifier.apply(
            {"params": params, **model_state}, images, train=False, mutable=["intermediates"],
            capture_intermediates=lambda module, name: isinstance(module, nn.BatchNorm),
        )  # fmt: skip
        found = seen["intermediates"]
        levels = range(len(found) // 2)  # two norms at each level
        names = [f"{kind}_norm_{level}" for level in levels for kind in ("plain", "halved")]
        return [jax.nn.relu(found[name]["__call__"][0]) for name in names]

    return maps
