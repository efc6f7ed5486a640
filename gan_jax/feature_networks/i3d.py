"""I3D on Kinetics-400, the network of FVD, in the pipeline of VideoGPT and DIGAN."""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax, nn
from jaxtyping import Array, Float, PyTree, UInt8

from gan_jax.feature_networks.network import FeatureNetwork, three_channels
from gan_jax.feature_networks.weights import WeightsFile
from gan_jax.types import InvalidInputError

_SIZE, _CLASSES, _EPSILON, _LEAST_FRAMES = 224, 400, 1e-3, 9
_HIGHEST = lax.Precision.HIGHEST
_LAYOUT = ("NDHWC", "DHWIO", "NDHWC")


class _Mixed(NamedTuple):
    """Channels of an Inception block: input, then of each convolution, in the order of their names."""

    inputs: int
    b0: int
    b1a: int
    b1b: int
    b2a: int
    b2b: int
    b3b: int

    def layers(self) -> dict[str, tuple[int, int, int]]:
        """Returns input channels, output channels and kernel size of each convolution."""
        return {
            "b0": (self.inputs, self.b0, 1),
            "b1a": (self.inputs, self.b1a, 1),
            "b1b": (self.b1a, self.b1b, 3),
            "b2a": (self.inputs, self.b2a, 1),
            "b2b": (self.b2a, self.b2b, 3),
            "b3b": (self.inputs, self.b3b, 1),
        }


_STEM = {"Conv3d_1a_7x7": (3, 64, 7), "Conv3d_2b_1x1": (64, 64, 1), "Conv3d_2c_3x3": (64, 192, 3)}
_MIXED = {
    "Mixed_3b": _Mixed(192, 64, 96, 128, 16, 32, 32),
    "Mixed_3c": _Mixed(256, 128, 128, 192, 32, 96, 64),
    "Mixed_4b": _Mixed(480, 192, 96, 208, 16, 48, 64),
    "Mixed_4c": _Mixed(512, 160, 112, 224, 24, 64, 64),
    "Mixed_4d": _Mixed(512, 128, 128, 256, 24, 64, 64),
    "Mixed_4e": _Mixed(512, 112, 144, 288, 32, 64, 64),
    "Mixed_4f": _Mixed(528, 256, 160, 320, 32, 128, 128),
    "Mixed_5b": _Mixed(832, 256, 160, 320, 32, 128, 128),
    "Mixed_5c": _Mixed(832, 384, 192, 384, 48, 128, 128),
}
_LAYERS = _STEM | {f"{name}.{b}": layer for name, block in _MIXED.items() for b, layer in block.layers().items()}


def i3d() -> FeatureNetwork:
    """Returns I3D with its 400 logits, which are the features of FVD.

    There are two published pipelines, whose values differ slightly. This one is that of `i3d_pretrained_400.pt`
    (VideoGPT, DIGAN): frames are resized to 224x224 by bilinear interpolation, without antialiasing, their values are
    scaled to [-1, 1], and the logits are averaged over time. The other one, `i3d_torchscript.pt` of StyleGAN-V, does
    the same inside of a TorchScript program, which is not run here.

    Returns:
      The network. `apply` takes clips, uint8 `[b, t, h, w, 1 or 3]` of nine frames or more, and gives `'features'`,
      `[b, 400]`. Published values are of 16 frames and 2,048 clips.

    References:
      Carreira and Zisserman, "Quo Vadis, Action Recognition?", arXiv:1705.07750, 2017; Unterthiner et al., "Towards
      Accurate Generative Models of Video", arXiv:1812.01717, 2018. The weights are those of DeepMind's network as
      converted for PyTorch. A wrong range of values fails silently (universome/fvd-comparison#4), and so does resizing
      clips before they are given to the network.

    Example:
      >>> i3d().dim, i3d().takes
      (400, 'clips')
    """
    used: dict[str, tuple[int, ...]] = {"logits.conv3d.bias": (_CLASSES,)}
    used["logits.conv3d.weight"] = (_CLASSES, 1024, 1, 1, 1)
    for name, (inputs, outputs, kernel) in _LAYERS.items():
        used[f"{name}.conv3d.weight"] = (outputs, inputs, *(kernel,) * 3)
        used |= {f"{name}.bn.{part}": (outputs,) for part in ("weight", "bias", "running_mean", "running_var")}
    file = WeightsFile(
        name="i3d_pretrained_400.pt",
        size=50_900_000,
        sha256=None,
        url="https://github.com/wilson1yan/VideoGPT (videogpt/fvd), or a copy that others have published",
        used=used,
        unused=[f"{name}.bn.num_batches_tracked" for name in _LAYERS],
    )
    return FeatureNetwork(
        "i3d_kinetics400", 1, file, _SIZE, "bilinear without antialiasing", _CLASSES, _prepare, _apply, "clips"
    )


