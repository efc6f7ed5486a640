"""Linen layers shared by the network families."""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import dtypes
from jaxtyping import Array, Float

from gan_jax import ops
from gan_jax.types import InvalidInputError

DType = Any
Initializer = Callable[..., Array]
dcgan_init = nn.initializers.normal(0.02)


def dcgan_scale_init(key: Array, shape: tuple[int, ...], dtype: DType = jnp.float32) -> Array:
    """Draws the scales of batch norm from N(1, 0.02^2), as the authors of DCGAN, pix2pix and CycleGAN do."""
    return 1.0 + dcgan_init(key, shape, dtype)


class Conv(nn.Module):
    """A convolution layer that applies `op`: `ops.conv`, `ops.conv_transpose`, `ops.doubled_conv` or `ops.conv_halved`.

    Parameters are float32; the computation is in `dtype`. Only `ops.conv` and `ops.conv_transpose` take `stride` and
    `groups`. With a `stride` of None they use their own default. A `mode` other than 'zeros' is for `ops.conv` alone.
    """

    features: int
    kernel_size: int
    stride: int | None = None
    padding: int = 0
    op: Callable[..., Array] = ops.conv
    use_bias: bool = True
    dtype: DType = jnp.float32
    kernel_init: Initializer = dcgan_init
    groups: int = 1
    mode: str = "zeros"

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b hout wout features"]:
        shape = (self.kernel_size, self.kernel_size, x.shape[-1] // self.groups, self.features)
        kernel = self.param("kernel", self.kernel_init, shape, jnp.float32).astype(self.dtype)
        options: dict[str, Any] = {} if self.stride is None else {"stride": self.stride}
        options |= {} if self.groups == 1 else {"groups": self.groups}
        options |= {} if self.mode == "zeros" else {"mode": self.mode}
        y = self.op(x.astype(self.dtype), kernel, padding=self.padding, **options)
        if self.use_bias:
            y = y + self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32).astype(self.dtype)
        return y


def check_settings(dtype: DType, **sizes: int) -> None:
    """Raises InvalidInputError for a dtype that JAX would not compute in, or a size below one, which is named."""
    names = ("float32", "bfloat16", "float16", "float64")
    name = str(jnp.dtype(dtype) if not isinstance(dtype, str) else dtype)
    if name not in names:
        raise InvalidInputError(f"dtype={dtype!r}: expected one of {', '.join(names)}")
    if dtypes.canonicalize_dtype(name) != name:
        raise InvalidInputError(
            f"dtype={name}: JAX would compute in {dtypes.canonicalize_dtype(name)}; set the environment variable "
            'JAX_ENABLE_X64=1, or call jax.config.update("jax_enable_x64", True) first, or use float32'
        )
    for name, size in sizes.items():
        if size < 1:
            raise InvalidInputError(f"{name}={size}: expected at least 1")


def check_dropout(dropout: float) -> None:
    """Raises InvalidInputError for a dropout that is not a fraction."""
    if not 0 <= dropout < 1:
        raise InvalidInputError(f"dropout={dropout}: expected a fraction from 0 to below 1")


def check_norm(network: nn.Module, norm: str, *known: str) -> None:
    """Raises InvalidInputError for a norm that the network does not have, such as spectral norm in a generator."""
    if norm not in known:
        names = ", ".join(map(repr, known[:-1]))
        raise InvalidInputError(f"norm={norm!r}: a {type(network).__name__} takes {names} or {known[-1]!r}")


def normalize(
    x: Array, norm: str, *,
    train: bool, dtype: DType, name: str, affine: bool = True, scale_init: Initializer = nn.initializers.ones,
) -> Array:  # fmt: skip
    """Normalises activations by `norm`: 'batch', 'layer' (over all axes of one example), 'instance', 'act' or 'none'.

    After 'batch' and 'layer', a learned scale and shift per channel follow if `affine` is true. 'instance' has none, as
    in PyTorch (`instance_norm`), and 'act' always has one (`ActNorm`). With 'spectral', as with 'none', the activations
    stay as they are.
    """
    if norm == "instance":
        return instance_norm(x.astype(dtype))
    if norm == "act":
        return ActNorm(name=name)(x, train=train).astype(dtype)
    learned: dict[str, Any] = {
        "use_scale": affine, "use_bias": affine, "dtype": dtype, "name": name, "scale_init": scale_init
    }  # fmt: skip
    if norm == "batch":
        return nn.BatchNorm(use_running_average=not train, momentum=0.9, **learned)(x)
    if norm == "layer":
        return nn.LayerNorm(reduction_axes=tuple(range(1, x.ndim)), **learned)(x)
    if norm in ("none", "spectral"):  # spectral norm is for kernels, see `spectral`
        return x
    raise InvalidInputError(f"norm={norm!r}: expected 'batch', 'layer', 'instance', 'act', 'spectral' or 'none'")


