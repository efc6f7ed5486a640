"""SPADE: normalisation by a segmentation map, its residual block, and the generator that is built of it.

Park et al., "Semantic Image Synthesis with Spatially-Adaptive Normalization", arXiv:1903.07291, 2019. Layers and
parameters are those of the authors' PyTorch code. Kernels are Xavier-normal with gain 0.02, as in that code.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gan_jax.nets import layers
from gan_jax.nets.translation import cut_init
from gan_jax.types import InvalidInputError, check_images

Images = Float[Array, "b h w c"]
Segmentation = Float[Array, "b H W classes"]


def resized(segmentation: Segmentation, height: int, width: int) -> Float[Array, "b h w classes"]:
    """Resizes a segmentation map with nearest neighbours: row i of the result is row floor(i H / h), as in PyTorch."""
    rows, columns = (
        jnp.arange(size) * whole // size for size, whole in zip((height, width), segmentation.shape[1:3], strict=True)
    )
    return segmentation[:, rows][:, :, columns]


class SPADE(nn.Module):
    """Normalises activations, with a scale and a shift for every pixel that are computed from a segmentation map.

    norm(x) (1 + gamma(s)) + beta(s), where s is the map at the size of x, norm has no learned scale and shift, and
    gamma and beta are 3x3 convolutions of relu(conv3x3(s)).

    Attributes:
      hidden: feature maps of the convolution that gamma and beta share.
      norm: normalisation of the activations: 'batch' or 'instance'.
      dtype: dtype of the computation.
      kernel_init: initialiser of the kernels.
    """

    hidden: int = 128
    norm: str = "batch"
    dtype: layers.DType = jnp.float32
    kernel_init: layers.Initializer = cut_init

    @nn.compact
    def __call__(self, x: Images, segmentation: Segmentation, *, train: bool) -> Images:
        layers.check_norm(self, self.norm, "batch", "instance")

        def conv(y: Array, features: int, name: str) -> Array:
            return layers.Conv(
                features, 3, padding=1, dtype=self.dtype, kernel_init=self.kernel_init, name=name
            )(y)  # fmt: skip

        s = resized(segmentation, x.shape[1], x.shape[2])
        shared = jax.nn.relu(conv(s, self.hidden, "shared"))
        x = layers.normalize(x, self.norm, train=train, dtype=self.dtype, name="norm", affine=False)
        return x * (1 + conv(shared, x.shape[-1], "gamma")) + conv(shared, x.shape[-1], "beta")


class SPADEBlock(nn.Module):
    """Residual block of SPADE's generator: twice SPADE, leaky ReLU and a 3x3 convolution, added to the input.

    Where the number of feature maps changes, the shortcut is a SPADE normalisation and a 1x1 convolution without bias,
    with no activation. All three convolutions have spectral norm; those of the normalisations have none.

    Attributes:
      features: feature maps of the result.
      hidden: feature maps of the convolution that gamma and beta of each normalisation share.
      norm: normalisation of the activations: 'batch' or 'instance'.
      dtype: dtype of the computation.
      kernel_init: initialiser of the kernels.
    """

    features: int
    hidden: int = 128
    norm: str = "batch"
    dtype: layers.DType = jnp.float32
    kernel_init: layers.Initializer = cut_init

    @nn.compact
    def __call__(self, x: Images, segmentation: Segmentation, *, train: bool) -> Float[Array, "b h w features"]:
        layers.check_norm(self, self.norm, "batch", "instance")

        def normalized(y: Array, name: str) -> Array:
            return SPADE(self.hidden, self.norm, self.dtype, self.kernel_init, name=f"spade_{name}")(
                y, segmentation, train=train
            )

        def conv(y: Array, features: int, kernel_size: int, name: str) -> Array:
            layer = layers.Conv(
                features, kernel_size, padding=kernel_size // 2, use_bias=kernel_size > 1, dtype=self.dtype,
                kernel_init=self.kernel_init, name=f"conv_{name}",
            )  # fmt: skip
            return layers.spectral(layer, y, norm="spectral", train=train)

        y = conv(layers.leaky_relu(normalized(x, "0")), min(x.shape[-1], self.features), 3, "0")
        y = conv(layers.leaky_relu(normalized(y, "1")), self.features, 3, "1")
        if x.shape[-1] == self.features:
            return x + y
        return conv(normalized(x, "shortcut"), self.features, 1, "shortcut") + y


class SPADEGenerator(nn.Module):
    """Generator from segmentation maps to images of the same size: SPADE's, without its encoder of styles.

    The map at 1/2^doublings of its size is the input of a convolution and seven blocks, of 16, 16, 16, 8, 4, 2 and 1
    times `width` feature maps; the map is doubled with nearest neighbours before the second and each of the last four
    blocks. With 6 doublings, it is doubled before the third too. Height and width must be multiples of 2^doublings.

    Attributes:
      channels: number of channels of the image.
      width: feature maps of the last block.
      doublings: 5, or 6 for larger images; the authors' `num_upsampling_layers` 'normal' and 'more'.
      hidden: feature maps of the convolution that gamma and beta of each normalisation share.
      norm: normalisation of the activations: 'batch' or 'instance'.
      dtype: dtype of the computation; parameters and images are float32.
      kernel_init: initialiser of the kernels.
    """

    channels: int
    width: int = 64
    doublings: int = 5
    hidden: int = 128
    norm: str = "batch"
    dtype: layers.DType = jnp.float32
    kernel_init: layers.Initializer = cut_init

    @nn.compact
    def __call__(self, segmentation: Segmentation, *, train: bool) -> Float[Array, "b h w channels"]:
        layers.check_settings(self.dtype, channels=self.channels, width=self.width)
        layers.check_norm(self, self.norm, "batch", "instance")
        check_images(segmentation=segmentation)
        height, width = segmentation.shape[1:3]
        factor = 1 << self.doublings
        if self.doublings not in (5, 6) or height % factor or width % factor:
            raise InvalidInputError(
                f"doublings={self.doublings}, maps of {height}x{width} pixels: expected 5 or 6 doublings, and height "
                f"and width that are multiples of {factor}; crop, pad or resize the maps"
            )

        def conv(y: Array, features: int, name: str) -> Array:
            return layers.Conv(
                features, 3, padding=1, dtype=self.dtype, kernel_init=self.kernel_init, name=name
            )(y)  # fmt: skip

        x = conv(resized(segmentation, height // factor, width // factor), 16 * self.width, "first")
        doubled = (False, True, self.doublings == 6, True, True, True, True)
        for index, (share, doubles) in enumerate(zip((16, 16, 16, 8, 4, 2, 1), doubled, strict=True)):
            x = x.repeat(2, axis=1).repeat(2, axis=2) if doubles else x
            block = SPADEBlock(
                share * self.width, self.hidden, self.norm, self.dtype, self.kernel_init, name=f"block_{index}"
            )
            x = block(x, segmentation, train=train)
        return jnp.tanh(conv(layers.leaky_relu(x), self.channels, "image")).astype(jnp.float32)
