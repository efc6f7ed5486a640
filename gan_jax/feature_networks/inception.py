"""Inception-2015, the feature network of FID, KID and the Inception score, published by TensorFlow in December 2015.

It is not the Inception v3 of torchvision or Keras: it has 1008 outputs, its average pools exclude the padding from the
mean, and its last block uses max pooling where the other blocks use average pooling.
"""

from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np
from jax import lax, nn
from jaxtyping import Array, Float, PyTree, UInt8

from gan_jax.feature_networks import resize
from gan_jax.feature_networks.network import FeatureNetwork, three_channels
from gan_jax.feature_networks.weights import WeightsFile
from gan_jax.types import InvalidInputError

_SIZE, _DIM, _CLASSES, _EPSILON = 299, 2048, 1008, 1e-3
_HIGHEST = lax.Precision.HIGHEST  # accelerators may otherwise round float32 factors, which would change the metrics
_SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"

Layer = tuple[int, int, int, int]  # input channels, output channels, kernel height, kernel width


def _block(name: str, branches: Mapping[str, Layer]) -> dict[str, Layer]:
    return {f"{name}.{branch}": layer for branch, layer in branches.items()}


def _a(name: str, channels: int, pool: int) -> dict[str, Layer]:
    return _block(name, {
        "branch1x1": (channels, 64, 1, 1),
        "branch5x5_1": (channels, 48, 1, 1), "branch5x5_2": (48, 64, 5, 5),
        "branch3x3dbl_1": (channels, 64, 1, 1), "branch3x3dbl_2": (64, 96, 3, 3), "branch3x3dbl_3": (96, 96, 3, 3),
        "branch_pool": (channels, pool, 1, 1),
    })  # fmt: skip


def _c(name: str, inner: int) -> dict[str, Layer]:
    return _block(name, {
        "branch1x1": (768, 192, 1, 1),
        "branch7x7_1": (768, inner, 1, 1), "branch7x7_2": (inner, inner, 1, 7), "branch7x7_3": (inner, 192, 7, 1),
        "branch7x7dbl_1": (768, inner, 1, 1), "branch7x7dbl_2": (inner, inner, 7, 1),
        "branch7x7dbl_3": (inner, inner, 1, 7), "branch7x7dbl_4": (inner, inner, 7, 1),
        "branch7x7dbl_5": (inner, 192, 1, 7),
        "branch_pool": (768, 192, 1, 1),
    })  # fmt: skip


def _e(name: str, channels: int) -> dict[str, Layer]:
    return _block(name, {
        "branch1x1": (channels, 320, 1, 1),
        "branch3x3_1": (channels, 384, 1, 1), "branch3x3_2a": (384, 384, 1, 3), "branch3x3_2b": (384, 384, 3, 1),
        "branch3x3dbl_1": (channels, 448, 1, 1), "branch3x3dbl_2": (448, 384, 3, 3),
        "branch3x3dbl_3a": (384, 384, 1, 3), "branch3x3dbl_3b": (384, 384, 3, 1),
        "branch_pool": (channels, 192, 1, 1),
    })  # fmt: skip


_LAYERS: dict[str, Layer] = {
    "Conv2d_1a_3x3": (3, 32, 3, 3), "Conv2d_2a_3x3": (32, 32, 3, 3), "Conv2d_2b_3x3": (32, 64, 3, 3),
    "Conv2d_3b_1x1": (64, 80, 1, 1), "Conv2d_4a_3x3": (80, 192, 3, 3),
    **_a("Mixed_5b", 192, 32), **_a("Mixed_5c", 256, 64), **_a("Mixed_5d", 288, 64),
    **_block("Mixed_6a", {
        "branch3x3": (288, 384, 3, 3),
        "branch3x3dbl_1": (288, 64, 1, 1), "branch3x3dbl_2": (64, 96, 3, 3), "branch3x3dbl_3": (96, 96, 3, 3),
    }),
    **_c("Mixed_6b", 128), **_c("Mixed_6c", 160), **_c("Mixed_6d", 160), **_c("Mixed_6e", 192),
    **_block("Mixed_7a", {
        "branch3x3_1": (768, 192, 1, 1), "branch3x3_2": (192, 320, 3, 3),
        "branch7x7x3_1": (768, 192, 1, 1), "branch7x7x3_2": (192, 192, 1, 7), "branch7x7x3_3": (192, 192, 7, 1),
        "branch7x7x3_4": (192, 192, 3, 3),
    }),
    **_e("Mixed_7b", 1280), **_e("Mixed_7c", 2048),
}  # fmt: skip


