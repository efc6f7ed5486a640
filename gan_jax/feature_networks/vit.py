"""The vision transformer that DINOv2 and CLIP share: patch embedding and pre-norm blocks.

Parameters are plain dicts. The blocks' parameters are stacked along a leading axis and scanned over, so that 24 blocks
cost no more compile time than one. All products are float32 with `Precision.HIGHEST`.
"""

from collections.abc import Callable, Mapping

import jax.numpy as jnp
import numpy as np
from jax import lax, nn
from jaxtyping import Array, Float

Params = dict[str, Array]
Weights = Mapping[str, np.ndarray]
HIGHEST = lax.Precision.HIGHEST


def embed_patches(images: Float[Array, "b h w c"], kernel: Float[Array, "p p c d"]) -> Float[Array, "b n d"]:
    """Cuts images into p x p patches, row by row, and maps each patch to a vector, without a bias.

    Args:
      images: images whose height and width are multiples of p.
      kernel: kernel of the equivalent convolution with stride p.

    Returns:
      One vector per patch, `[b, h w / p^2, d]`.
    """
    b, height, width, c = images.shape
    p = kernel.shape[0]
    patches = images.reshape(b, height // p, p, width // p, p, c).transpose(0, 1, 3, 2, 4, 5)
    return dense(patches.reshape(b, -1, p * p * c), kernel.reshape(p * p * c, -1))


def dense(x: Float[Array, "*n i"], kernel: Float[Array, "i o"], bias: Float[Array, "o"] | float = 0.0) -> Array:
    """Computes x @ kernel + bias."""
    return jnp.matmul(x, kernel, precision=HIGHEST) + bias


def layer_norm(x: Float[Array, "*n d"], scale: Float[Array, "d"], bias: Float[Array, "d"], epsilon: float) -> Array:
    """Normalises each vector to mean 0 and (biased) variance 1, then scales and shifts it."""
    centered = x - jnp.mean(x, axis=-1, keepdims=True)
    return centered * lax.rsqrt(jnp.mean(centered**2, axis=-1, keepdims=True) + epsilon) * scale + bias


def blocks(
    params: Params, x: Float[Array, "b n d"], *, heads: int, activation: Callable[[Array], Array], epsilon: float
) -> Float[Array, "b n d"]:
    """Applies all blocks in turn; each computes x + attention(norm(x)), then x + mlp(norm(x)).

    Args:
      params: stacked parameters of all blocks, as from `stack_blocks`.
      x: one vector for each token.
      heads: number of attention heads; they divide the d features among them.
      activation: activation function of the MLP.
      epsilon: constant added to the variance in the layer norms.

    Returns:
      The transformed tokens, `[b, n, d]`.

    References:
      Dosovitskiy et al., "An Image is Worth 16x16 Words", arXiv:2010.11929, 2021.
    """
    b, n, d = x.shape

    def block(x: Array, p: Params) -> tuple[Array, None]:
        normalized = layer_norm(x, p["norm1.scale"], p["norm1.bias"], epsilon)
        qkv = dense(normalized, p["qkv.kernel"], p["qkv.bias"]).reshape(b, n, 3, heads, d // heads)
        query, key, value = (qkv[:, :, i] for i in range(3))
        logits = jnp.einsum("bnhd,bmhd->bhnm", query * (d // heads) ** -0.5, key, precision=HIGHEST)
        mixed = jnp.einsum("bhnm,bmhd->bnhd", nn.softmax(logits), value, precision=HIGHEST)
        x = x + dense(mixed.reshape(b, n, d), p["proj.kernel"], p["proj.bias"])
        normalized = layer_norm(x, p["norm2.scale"], p["norm2.bias"], epsilon)
        hidden = activation(dense(normalized, p["fc1.kernel"], p["fc1.bias"]))
        return x + dense(hidden, p["fc2.kernel"], p["fc2.bias"]), None

    return lax.scan(block, x, params)[0]


def stack_blocks(weights: Weights, names: Mapping[str, str], prefix: str, layers: int) -> dict[str, np.ndarray]:
    """Stacks the parameters of all blocks of a PyTorch network.

    Args:
      weights: arrays by name, as in the weight file.
      names: the file's names, within a block, of the layers norm1, qkv, proj, norm2, fc1 and fc2; each layer has a
        weight and a bias.
      prefix: beginning of the blocks' names, before the block's number.
      layers: number of blocks.

    Returns:
      The parameters for `blocks`: matrices transposed to `[layers, in, out]`.
    """
    stacked = {}
    for ours, theirs in names.items():
        of_weight, of_bias = (f".{theirs}.weight", f".{theirs}.bias")
        if theirs.endswith("in_proj"):  # PyTorch's `nn.MultiheadAttention` names its input projection this way
            of_weight, of_bias = (f".{theirs}_weight", f".{theirs}_bias")
        weight = np.stack([weights[f"{prefix}{i}{of_weight}"] for i in range(layers)])
        stacked[f"{ours}.bias"] = np.stack([weights[f"{prefix}{i}{of_bias}"] for i in range(layers)])
        norm = weight.ndim == 2
        stacked[f"{ours}.scale" if norm else f"{ours}.kernel"] = weight if norm else weight.swapaxes(1, 2)
    return stacked


def patch_kernel(weight: np.ndarray) -> np.ndarray:
    """Transposes a kernel from PyTorch's `[out, in, h, w]` to `[h, w, in, out]`."""
    return weight.transpose(2, 3, 1, 0)
