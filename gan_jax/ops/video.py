"""Convolution of clips, folded to convolutions of images."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from gan_jax.ops.convolution import conv
from gan_jax.types import InvalidInputError


def conv_clip(
    x: Float[Array, "b t h w cin"], kernel: Float[Array, "kt kh kw cin cout"], *,
    stride: int = 1, padding: int = 0, time_stride: int = 1, time_padding: int = 0,
) -> Float[Array, "b tout hout wout cout"]:  # fmt: skip
    """Computes the cross-correlation of clips with a kernel in time, height and width, as one convolution of images.

    `out[s, i, j] = sum over r, u, v of x[time_stride s + r - time_padding, stride i + u - padding, ...]
    kernel[r, u, v]`

    The kt frames that each frame of the result depends on are concatenated along the channels, and `conv` is applied to
    the frames of all clips at once. XLA's own gradient of a strided three-dimensional convolution takes 18 to 95
    times as long on two cores: `benchmarks/results/conv_clip.jsonl`.

    Args:
      x: clips.
      kernel: `[kt, kh, kw, in, out]`.
      stride: distance of neighbouring kernel positions in height and width.
      padding: number of zeros on every side in height and width.
      time_stride: distance of neighbouring kernel positions in time.
      time_padding: number of frames of zeros before and after.

    Returns:
      `[b, (t + 2 time_padding - kt) // time_stride + 1, (h + 2 padding - kh) // stride + 1, ..., out]`.

    Raises:
      InvalidInputError: for arguments that don't fit each other.
    """
    if x.ndim != 5 or kernel.ndim != 5 or x.shape[-1] != kernel.shape[3]:
        raise InvalidInputError(
            f"x {x.shape}, kernel {kernel.shape}: expected clips [b, t, h, w, in] and a kernel [kt, kh, kw, in, out]"
        )
    if time_stride < 1 or time_padding < 0:
        raise InvalidInputError(f"time_stride={time_stride}, time_padding={time_padding}: expected >= 1 and >= 0")
    x = jnp.pad(x, [(0, 0), (time_padding, time_padding), (0, 0), (0, 0), (0, 0)]) if time_padding else x
    (b, t, height, width, channels), depth = x.shape, kernel.shape[0]
    count = (t - depth) // time_stride + 1
    if count < 1:
        raise InvalidInputError(f"kernel of {depth} frames is longer than x of {t}, with time_padding={time_padding}")
    last = (count - 1) * time_stride + 1
    shifted = jnp.concatenate([x[:, r : r + last : time_stride] for r in range(depth)], axis=-1)
    folded = jnp.moveaxis(kernel, 0, 2).reshape(*kernel.shape[1:3], depth * channels, kernel.shape[-1])
    y = conv(shifted.reshape(b * count, height, width, depth * channels), folded, stride=stride, padding=padding)
    return y.reshape(b, count, *y.shape[1:])
