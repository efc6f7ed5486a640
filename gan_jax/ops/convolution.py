"""Convolution and resampling of images `[b, h, w, c]`, implemented for speed on each platform.

JAX's gradients of strided and transposed convolutions are slow, on CPUs by a factor of 5 to 300. So is the grouped
convolution that `vmap` makes of a convolution whose kernels are mapped. Here each of them has its own implementation on
each platform (`gan_jax.ops.primitives`), with the values of `jax.lax.conv_general_dilated`. All functions can be
differentiated any number of times, in forward and reverse mode, and work under `jit`, `vmap`, `shard_map` and with
sharded arrays. This module needs only jax and jaxtyping. Measurements: `docs/adr/0005-networks-and-convolutions.md`.
"""

from collections.abc import Sequence

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from gan_jax.ops import primitives
from gan_jax.ops.geometry import ConvGeometry
from gan_jax.types import InvalidInputError


def conv(
    x: Float[Array, "b h w cin"], kernel: Float[Array, "kh kw cingroup cout"], *,
    stride: int = 1, padding: int = 0, groups: int = 1, mode: str = "zeros",
) -> Float[Array, "b hout wout cout"]:  # fmt: skip
    """Computes the cross-correlation of images with a kernel.

    `out[i, j] = sum over u, v of x[stride i + u - padding, stride j + v - padding] kernel[u, v]`

    Args:
      x: images.
      kernel: `[kh, kw, in / groups, out]`.
      stride: distance of neighbouring kernel positions on the image.
      padding: number of pixels added on every side of the images.
      groups: number of groups of input channels; each group has its own part of the kernel's output channels, in order.
      mode: values of the added pixels: 'zeros', or 'reflect' or 'edge' as in `pad`.

    Returns:
      `[b, (h + 2 padding - kh) // stride + 1, ..., out]`, in the dtype that `x` and `kernel` promote to.

    Raises:
      InvalidInputError: for arguments that don't fit each other.
    """
    x, kernel = _checked(x, kernel, stride, padding, groups)
    if mode != "zeros":
        x, padding = pad(x, padding, mode), 0
    geometry = ConvGeometry(stride, padding, (x.shape[1], x.shape[2]), (kernel.shape[0], kernel.shape[1]))
    if min(geometry.result) < 1:
        raise InvalidInputError(
            f"kernel of {kernel.shape[:2]} is larger than x of {x.shape[1:3]} with padding={padding}"
        )
    y = primitives.forward(_split(x, groups), _split(kernel, groups), geometry)
    return _joined(y)


def pad(x: Float[Array, "b h w c"], padding: int, mode: str = "reflect") -> Float[Array, "b hout wout c"]:
    """Adds pixels on every side of images, with values that depend on the image.

    Args:
      x: images.
      padding: number of pixels added on every side.
      mode: values of the added pixels. 'reflect' mirrors the image at its outermost row, which is not repeated; 'edge'
        repeats the outermost row; 'zeros' adds zeros.

    Returns:
      `[b, h + 2 padding, w + 2 padding, c]`.

    Raises:
      InvalidInputError: for another mode, a negative padding, and a reflection that is wider than the image.

    References:
      PyTorch's `ReflectionPad2d` and `ReplicationPad2d`.

    Example:
      >>> print(pad(jnp.arange(3.0)[None, None, :, None].repeat(2, 1), 1)[0, 1, :, 0])
      [1. 0. 1. 2. 1.]
    """
    modes = ("zeros", "reflect", "edge")
    if mode not in modes or padding < 0:
        raise InvalidInputError(f"mode={mode!r}, padding={padding}: expected one of {', '.join(modes)}, and at least 0")
    if mode == "reflect" and padding >= min(x.shape[1:3]):
        raise InvalidInputError(
            f"padding={padding} by reflection: images of {x.shape[1]}x{x.shape[2]} pixels are too small; "
            f"expected more than {padding}: use larger images"
        )
    if mode == "zeros" or padding == 0:
        return jnp.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    # Not `jnp.pad`: in the mode 'edge' it slices the batch as well, and its gradient then sends pixels between devices.
    for axis in (1, 2):
        size, offset = x.shape[axis], int(mode == "reflect")
        length = padding if mode == "reflect" else 1
        before = lax.slice_in_dim(x, offset, offset + length, axis=axis)
        after = lax.slice_in_dim(x, size - offset - length, size - offset, axis=axis)
        if mode == "reflect":
            before, after = lax.rev(before, [axis]), lax.rev(after, [axis])
        else:
            before, after = (jnp.repeat(edge, padding, axis=axis) for edge in (before, after))
        x = lax.concatenate([before, x, after], axis)
    return x