def _prepare(weights: Mapping[str, np.ndarray]) -> PyTree:
    """Converts the weights; batch norm with fixed statistics is folded into kernel and bias."""
    params = {
        "logits.kernel": weights["logits.conv3d.weight"][:, :, 0, 0, 0].T,
        "logits.bias": weights["logits.conv3d.bias"],
    }
    for name in _LAYERS:
        scale, shift, mean, variance = (
            weights[f"{name}.bn.{part}"].astype(np.float64)
            for part in ("weight", "bias", "running_mean", "running_var")
        )
        factor = scale / np.sqrt(variance + _EPSILON)
        kernel = weights[f"{name}.conv3d.weight"].transpose(2, 3, 4, 1, 0) * factor
        params[f"{name}.kernel"] = kernel.astype(np.float32)
        params[f"{name}.bias"] = (shift - mean * factor).astype(np.float32)
    return params


def _apply(params: PyTree, clips: UInt8[Array, "b t h w c"]) -> dict[str, Array]:
    if clips.ndim != 5 or clips.shape[1] < _LEAST_FRAMES:
        raise InvalidInputError(
            f"clips {clips.shape}: I3D takes [b, t, h, w, 1 or 3] of {_LEAST_FRAMES} frames or more; FVD is of 16"
        )
    b, t, height, width, channels = clips.shape
    frames = three_channels(clips.reshape(b * t, height, width, channels)).astype(jnp.float32)
    x = jax.image.resize(frames, (b * t, _SIZE, _SIZE, 3), "linear", antialias=False)
    x = (x / 255.0 * 2.0 - 1.0).reshape(b, t, _SIZE, _SIZE, 3)
    x = _pool(_conv(params, "Conv3d_1a_7x7", x, 2), (1, 3, 3), (1, 2, 2))
    x = _conv(params, "Conv3d_2c_3x3", _conv(params, "Conv3d_2b_1x1", x))
    x = _pool(x, (1, 3, 3), (1, 2, 2))
    for name in _MIXED:
        if name == "Mixed_4b":
            x = _pool(x, (3, 3, 3), (2, 2, 2))
        if name == "Mixed_5b":
            x = _pool(x, (2, 2, 2), (2, 2, 2))
        x = _mixed(params, name, x)
    # the mean over windows of two frames and all pixels, then over time
    window = lax.reduce_window(x, 0.0, lax.add, (1, 2, *x.shape[2:4], 1), (1, 1, 1, 1, 1), "VALID")
    pooled = jnp.mean(window / (2 * x.shape[2] * x.shape[3]), axis=(1, 2, 3))
    return {"features": jnp.matmul(pooled, params["logits.kernel"], precision=_HIGHEST) + params["logits.bias"]}


def _mixed(params: PyTree, name: str, x: Float[Array, "b t h w c"]) -> Float[Array, "b t h w d"]:
    branches = [
        _conv(params, f"{name}.b0", x),
        _conv(params, f"{name}.b1b", _conv(params, f"{name}.b1a", x)),
        _conv(params, f"{name}.b2b", _conv(params, f"{name}.b2a", x)),
        _conv(params, f"{name}.b3b", _pool(x, (3, 3, 3), (1, 1, 1))),
    ]
    return jnp.concatenate(branches, axis=-1)


def _conv(params: PyTree, name: str, x: Float[Array, "b t h w c"], stride: int = 1) -> Float[Array, "b t2 h2 w2 d"]:
    kernel = params[f"{name}.kernel"]
    # TensorFlow's padding: with stride 2, the odd zero is at the end
    y = lax.conv_general_dilated(x, kernel, (stride,) * 3, "SAME", dimension_numbers=_LAYOUT, precision=_HIGHEST)
    return nn.relu(y + params[f"{name}.bias"])


def _pool(
    x: Float[Array, "b t h w c"], window: tuple[int, int, int], stride: tuple[int, int, int]
) -> Float[Array, "b t2 h2 w2 c"]:
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, *window, 1), (1, *stride, 1), "SAME")
