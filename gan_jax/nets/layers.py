"""Linen layers that the families share."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gan_jax import ops
from gan_jax.types import InvalidInputError

DType = Any
Initializer = Callable[..., Array]
dcgan_init = nn.initializers.normal(0.02)


class Conv(nn.Module):
    """A convolution by `op`, one of `ops.conv`, `ops.conv_transpose`, `ops.doubled_conv`, `ops.conv_halved`.

    Parameters are float32, and it computes in `dtype`. A stride and groups are for the first two, which have their own
    defaults.
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

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b hout wout features"]:
        shape = (self.kernel_size, self.kernel_size, x.shape[-1] // self.groups, self.features)
        kernel = self.param("kernel", self.kernel_init, shape).astype(self.dtype)
        options = {} if self.stride is None else {"stride": self.stride}
        options |= {} if self.groups == 1 else {"groups": self.groups}
        y = self.op(x.astype(self.dtype), kernel, padding=self.padding, **options)
        if self.use_bias:
            y = y + self.param("bias", nn.initializers.zeros, (self.features,)).astype(self.dtype)
        return y


def check_settings(dtype: DType, **sizes: int) -> None:
    """Refuses a dtype that is no float, and sizes below one, by name."""
    names = ("float32", "bfloat16", "float16", "float64")
    if str(jnp.dtype(dtype) if not isinstance(dtype, str) else dtype) not in names:
        raise InvalidInputError(f"dtype={dtype!r}: expected one of {', '.join(names)}")
    for name, size in sizes.items():
        if size < 1:
            raise InvalidInputError(f"{name}={size}: expected at least 1")


def normalize(x: Array, norm: str, *, train: bool, dtype: DType, name: str, affine: bool = True) -> Array:
    """Normalises activations by `norm`: 'batch', 'layer' (over all axes of one example) or 'none'.

    Unless `affine` is off, a learned scale and shift per channel follow.
    """
    learned: dict[str, Any] = {"use_scale": affine, "use_bias": affine, "dtype": dtype, "name": name}
    if norm == "batch":
        return nn.BatchNorm(use_running_average=not train, momentum=0.9, **learned)(x)
    if norm == "layer":
        return nn.LayerNorm(reduction_axes=tuple(range(1, x.ndim)), **learned)(x)
    if norm in ("none", "spectral"):  # the latter is a norm of kernels, see `spectral`
        return x
    raise InvalidInputError(f"norm={norm!r}: expected 'batch', 'layer', 'spectral' or 'none'")


def normalize_by_label(
    x: Array, label: Array | None, num_classes: int | None, norm: str, *, train: bool, dtype: DType, name: str
) -> Array:
    """`normalize`; where the network is conditional, each label has a scale (first 1) and shift (first 0) of its own.

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

    That value is estimated by one power iteration per forward pass in training, on the kernel with all axes but the
    last flattened (in * kh * kw, out), with epsilon 1e-12 (`flax.linen.SpectralNorm`). Only the pass whose model state
    the game keeps moves the vector on. The parameters begin as the layer initialises them; Flax's module alone would
    store them divided, and how long a kernel is decides how far a step of the optimiser turns it.

    References:
      Miyato et al., "Spectral Normalization for Generative Adversarial Networks", arXiv:1802.05957, 2018. Public code
      differs in epsilon (1e-12 to 1e-6), in keeping the left or the right vector, and in how the kernel is flattened.
    """
    if norm != "spectral":
        return layer(x)  # type: ignore[operator]
    wrapped = nn.SpectralNorm(layer, epsilon=1e-12, name=f"spectral_{layer.name}")
    if not layer.is_initializing():
        return wrapped(x, update_stats=train)
    layer(x)  # type: ignore[operator]
    begun = dict(layer.variables["params"])
    y = wrapped(x, update_stats=train)
    for name, value in begun.items():
        layer.put_variable("params", name, value)
    return y


def append_label(z: Array, label: Array | None, num_classes: int | None, features: int) -> Array:
    """Concatenates an embedding of the label to latents, where the network is conditional."""
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
    """The label's share of a projection discriminator's logit (arXiv:1802.05637); 0 without labels."""
    if num_classes is None:
        return jnp.zeros(features.shape[0], jnp.float32)
    embed = nn.Embed(num_classes, features.shape[-1], embedding_init=embedding_init, name="label")
    embedding = spectral(embed, given(label), norm=norm, train=train)
    return jnp.sum(embedding.astype(jnp.float32) * features.astype(jnp.float32), axis=-1)


def given(label: Array | None) -> Array:
    """The label, which a conditional network needs."""
    if label is None:
        raise InvalidInputError("label is missing: this network was built with num_classes and takes (input, label)")
    return label


def leaky_relu(x: Array) -> Array:
    """Leaky ReLU with slope 0.2, as in DCGAN."""
    return jax.nn.leaky_relu(x, 0.2)