def conv_transpose(
    x: Float[Array, "b h w cin"], kernel: Float[Array, "kh kw cingroup cout"], *,
    stride: int = 2, padding: int = 0, groups: int = 1,
) -> Float[Array, "b hout wout cout"]:  # fmt: skip
    """Computes the transposed convolution of images with a kernel.

    `out[stride i + u - padding, stride j + v - padding] += x[i, j] kernel[u, v]`

    This is the transpose of `conv` with the kernel's channel axes exchanged. PyTorch's `ConvTranspose2d` is the same,
    with a kernel laid out as `[in, out / groups, kh, kw]`; `lax.conv_transpose` flips the kernel's spatial axes.

    Args:
      x: images.
      kernel: `[kh, kw, in / groups, out]`.
      stride: distance of the output positions that neighbouring input pixels are written to.
      padding: number of rows and columns dropped on every side of the output.
      groups: number of groups of input channels, as in `conv`.

    Returns:
      `[b, (h - 1) stride + kh - 2 padding, ..., out]`, in the dtype that `x` and `kernel` promote to.

    Raises:
      InvalidInputError: for arguments that don't fit each other.
    """
    x, kernel = _checked(x, kernel, stride, padding, groups)
    height, width = ((n - 1) * stride + k - 2 * padding for n, k in zip(x.shape[1:3], kernel.shape[:2], strict=True))
    if min(height, width) < 1:
        raise InvalidInputError(
            f"padding={padding} leaves nothing of the output for x {x.shape}, kernel {kernel.shape}"
        )
    geometry = ConvGeometry(stride, padding, (height, width), (kernel.shape[0], kernel.shape[1]), swapped=True)
    y = primitives.input_gradient(_split(x, groups), _split(kernel, groups), geometry)
    return _joined(y)


def doubled_conv(
    x: Float[Array, "b h w cin"], kernel: Float[Array, "k k cin cout"], *, padding: int
) -> Float[Array, "b hout wout cout"]:
    """Doubles images by repeating each pixel as 2x2 and applies `conv`, as one transposed convolution.

    Repeated pixels are equal, so the kernel's values for them are added up beforehand. A 3x3 kernel then takes 4
    products for each pixel and channel of the result, not 9.

    Args:
      x: images before doubling.
      kernel: square kernel, for the doubled images.
      padding: number of zeros on every side of the doubled images, less than the size of the kernel.

    Returns:
      `[b, 2 h + 2 padding - k + 1, ..., cout]`; for an odd k and `padding = k // 2` that is `[b, 2 h, 2 w, cout]`.

    Raises:
      InvalidInputError: for arguments that don't fit each other.

    References:
      `fused_scale` in the code of Karras et al., "Progressive Growing of GANs", arXiv:1710.10196, 2018.
    """
    if not 0 <= padding < kernel.shape[0]:
        raise InvalidInputError(f"padding={padding}: expected 0 to {kernel.shape[0] - 1}, for kernel {kernel.shape}")
    return conv_transpose(x, _spread(kernel[::-1, ::-1]), stride=2, padding=kernel.shape[0] - 1 - padding)


def conv_halved(
    x: Float[Array, "b h w cin"], kernel: Float[Array, "k k cin cout"], *, padding: int
) -> Float[Array, "b hout wout cout"]:
    """Applies `conv` and averages over 2x2 pixels, as one convolution with stride 2.

    Like `doubled_conv`, it takes fewer products than the two operations in turn.

    Args:
      x: images.
      kernel: kernel of the convolution before averaging.
      padding: number of zeros added on every side of the images.

    Returns:
      `[b, (h + 2 padding - k + 1) // 2, ..., cout]`. If the number of rows or columns to average is odd, the last one
      is left out.

    Raises:
      InvalidInputError: for arguments that don't fit each other.

    References:
      The same as for `doubled_conv`.
    """
    return conv(x, _spread(kernel) / 4, stride=2, padding=padding)


def _spread(kernel: Array) -> Array:
    """Adds up a kernel at 2x2 neighbouring positions, `[kh + 1, kw + 1, ...]`."""
    rest = [(0, 0), (0, 0)]
    kernel = jnp.pad(kernel, [(1, 0), (0, 0), *rest]) + jnp.pad(kernel, [(0, 1), (0, 0), *rest])
    return jnp.pad(kernel, [(0, 0), (1, 0), *rest]) + jnp.pad(kernel, [(0, 0), (0, 1), *rest])


def upfirdn(
    x: Float[Array, "b h w c"], taps: Sequence[float], *,
    up: int = 1, down: int = 1, padding: tuple[int, int] = (0, 0),
) -> Float[Array, "b hout wout c"]:  # fmt: skip
    """Upsamples with zeros, filters, and keeps every `down`-th pixel, in height and in width.

    Let z be the image in which `up - 1` zeros follow each pixel, with `padding` zeros before and after. Then
    `out[i] = sum over t of taps[n - 1 - t] z[down i + t]` along each axis. This is a convolution, which flips the taps,
    like StyleGAN2's `upfirdn2d` with a separable filter. `scipy.signal.upfirdn` is the same with a fixed padding.

    Args:
      x: images.
      taps: the n coefficients of the filter along each axis, used as given; `blur_pool` and `upsample` normalise them.
      up: factor of upsampling.
      down: factor of downsampling.
      padding: number of zeros before and after, along both axes, in pixels of the upsampled image; negative numbers
        crop.

    Returns:
      `[b, (h up + padding before and after - n) // down + 1, ..., c]`, in the dtype of `x`.

    Raises:
      InvalidInputError: for factors below 1, and images smaller than the filter.

    References:
      Karras et al., "Analyzing and Improving the Image Quality of StyleGAN", arXiv:1912.04958, 2020.
    """
    if up < 1 or down < 1:
        raise InvalidInputError(f"up={up}, down={down}: expected at least 1")
    for axis in (1, 2):
        x = _upfirdn_axis(x, axis, taps, up, down, padding)
    return x


