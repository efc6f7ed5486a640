"""StyleGAN2's networks, for square images whose size is a power of two, at least 8 pixels.

Karras et al., "Analyzing and Improving the Image Quality of StyleGAN", arXiv:1912.04958, 2020. The defaults are the
paper's config F: a skip generator, a residual discriminator, and `min(fmap_base / r, fmap_max)` feature maps at
resolution r, with fmap_base 32768 and fmap_max 512. (The authors' first code has 16 << 10, which means the same there.)
At 1024x1024 that is 30.4 million parameters in the generator and 29.0 million in the discriminator.

Every kernel is drawn from N(0, 1) and multiplied by 1 / sqrt(fan-in) each time it is used (equalised learning rate).
Every leaky ReLU has slope 0.2, and its output is multiplied by sqrt(2).
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from gan_jax import ops
from gan_jax.nets import layers
from gan_jax.types import InvalidInputError, check_images

_TAPS = (0.125, 0.375, 0.375, 0.125)  # the filter (1, 3, 3, 1), scaled to sum 1


def modulated_conv(
    x: Float[Array, "b h w cin"], kernel: Float[Array, "k k cin cout"], style: Float[Array, "b cin"], *,
    up: bool = False, demodulate: bool = True,
) -> Float[Array, "b hout wout cout"]:  # fmt: skip
    """Convolves each example with its own kernel: the shared kernel, scaled by the example's style.

    The kernel of example n is k_n[u, v, i, o] = style[n, i] kernel[u, v, i, o]. With `demodulate` it is divided by
    sqrt(sum over u, v, i of k_n^2 + 1e-8), so that white noise of variance 1 keeps that variance. Here the inputs are
    multiplied by the style and the outputs divided by the root. The result is the same, as both factors are constant
    over an image, and the whole batch shares one convolution.

    Args:
      x: feature maps.
      kernel: the shared kernel, `[k, k, in, out]` with k odd. The convolution keeps the size of the maps.
      style: factors of the input channels.
      up: whether to double the size, by a transposed convolution of stride 2 and then the filter (1, 3, 3, 1).
      demodulate: whether to divide by the root above.

    Returns:
      `[b, h, w, out]`, or with `up` `[b, 2h, 2w, out]`, in the dtype of `x`. The root is computed in float32 or wider.

    References:
      Karras et al., arXiv:1912.04958, 2020, equations 1 to 3. The authors' code scales either kernels or images; scaled
      kernels need a grouped convolution, with one group per example. Some ports apply the filter before the kernel, or
      replace both by nearest-neighbour upsampling.
    """
    size = kernel.shape[0]
    y, shared = x * style[:, None, None, :].astype(x.dtype), kernel.astype(x.dtype)
    if up:
        y = ops.conv_transpose(y, shared, stride=2)
        # padded so that the filter leaves 2 h of the 2 (h - 1) + k rows; its gain, 2 per axis, makes up for the zeros
        # that the stride puts between pixels
        padding = (5 - size) // 2
        y = ops.upfirdn(y, [2 * tap for tap in _TAPS], padding=(padding, padding))
    else:
        y = ops.conv(y, shared, padding=size // 2)
    if demodulate:
        squared = jnp.sum(kernel**2, axis=(0, 1))
        y = y * jax.lax.rsqrt(style**2 @ squared + 1e-8)[:, None, None, :].astype(x.dtype)
    return y


def minibatch_stddev(x: Float[Array, "b h w c"], group_size: int) -> Float[Array, "b h w cplus1"]:
    """Appends a feature map with the variation within an example's group, so that a critic notices a lack of variety.

    The map holds the standard deviation over the group (the root of the biased variance plus 1e-8), averaged over
    pixels and channels. It is the same number for all examples and pixels of the group.

    Args:
      x: feature maps.
      group_size: number of examples in a group, which are neighbours in the batch. A batch smaller than that is one
        group. If several devices share the batch, each should hold whole groups; else they exchange activations.

    Returns:
      `[b, h, w, c + 1]`, in the dtype of `x`.

    Raises:
      InvalidInputError: for a batch that does not divide into groups.

    References:
      Karras et al., "Progressive Growing of GANs for Improved Quality, Stability, and Variation", arXiv:1710.10196,
      2017. The authors' code makes a group of every (b / group_size)-th example, and so other groups on several
      devices. If the examples are in random order, the choice of groups makes no difference.
    """
    b, h, w, c = x.shape
    group = min(group_size, b)
    if group < 1 or b % group:
        raise InvalidInputError(
            f"group_size={group_size}: a batch of {b} does not divide into groups of this size; choose another "
            "batch_size (with microbatches, it is the size of one part that counts) or group_size"
        )
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32)).reshape(b // group, group, h, w, c)
    std = jnp.sqrt(jnp.var(wide, axis=1) + 1e-8)
    mean = jnp.mean(std, axis=(1, 2, 3))[:, None, None, None, None]
    varied = jnp.broadcast_to(mean, (b // group, group, h, w, 1)).reshape(b, h, w, 1)
    return jnp.concatenate([x, varied.astype(x.dtype)], axis=-1)


def levels(image_size: int) -> int:
    """Returns how many times an image is halved to reach 4x4.

    Raises:
      InvalidInputError: for a size that is not a power of two, or is below 8.
    """
    count = image_size.bit_length() - 3
    if image_size < 8 or image_size != 4 << count:
        raise InvalidInputError(
            f"image_size={image_size}: StyleGAN2 takes powers of two from 8; resize the images in the data source"
        )
    return count


def style_layers(image_size: int) -> int:
    """Returns the number of styles, 2 log2(size) - 2: one for each convolution and one for the last image layer."""
    return 2 * levels(image_size) + 2


def _activate(x: Array) -> Array:
    return layers.leaky_relu(x) * math.sqrt(2)


def _normalize(x: Float[Array, "b d"]) -> Float[Array, "b d"]:
    """Divides each example by its root mean square."""
    return x * jax.lax.rsqrt(jnp.mean(x**2, axis=-1, keepdims=True) + 1e-8)


class EqualDense(nn.Module):
    """A dense layer with equalised learning rate; its parameters learn `lr_multiplier` times as fast as others."""

    features: int
    bias: float = 0.0
    lr_multiplier: float = 1.0
    dtype: layers.DType = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b d"]) -> Float[Array, "b features"]:
        # stored 1 / lr_multiplier times as large: a step of Adam, whose size stays the same, then changes them less
        normal = nn.initializers.normal(1.0 / self.lr_multiplier)
        kernel = self.param("kernel", normal, (x.shape[-1], self.features), jnp.float32)
        bias = self.param(
            "bias", nn.initializers.constant(self.bias / self.lr_multiplier), (self.features,), jnp.float32
        )
        kernel = (kernel * (self.lr_multiplier / math.sqrt(x.shape[-1]))).astype(self.dtype)
        return x.astype(self.dtype) @ kernel + (bias * self.lr_multiplier).astype(self.dtype)


class EqualConv(nn.Module):
    """A convolution with equalised learning rate. With `down` it halves the size, after the filter (1, 3, 3, 1)."""

    features: int
    kernel_size: int
    down: bool = False
    use_bias: bool = True
    dtype: layers.DType = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b hout wout features"]:
        x = x.astype(self.dtype)
        kernel = _equal_kernel(self, (self.kernel_size, self.kernel_size, x.shape[-1], self.features))
        kernel, half = kernel.astype(self.dtype), self.kernel_size // 2
        if not self.down:
            y = ops.conv(x, kernel, padding=half)
        elif self.kernel_size == 1:
            y = ops.conv(ops.blur_pool(x), kernel)  # the same values at a quarter of the cost
        else:
            y = ops.conv(ops.upfirdn(x, _TAPS, padding=(half + 1, half + 1)), kernel, stride=2)
        return _add_bias(self, y) if self.use_bias else y


def _equal_kernel(module: nn.Module, shape: tuple[int, ...]) -> Array:
    return module.param("kernel", nn.initializers.normal(1.0), shape, jnp.float32) / math.sqrt(math.prod(shape[:-1]))


def _add_bias(module: nn.Module, x: Array) -> Array:
    return x + module.param("bias", nn.initializers.zeros, (x.shape[-1],), jnp.float32).astype(x.dtype)


class StyledConv(nn.Module):
    """A 3x3 modulated convolution, followed by noise, bias and activation.

    The noise is one N(0, 1) draw per example and pixel, from the random stream `noise`, times a learned strength that
    starts at 0. If that stream has no key, no noise is added.
    """

    features: int
    up: bool = False
    dtype: layers.DType = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], w: Float[Array, "b d"]) -> Float[Array, "b hout wout features"]:
        style = EqualDense(x.shape[-1], bias=1.0, name="style")(w)
        kernel = _equal_kernel(self, (3, 3, x.shape[-1], self.features))
        x = modulated_conv(x, kernel, style, up=self.up)
        strength = self.param("noise_strength", nn.initializers.zeros, (), jnp.float32)
        if self.has_rng("noise"):
            noise = strength * jax.random.normal(self.make_rng("noise"), (*x.shape[:3], 1))
            x = x + noise.astype(x.dtype)
        return _activate(_add_bias(self, x))


class ToImage(nn.Module):
    """A 1x1 modulated convolution, without demodulation, to the channels of the image; the output is float32."""

    channels: int

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], w: Float[Array, "b d"]) -> Float[Array, "b h w channels"]:
        style = EqualDense(x.shape[-1], bias=1.0, name="style")(w)
        kernel = _equal_kernel(self, (1, 1, x.shape[-1], self.channels))
        y = modulated_conv(x, kernel, style, demodulate=False).astype(jnp.float32)
        return _add_bias(self, y)


class StyleGAN2Mapping(nn.Module):
    """Mapping network from latents (and labels) to styles `[b, num_layers, style_size]`, the same for every layer.

    Attributes:
      num_layers: number of styles that the synthesis network takes, see `style_layers`.
      style_size: size of the style w of one layer.
      depth: number of dense layers.
      lr_multiplier: learning rate of the dense layers, relative to that of other layers.
      num_classes: number of classes of a conditional network, which appends an embedding of the label to the latents,
        both normalised; None for an unconditional one.
    """

    num_layers: int
    style_size: int = 512
    depth: int = 8
    lr_multiplier: float = 0.01
    num_classes: int | None = None

    @nn.compact
    def __call__(
        self, z: Float[Array, "b d"], label: Int[Array, " b"] | None = None, *, train: bool
    ) -> Float[Array, "b layers style"]:
        del train
        layers.check_settings(
            "float32", num_layers=self.num_layers, style_size=self.style_size, mapping_layers=self.depth
        )
        x = _normalize(z.astype(jnp.float32))
        if self.num_classes is not None:
            embedding = LabelEmbedding(self.num_classes, self.style_size, name="label")(label)
            x = jnp.concatenate([x, embedding], axis=-1)
        x = MappingLayers(self.style_size, self.depth, self.lr_multiplier, name="dense")(x)
        return jnp.broadcast_to(x[:, None], (x.shape[0], self.num_layers, self.style_size))


class LabelEmbedding(nn.Module):
    """An embedding of class labels, as vectors of mean square 1."""

    num_classes: int
    features: int

    @nn.compact
    def __call__(self, label: Int[Array, " b"] | None) -> Float[Array, "b features"]:
        return _normalize(
            EqualDense(self.features, name="embed")(jax.nn.one_hot(layers.given(label), self.num_classes))
        )


class MappingLayers(nn.Module):
    """A stack of `depth` dense layers with activations, all of the width `features`."""

    features: int
    depth: int
    lr_multiplier: float

    @nn.compact
    def __call__(self, x: Float[Array, "b d"]) -> Float[Array, "b features"]:
        for index in range(self.depth):
            x = _activate(EqualDense(self.features, lr_multiplier=self.lr_multiplier, name=f"layer_{index}")(x))
        return x


class StyleGAN2Synthesis(nn.Module):
    """Synthesis network from styles to images `[b, image_size, image_size, channels]`, not bounded but near [-1, 1].

    The network starts from a learned 4x4 map. Each resolution has two styled convolutions, of which the first doubles
    the size; 4x4 has only one. Then an image layer adds its image to the upsampled image of the resolution below. The
    image layer shares its style with the first convolution of the next resolution, as in the authors' code.

    Attributes:
      image_size: height and width in pixels, a power of two.
      channels: number of image channels.
      fmap_base: sets the number of feature maps at resolution r, `min(fmap_base / r, fmap_max)`.
      fmap_max: largest number of feature maps.
      dtype: dtype of the convolutions; parameters, styles and images are float32.
    """

    image_size: int
    channels: int
    fmap_base: int = 32768
    fmap_max: int = 512
    dtype: layers.DType = jnp.float32

    @nn.compact
    def __call__(self, w: Float[Array, "b layers d"], *, train: bool) -> Float[Array, "b h w c"]:
        del train
        layers.check_settings(self.dtype, channels=self.channels)
        count = levels(self.image_size)
        if w.ndim != 3 or w.shape[1] != style_layers(self.image_size):
            raise InvalidInputError(
                f"w {w.shape}: expected [b, {style_layers(self.image_size)}, d], a style for every layer"
            )
        features = _feature_maps(self.fmap_base, self.fmap_max, self.image_size)
        constant = self.param("constant", nn.initializers.normal(1.0), (4, 4, features[4]), jnp.float32)
        x = jnp.broadcast_to(constant.astype(self.dtype), (w.shape[0], *constant.shape))
        x = StyledConv(features[4], dtype=self.dtype, name="conv_4")(x, w[:, 0])
        image = ToImage(self.channels, name="image_4")(x, w[:, 1])
        for level in range(1, count + 1):
            size, at = 4 << level, 2 * level
            x = StyledConv(features[size], up=True, dtype=self.dtype, name=f"up_{size}")(x, w[:, at - 1])
            x = StyledConv(features[size], dtype=self.dtype, name=f"conv_{size}")(x, w[:, at])
            image = ops.upsample(image) + ToImage(self.channels, name=f"image_{size}")(x, w[:, at + 1])
        return image


def _feature_maps(fmap_base: int, fmap_max: int, image_size: int) -> dict[int, int]:
    """Returns the number of feature maps at each resolution from 4 to `image_size`."""
    layers.check_settings("float32", fmap_max=fmap_max)
    if fmap_base < image_size:
        raise InvalidInputError(
            f"fmap_base={fmap_base}: leaves no feature maps at image_size={image_size}; expected at least {image_size}"
        )
    return {size: min(fmap_base // size, fmap_max) for size in (4 << level for level in range(levels(image_size) + 1))}


class StyleGAN2Generator(nn.Module):
    """Generator that maps latents to images, by `StyleGAN2Mapping` and then `StyleGAN2Synthesis`.

    `gans.stylegan2` uses the two networks separately, through `parts`: style mixing, truncation and path-length
    regularisation need the styles. Any other game uses the whole generator. The parameters are the same either way,
    `{'mapping': ..., 'synthesis': ...}`.

    Attributes:
      image_size: height and width in pixels, a power of two.
      channels: number of image channels.
      fmap_base: sets the number of feature maps at resolution r, `min(fmap_base / r, fmap_max)`.
      fmap_max: largest number of feature maps.
      style_size: size of the style w of one layer. The size of the latents is set by the prior; in the paper both are
        512.
      mapping_layers: number of dense layers of the mapping network.
      num_classes: number of classes of a conditional generator; None for an unconditional one.
      dtype: dtype of the convolutions; parameters, styles and images are float32.
    """

    image_size: int
    channels: int
    fmap_base: int = 32768
    fmap_max: int = 512
    style_size: int = 512
    mapping_layers: int = 8
    num_classes: int | None = None
    dtype: layers.DType = jnp.float32

    @nn.nowrap
    def parts(self) -> tuple[StyleGAN2Mapping, StyleGAN2Synthesis]:
        """Returns the mapping and the synthesis network as separate modules.

        They have no parent, so that a game can use them on their own and `setup` can make them submodules.
        """
        synthesis = StyleGAN2Synthesis(
            self.image_size, self.channels, self.fmap_base, self.fmap_max, self.dtype, parent=None
        )
        mapping = StyleGAN2Mapping(
            style_layers(self.image_size),
            self.style_size,
            self.mapping_layers,
            num_classes=self.num_classes,
            parent=None,
        )
        return mapping, synthesis

    def setup(self) -> None:
        self.mapping, self.synthesis = self.parts()

    def __call__(
        self, z: Float[Array, "b d"], label: Int[Array, " b"] | None = None, *, train: bool
    ) -> Float[Array, "b h w c"]:
        return self.synthesis(self.mapping(z, label, train=train), train=train)


class StyleGAN2Discriminator(nn.Module):
    """Discriminator that maps images to logits `[b]`.

    Attributes:
      fmap_base: sets the number of feature maps at resolution r, `min(fmap_base / r, fmap_max)`.
      fmap_max: largest number of feature maps.
      group_size: group size of `minibatch_stddev`. Gradient penalties treat the examples of a group as independent, as
        the authors' do.
      residual: whether each resolution has a skip connection, with both branches divided by sqrt(2); the ADA paper's
        networks for CIFAR-10 have none.
      num_classes: number of classes of a projection discriminator; None for an unconditional one. The logit is the
        inner product of the features and a mapped embedding of the label, divided by the root of their size.
      mapping_layers: number of dense layers that map the embedding of the label.
      dtype: dtype of the convolutions; parameters, group statistics and logits are float32.
    """

    fmap_base: int = 32768
    fmap_max: int = 512
    group_size: int = 4
    residual: bool = True
    num_classes: int | None = None
    mapping_layers: int = 8
    dtype: layers.DType = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], label: Int[Array, " b"] | None = None, *, train: bool
    ) -> Float[Array, " b"]:
        del train
        check_images(x=x)
        layers.check_settings(self.dtype, group_size=self.group_size, mapping_layers=self.mapping_layers)
        image_size = x.shape[1]
        features = _feature_maps(self.fmap_base, self.fmap_max, image_size)
        x = _activate(EqualConv(features[image_size], 1, dtype=self.dtype, name="image")(x))
        for level in reversed(range(1, levels(image_size) + 1)):
            size = 4 << level
            y = _activate(EqualConv(features[size], 3, dtype=self.dtype, name=f"conv_{size}")(x))
            y = _activate(EqualConv(features[size // 2], 3, down=True, dtype=self.dtype, name=f"down_{size}")(y))
            if self.residual:
                skip = EqualConv(
                    features[size // 2], 1, down=True, use_bias=False, dtype=self.dtype, name=f"skip_{size}"
                )
                y = (y + skip(x)) * math.sqrt(0.5)
            x = y
        x = minibatch_stddev(x, self.group_size)
        x = _activate(EqualConv(features[4], 3, dtype=self.dtype, name="conv_4")(x))
        x = x.reshape(x.shape[0], -1)
        x = _activate(EqualDense(features[4], dtype=self.dtype, name="dense")(x)).astype(jnp.float32)
        if self.num_classes is None:
            return EqualDense(1, name="logit")(x)[:, 0]
        x = EqualDense(features[4], name="logit")(x)
        embedding = LabelEmbedding(self.num_classes, features[4], name="label")(label)
        embedding = MappingLayers(features[4], self.mapping_layers, 0.01, name="mapping")(embedding)
        return jnp.sum(x * embedding, axis=-1) / math.sqrt(features[4])