class ActNorm(nn.Module):
    """Scales and shifts each channel so that the first training batch has mean 0 and variance 1; both are learned.

    scale * factor * (x + shift + loc). The statistics of the first training pass give `shift` and `factor`, which are
    model state and stay as they are; `loc` and `scale`, which start at 0 and 1, are learned. Logits of one example
    depend on no other example, except in the first pass.

    References:
      Kingma and Dhariwal, "Glow", arXiv:1807.03039, 2018. The code of taming-transformers overwrites the learned
      variables themselves in the first pass, so there Adam's steps are relative to another scale.
    """

    @nn.compact
    def __call__(self, x: Float[Array, "b *rest c"], *, train: bool) -> Float[Array, "b *rest c"]:
        x = x.astype(jnp.float32)
        features = (x.shape[-1],)
        zeros, ones = (functools.partial(make, features, jnp.float32) for make in (jnp.zeros, jnp.ones))
        loc = self.param("loc", nn.initializers.zeros, features, jnp.float32)
        scale = self.param("scale", nn.initializers.ones, features, jnp.float32)
        started = self.variable("first_batch", "started", lambda: jnp.zeros((), jnp.int32))
        shift, factor = (self.variable("first_batch", n, f) for n, f in (("shift", zeros), ("factor", ones)))
        if train and not self.is_initializing():
            flat, first = x.reshape(-1, x.shape[-1]), started.value == 0
            deviation = jnp.std(flat, axis=0, ddof=min(1, len(flat) - 1))
            shift.value = jax.lax.stop_gradient(jnp.where(first, -jnp.mean(flat, axis=0), shift.value))
            factor.value = jax.lax.stop_gradient(jnp.where(first, 1.0 / (deviation + 1e-6), factor.value))
            started.value = jnp.ones((), jnp.int32)
        return scale * factor.value * (x + shift.value + loc)


def instance_norm(x: Float[Array, "b h w c"], *, epsilon: float = 1e-5) -> Float[Array, "b h w c"]:
    """Normalises each channel of each image to mean 0 and variance 1, over its height and width.

    (x - mean) / sqrt(variance + epsilon), with the biased variance; no learned scale and shift, no running statistics.
    An image of one pixel becomes 0. The statistics are computed in float32 or wider.

    References:
      Ulyanov et al., "Instance Normalization: The Missing Ingredient for Fast Stylization", arXiv:1607.08022, 2016.
      PyTorch's `InstanceNorm2d` with its defaults, as the authors of pix2pix and CycleGAN use it. Flax's
      `InstanceNorm` has the epsilon 1e-6, and learned scales.
    """
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    centred = wide - jnp.mean(wide, axis=(1, 2), keepdims=True)
    variance = jnp.mean(jnp.square(centred), axis=(1, 2), keepdims=True)
    return (centred * jax.lax.rsqrt(variance + epsilon)).astype(x.dtype)


def normalize_by_label(
    x: Array, label: Array | None, num_classes: int | None, norm: str, *, train: bool, dtype: DType, name: str
) -> Array:
    """Normalises activations as `normalize` does, but in a conditional network with a scale and a shift for each label.

    The scales start at 1 and the shifts at 0. A network is conditional if `num_classes` is not None.

    References:
      Conditional batch norm: Dumoulin et al., "A Learned Representation For Artistic Style", arXiv:1610.07629, 2017;
      in GANs Miyato and Koyama, "cGANs with Projection Discriminator", arXiv:1802.05637, 2018.
    """
    if num_classes is None:
        return normalize(x, norm, train=train, dtype=dtype, name=name)
    x = normalize(x, norm, train=train, dtype=dtype, name=name, affine=False)

    def of_label(what: str, init: Initializer) -> Array:
        embed = nn.Embed(num_classes, x.shape[-1], dtype=dtype, embedding_init=init, name=f"{name}_{what}")
        return jnp.expand_dims(embed(given(label)), tuple(range(1, x.ndim - 1)))

    return x * of_label("scale", nn.initializers.ones) + of_label("shift", nn.initializers.zeros)