def _upfirdn_axis(x: Array, axis: int, taps: Sequence[float], up: int, down: int, padding: tuple[int, int]) -> Array:
    before, after = padding
    pads = [(0, 0, 0)] * x.ndim
    pads[axis] = (before, after + up - 1, up - 1)  # zeros between pixels, and `up - 1` after the last one too
    z = lax.pad(x, jnp.zeros((), x.dtype), pads)
    size = (z.shape[axis] - len(taps)) // down + 1
    if size < 1:
        raise InvalidInputError(f"a filter of {len(taps)} taps does not fit in {z.shape[axis]} pixels: pad more")
    out = jnp.zeros((), x.dtype)
    for offset, tap in enumerate(reversed(taps)):
        seen = lax.slice_in_dim(z, offset, offset + down * (size - 1) + 1, stride=down, axis=axis)
        out = out + jnp.asarray(tap, x.dtype) * seen
    return out


def blur_pool(
    x: Float[Array, "b h w c"], taps: Sequence[float] = (1, 3, 3, 1), *, factor: int = 2
) -> Float[Array, "b hout wout c"]:
    """Applies a low-pass filter and downsamples: strided pooling with little aliasing.

    Constant images keep their value, except near the edge.

    Args:
      x: images, whose size `factor` divides.
      taps: coefficients of the filter along each axis, scaled to sum 1. `(1, 3, 3, 1)` is StyleGAN2's filter;
        `(1, 2, 1)` is common too.
      factor: factor of downsampling; 1 only blurs.

    Returns:
      `[b, h / factor, w / factor, c]`.

    References:
      Zhang, "Making Convolutional Networks Shift-Invariant Again", arXiv:1904.11486, 2019, which mirrors the image at
      its edge. StyleGAN2 (reference in `upfirdn`) and this function put zeros there.
    """
    rest = len(taps) - factor
    return upfirdn(x, _normalized(taps), down=factor, padding=((rest + 1) // 2, rest // 2))


def upsample(
    x: Float[Array, "b h w c"], taps: Sequence[float] = (1, 3, 3, 1), *, factor: int = 2
) -> Float[Array, "b hout wout c"]:
    """Upsamples with zeros and applies a low-pass filter, which interpolates.

    Constant images keep their value, except near the edge.

    Args:
      x: images.
      taps: coefficients of the filter along each axis, scaled to sum `factor`. With `factor=2`, `(1, 3, 3, 1)` is
        StyleGAN2's filter, `(1, 1)` is nearest-neighbour and `(1, 2, 1)` linear interpolation.
      factor: factor of upsampling.

    Returns:
      `[b, h factor, w factor, c]`.

    References:
      The same as for `upfirdn`. As there, the zeros beyond the edge count as pixels, so the border is darker.
    """
    rest = len(taps) - factor
    padding = ((rest + 1) // 2 + factor - 1, rest // 2)
    return upfirdn(x, [tap * factor for tap in _normalized(taps)], up=factor, padding=padding)


def _normalized(taps: Sequence[float]) -> list[float]:
    if not sum(taps):
        raise InvalidInputError(f"taps={tuple(taps)}: their sum is 0, so they cannot be scaled to sum 1")
    return [tap / sum(taps) for tap in taps]


def _checked(x: Array, kernel: Array, stride: int, padding: int, groups: int) -> tuple[Array, Array]:
    if x.ndim != 4 or kernel.ndim != 4:
        raise InvalidInputError(
            f"x {x.shape}, kernel {kernel.shape}: expected [b, h, w, in], [kh, kw, in / groups, out]"
        )
    if stride < 1 or padding < 0 or groups < 1:
        raise InvalidInputError(f"stride={stride}, padding={padding}, groups={groups}: expected at least 1, 0 and 1")
    if x.shape[3] != kernel.shape[2] * groups or kernel.shape[3] % groups:
        raise InvalidInputError(
            f"x {x.shape}, kernel {kernel.shape}, groups={groups}: expected a kernel of [kh, kw, in / groups, "
            "out] with out a multiple of groups"
        )
    dtype = jnp.promote_types(x.dtype, kernel.dtype)
    return x.astype(dtype), kernel.astype(dtype)


def _split(x: Array, groups: int) -> Array:
    """Splits the channels of `[..., groups c]` into groups, `[groups, ..., c]`."""
    return jnp.moveaxis(x.reshape(*x.shape[:-1], groups, -1), -2, 0)


def _joined(x: Array) -> Array:
    """Joins the channels of the groups `[groups, ..., c]` to `[..., groups c]`."""
    x = jnp.moveaxis(x, 0, -2)
    return x.reshape(*x.shape[:-2], -1)
