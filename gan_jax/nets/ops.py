"""Convolutions of images `[b, h, w, c]` with kernels `[kh, kw, in, out]`, in the form that each platform runs well.

XLA's convolutions are slow on CPUs where GANs need them: the gradient of a strided or transposed one, and any of them
inside a loop such as `lax.scan`. There a convolution is written as slices and one matrix product, a transposed one as
one matrix product and overlapping adds. Elsewhere XLA's own convolution is used. The values are the same.
"""

import functools

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

_LAYOUT = ("NHWC", "HWIO", "NHWC")


def conv(
    x: Float[Array, "b h w cin"], kernel: Float[Array, "kh kw cin cout"], *, stride: int = 1, padding: int = 0
) -> Float[Array, "b hout wout cout"]:
    """Cross-correlation: `out[i, j] = sum over u, v of x[stride i + u - padding, stride j + v - padding] kernel[u, v]`.

    Args:
      x: images.
      kernel: `[kh, kw, in, out]`.
      stride: of the output positions.
      padding: zeros on every side.

    Returns:
      `[b, (h + 2 padding - kh) // stride + 1, ..., cout]`, in the dtype of `x`.
    """
    return lax.platform_dependent(
        x,
        kernel,
        cpu=functools.partial(_conv_matmul, stride=stride, padding=padding),
        default=functools.partial(_conv_xla, stride=stride, padding=padding),
    )


def conv_transpose(
    x: Float[Array, "b h w cin"], kernel: Float[Array, "kh kw cin cout"], *, stride: int = 2, padding: int = 0
) -> Float[Array, "b hout wout cout"]:
    """Transposed convolution: `out[stride i + u - padding, stride j + v - padding] += x[i, j] kernel[u, v]`.

    With the kernel's channel axes exchanged it is the transpose of `conv`, as in PyTorch's `ConvTranspose2d`;
    `lax.conv_transpose` flips the kernel's spatial axes.

    Args:
      x: images.
      kernel: `[kh, kw, in, out]`.
      stride: of the positions that one input pixel is written to.
      padding: rows and columns dropped on every side of the output.

    Returns:
      `[b, (h - 1) stride + kh - 2 padding, ..., cout]`, in the dtype of `x`.
    """
    return lax.platform_dependent(
        x,
        kernel,
        cpu=functools.partial(_conv_transpose_matmul, stride=stride, padding=padding),
        default=functools.partial(_conv_transpose_xla, stride=stride, padding=padding),
    )


def _conv_xla(x: Array, kernel: Array, *, stride: int, padding: int) -> Array:
    pads = ((padding, padding),) * 2
    return lax.conv_general_dilated(x, kernel, (stride, stride), pads, dimension_numbers=_LAYOUT)


def _conv_matmul(x: Array, kernel: Array, *, stride: int, padding: int) -> Array:
    b, h, w, cin = x.shape
    sizes, cout = kernel.shape[:2], kernel.shape[3]
    outputs = [(n + 2 * padding - k) // stride + 1 for n, k in zip((h, w), sizes, strict=True)]
    # Stride-sized blocks become channels, so that one kernel spans few blocks, at stride 1 in blocks.
    spans, taps = _in_blocks(kernel, stride)
    rows, columns = (n + span - 1 for n, span in zip(outputs, spans, strict=True))
    bottom, right = (n * stride - size - padding for n, size in ((rows, h), (columns, w)))
    x = lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), (padding, bottom, 0), (padding, right, 0), (0, 0, 0)))
    x = x.reshape(b, rows, stride, columns, stride, cin).transpose(0, 1, 3, 2, 4, 5)
    x = x.reshape(b, rows, columns, stride * stride * cin)
    patches = [x[:, i : i + outputs[0], j : j + outputs[1]] for i in range(spans[0]) for j in range(spans[1])]
    y = jnp.concatenate(patches, axis=-1).reshape(b * outputs[0] * outputs[1], -1) @ taps.reshape(-1, cout)
    return y.reshape(b, *outputs, cout)


def _in_blocks(kernel: Array, stride: int) -> tuple[list[int], Array]:
    """A kernel padded to whole strides: how many it spans, and `[span, span, stride, stride, in, out]`."""
    spans = [-(-k // stride) for k in kernel.shape[:2]]
    pads = [(0, span * stride - k) for span, k in zip(spans, kernel.shape[:2], strict=True)]
    kernel = jnp.pad(kernel, [*pads, (0, 0), (0, 0)])
    return spans, kernel.reshape(spans[0], stride, spans[1], stride, *kernel.shape[2:]).transpose(0, 2, 1, 3, 4, 5)


def _conv_transpose_xla(x: Array, kernel: Array, *, stride: int, padding: int) -> Array:
    pads = [(k - 1 - padding, k - 1 - padding) for k in kernel.shape[:2]]
    flipped = kernel[::-1, ::-1]
    return lax.conv_general_dilated(x, flipped, (1, 1), pads, lhs_dilation=(stride, stride), dimension_numbers=_LAYOUT)


def _conv_transpose_matmul(x: Array, kernel: Array, *, stride: int, padding: int) -> Array:
    b, h, w, cin = x.shape
    cout = kernel.shape[3]
    # Tap u = q stride + p of the kernel writes phase p of output block i + q.
    spans, taps = _in_blocks(kernel, stride)
    y = x.reshape(-1, cin) @ taps.transpose(4, 0, 1, 2, 3, 5).reshape(cin, -1)
    y = y.reshape(b, h, w, *spans, stride * stride * cout)
    y = _overlap_add(y, space=1, block=3)
    y = _overlap_add(y, space=2, block=3)
    rows, columns = y.shape[1:3]
    y = y.reshape(b, rows, columns, stride, stride, cout).transpose(0, 1, 3, 2, 4, 5)
    y = y.reshape(b, rows * stride, columns * stride, cout)
    bottom, right = ((n - 1) * stride + k - padding for n, k in ((h, kernel.shape[0]), (w, kernel.shape[1])))
    return y[:, padding:bottom, padding:right]


def _overlap_add(y: Array, *, space: int, block: int) -> Array:
    """Adds block q of position i to position i + q, and drops the axis `block`."""
    count = y.shape[block]

    def shifted(q: int) -> Array:
        pads = [(0, 0)] * (y.ndim - 1)
        pads[space] = (q, count - 1 - q)
        return jnp.pad(lax.index_in_dim(y, q, block, keepdims=False), pads)

    return functools.reduce(jnp.add, map(shifted, range(count)))