def spectral(layer: nn.Module, x: Array, *, norm: str, train: bool) -> Array:
    """Applies a layer; with the norm 'spectral', its kernel is first divided by its largest singular value.

    The singular value is estimated by one power iteration per forward pass, with epsilon 1e-12
    (`flax.linen.SpectralNorm`). For this the kernel is a matrix `[kh * kw * in, out]`: all axes but the last are
    flattened. The vector of the power iteration only advances in the training pass whose model state the game keeps.

    The parameters start with the values of the layer's initialiser. Flax's module alone would store the kernel divided
    by its singular value. That would change the training: the norm of a kernel decides how far a step of the optimiser
    turns it.

    At evaluation the kernel is divided by the singular value that the last training pass stored. That is the value
    before the optimiser's last step, so it is slightly stale. For logits of the final kernels, first pass a batch
    through `apply(..., train=True)` and use the model state that it returns.

    References:
      Miyato et al., "Spectral Normalization for Generative Adversarial Networks", arXiv:1802.05957, 2018. Public code
      differs in epsilon (1e-12 to 1e-6), in keeping the left or the right vector, and in how the kernel is flattened.
      PyTorch's evaluates with the stored vectors and the kernel of the moment, so without the stale value.
    """
    if norm != "spectral":
        return layer(x)  # type: ignore[operator]
    wrapped = nn.SpectralNorm(layer, epsilon=1e-12, name=f"spectral_{layer.name}")
    if not layer.is_initializing():
        return wrapped(x, update_stats=train)
    layer(x)  # type: ignore[operator]
    # keeps the kernel as initialised, since at initialisation Flax's wrapper overwrites it with the divided one
    begun = dict(layer.variables["params"])
    y = wrapped(x, update_stats=train)
    for name, value in begun.items():
        layer.put_variable("params", name, value)
    return y


def append_label(z: Array, label: Array | None, num_classes: int | None, features: int) -> Array:
    """Appends an embedding of the label to the latents if the network is conditional."""
    if num_classes is None:
        return z
    return jnp.concatenate([z, nn.Embed(num_classes, features, name="label")(given(label)).astype(z.dtype)], axis=-1)


def project_label(
    features: Array,
    label: Array | None,
    num_classes: int | None,
    *,
    norm: str = "none",
    train: bool = False,
    embedding_init: Initializer = dcgan_init,
) -> Array:
    """Computes what the label adds to the logit of a projection discriminator (arXiv:1802.05637); 0 if unconditional.

    It is the inner product of the features and an embedding of the label.
    """
    if num_classes is None:
        return jnp.zeros(features.shape[0], jnp.float32)
    embed = nn.Embed(num_classes, features.shape[-1], embedding_init=embedding_init, name="label")
    embedding = spectral(embed, given(label), norm=norm, train=train)
    return jnp.sum(embedding.astype(jnp.float32) * features.astype(jnp.float32), axis=-1)


def with_features(logits: Array, activations: list[Array], layer: int | None) -> Array | dict[str, Array]:
    """Returns a discriminator's output: logits, or a dict of logits and the activations of the layer that is asked for.

    Raises InvalidInputError for a layer that the network does not have.
    """
    if layer is None:
        return logits
    if not 0 <= layer < len(activations):
        raise InvalidInputError(f"feature_layer={layer}: this network has layers 0 to {len(activations) - 1}")
    return {"logits": logits, "features": activations[layer].astype(jnp.float32)}


def given(label: Array | None) -> Array:
    """Returns the label; raises InvalidInputError if a conditional network was called without one."""
    if label is None:
        raise InvalidInputError("label is missing: this network was built with num_classes and takes (input, label)")
    return label


def leaky_relu(x: Array) -> Array:
    """Applies leaky ReLU with slope 0.2, as in DCGAN."""
    return jax.nn.leaky_relu(x, 0.2)


def downsample(x: Float[Array, "b h w c"]) -> Float[Array, "b hout wout c"]:
    """Halves images with the filter [1, 2, 1] / 4; beyond the edge they are mirrored. An odd size is rounded up.

    References:
      Zhang, "Making Convolutional Networks Shift-Invariant Again", arXiv:1904.11486, 2019.
    """
    return ops.upfirdn(ops.pad(x, 1), (0.25, 0.5, 0.25), down=2)


def upsample(x: Float[Array, "b h w c"]) -> Float[Array, "b 2*h 2*w c"]:
    """Doubles images with the filter [1, 3, 3, 1] / 4; beyond the edge the outermost pixels are repeated."""
    return ops.upsample(ops.pad(x, 1, "edge"))[:, 2:-2, 2:-2]