def inception(resizer: str = "tf1_bilinear") -> FeatureNetwork:
    """Returns Inception-2015 with its pooled features (the mean over pixels of the last block) and its logits.

    Args:
      resizer: how images are resized to 299x299 pixels: `tf1_bilinear`, as FID, KID and the Inception score were first
        published; or `bicubic`, as in clean-fid, with the result clipped to 0..255.

    Returns:
      The network. `apply` gives `'features'`, `[b, 2048]`; `'logits'`, `[b, 1008]`, without the bias of the last
      layer, from which the Inception score is computed; and `'biased_logits'`, with that bias.

    Raises:
      InvalidInputError: if the resizer is unknown.

    References:
      Szegedy et al., "Rethinking the Inception Architecture for Computer Vision", arXiv:1512.00567, 2015; Salimans et
      al., "Improved Techniques for Training GANs", arXiv:1606.03498, 2016; Heusel et al., arXiv:1706.08500, 2017;
      Parmar et al., arXiv:2104.11222, 2022 (clean-fid). torch-fidelity calls `logits` and `biased_logits`
      `logits_unbiased` and `logits`.
    """
    if resizer not in ("tf1_bilinear", "bicubic"):
        raise InvalidInputError(f"resizer={resizer!r}: expected 'tf1_bilinear' or 'bicubic'")
    used: dict[str, tuple[int, ...]] = {"fc.weight": (_CLASSES, _DIM), "fc.bias": (_CLASSES,)}
    for name, (inputs, outputs, height, width) in _LAYERS.items():
        used[f"{name}.conv.weight"] = (outputs, inputs, height, width)
        used |= {f"{name}.bn.{part}": (outputs,) for part in ("weight", "bias", "running_mean", "running_var")}
    file = WeightsFile(
        name="pt_inception-2015-12-05-6726825d.pth",
        size=95_628_359,
        sha256=_SHA256,
        url="https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth",
        used=used,
        unused=[f"{name}.bn.num_batches_tracked" for name in _LAYERS],
        other_names=("weights-inception-2015-12-05-6726825d.pth",),
    )

    def apply(params: PyTree, images: UInt8[Array, "b h w c"]) -> dict[str, Array]:
        images = three_channels(images)
        if resizer == "bicubic":
            x = jnp.clip(resize.bicubic(images, _SIZE), 0.0, 255.0)
        else:
            x = resize.tf1_bilinear(images, _SIZE)
        features = jnp.mean(_mixed(params, (x - 128.0) / 128.0), axis=(1, 2))
        logits = jnp.matmul(features, params["fc.kernel"], precision=_HIGHEST)
        return {"features": features, "logits": logits, "biased_logits": logits + params["fc.bias"]}

    name = "inception_2015" if resizer == "tf1_bilinear" else "inception_2015_clean"
    return FeatureNetwork(name, 1, file, _SIZE, resizer, _DIM, _prepare, apply)


def _prepare(weights: Mapping[str, np.ndarray]) -> PyTree:
    """Converts the weights; batch norm with fixed statistics is affine, so it is folded into kernel and bias."""
    params: dict[str, np.ndarray] = {"fc.kernel": weights["fc.weight"].T, "fc.bias": weights["fc.bias"]}
    for name in _LAYERS:
        scale, shift, mean, variance = (  # in float64, so that folding rounds to float32 only once
            weights[f"{name}.bn.{part}"].astype(np.float64)
            for part in ("weight", "bias", "running_mean", "running_var")
        )
        factor = scale / np.sqrt(variance + _EPSILON)
        kernel = weights[f"{name}.conv.weight"].transpose(2, 3, 1, 0) * factor
        params |= {
            f"{name}.kernel": kernel.astype(np.float32),
            f"{name}.bias": (shift - mean * factor).astype(np.float32),
        }
    return params


def _mixed(params: PyTree, x: Float[Array, "b 299 299 3"]) -> Float[Array, "b 8 8 2048"]:
    """Computes the convolutional part of the network."""
    x = _conv(params, "Conv2d_1a_3x3", x, stride=2, padding="VALID")
    x = _conv(params, "Conv2d_2a_3x3", x, padding="VALID")
    x = _max_pool(_conv(params, "Conv2d_2b_3x3", x))
    x = _conv(params, "Conv2d_3b_1x1", x)
    x = _max_pool(_conv(params, "Conv2d_4a_3x3", x, padding="VALID"))
    for name in ("Mixed_5b", "Mixed_5c", "Mixed_5d"):
        short = _chain(params, name, x, "branch5x5_1", "branch5x5_2")
        long = _chain(params, name, x, "branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3")
        x = _joined(params, name, x, short, long)
    double = _chain(params, "Mixed_6a", x, "branch3x3dbl_1", "branch3x3dbl_2")
    x = _reduced(params, x, ("Mixed_6a.branch3x3", x), ("Mixed_6a.branch3x3dbl_3", double))
    for name in ("Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e"):
        short = _chain(params, name, x, *(f"branch7x7_{i}" for i in (1, 2, 3)))
        long = _chain(params, name, x, *(f"branch7x7dbl_{i}" for i in (1, 2, 3, 4, 5)))
        x = _joined(params, name, x, short, long)
    single = _chain(params, "Mixed_7a", x, "branch3x3_1")
    double = _chain(params, "Mixed_7a", x, "branch7x7x3_1", "branch7x7x3_2", "branch7x7x3_3")
    x = _reduced(params, x, ("Mixed_7a.branch3x3_2", single), ("Mixed_7a.branch7x7x3_4", double))
    for name in ("Mixed_7b", "Mixed_7c"):
        single = _chain(params, name, x, "branch3x3_1")
        double = _chain(params, name, x, "branch3x3dbl_1", "branch3x3dbl_2")
        sides = [_conv(params, f"{name}.branch3x3_2{side}", single) for side in "ab"]
        sides += [_conv(params, f"{name}.branch3x3dbl_3{side}", double) for side in "ab"]
        x = _joined(params, name, x, *sides, maximum=name == "Mixed_7c")
    return x


def _conv(params: PyTree, name: str, x: Array, stride: int = 1, padding: str = "SAME") -> Array:
    y = lax.conv_general_dilated(
        x, params[f"{name}.kernel"], (stride, stride), padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"), precision=_HIGHEST,
    )  # fmt: skip
    return nn.relu(y + params[f"{name}.bias"])


def _chain(params: PyTree, block: str, x: Array, *names: str) -> Array:
    for name in names:
        x = _conv(params, f"{block}.{name}", x)
    return x


def _joined(params: PyTree, name: str, x: Array, *branches: Array, maximum: bool = False) -> Array:
    """Completes a block that keeps the image size: adds a 1x1 branch and a 3x3 pooling branch to the given branches."""
    pooled = _max_pool(x, 1, "SAME") if maximum else _mean_pool(x)
    ends = _conv(params, f"{name}.branch1x1", x), _conv(params, f"{name}.branch_pool", pooled)
    return jnp.concatenate([ends[0], *branches, ends[1]], axis=-1)


def _reduced(params: PyTree, x: Array, *branches: tuple[str, Array]) -> Array:
    """Computes a block that halves the image size: stride-2 convolutions of the given branches, and 3x3 max pooling."""
    halved = [_conv(params, name, inputs, stride=2, padding="VALID") for name, inputs in branches]
    return jnp.concatenate([*halved, _max_pool(x)], axis=-1)


def _max_pool(x: Array, stride: int = 2, padding: str = "VALID") -> Array:
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, 3, 3, 1), (1, stride, stride, 1), padding)


def _mean_pool(x: Array) -> Array:
    """Averages 3x3 neighbourhoods over the pixels inside the image; padding does not count."""
    window = ((1, 3, 3, 1), (1, 1, 1, 1), "SAME")
    count = lax.reduce_window(jnp.ones((1, *x.shape[1:3], 1)), 0.0, lax.add, *window)
    return lax.reduce_window(x, 0.0, lax.add, *window) / count
