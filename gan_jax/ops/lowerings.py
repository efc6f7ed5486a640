"""Implementations of the three maps of `gan_jax.ops.primitives` on each platform, and the choice between them by shape.

All arrays have a leading group axis, `[g, ...]`. The implementations are measured by
`python -m benchmarks.convolutions`; decisions and figures are in `docs/adr/0005-networks-and-convolutions.md`.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.export import is_symbolic_dim
from jaxtyping import Array

from gan_jax.ops import few_pixels, winograd
from gan_jax.ops.geometry import ConvGeometry

_LAYOUT = ("NHWC", "HWIO", "NHWC")


def _natural(k: Array, geometry: ConvGeometry) -> tuple[Array, ConvGeometry]:
    """Returns a kernel `[g, u, v, i, o]` and its geometry."""
    return (k.swapaxes(3, 4), geometry._replace(swapped=False)) if geometry.swapped else (k, geometry)


def _naturally(form: Callable[..., Array]) -> Callable[..., Array]:
    """Lets a form of the gradient by the kernel return it swapped too."""

    @functools.wraps(form)
    def run(x: Array, y: Array, geometry: ConvGeometry, **options: Any) -> Array:
        k = form(x, y, geometry._replace(swapped=False), **options)
        return k.swapaxes(3, 4) if geometry.swapped else k

    return run


# For accelerators: XLA's own convolution and its transposes, which their libraries are made for.


def forward_xla(x: Array, k: Array, geometry: ConvGeometry) -> Array:
    """Computes `primitives.forward` by XLA's convolution."""
    k, geometry = _natural(k, geometry)

    def one(x: Array, k: Array) -> Array:
        pads = ((geometry.padding, geometry.padding),) * 2
        return lax.conv_general_dilated(x, k, (geometry.stride,) * 2, pads, dimension_numbers=_LAYOUT)

    return one(x[0], k[0])[None] if len(x) == 1 else jax.vmap(one)(x, k)


def input_gradient_xla(y: Array, k: Array, geometry: ConvGeometry) -> Array:
    """Computes `primitives.input_gradient` as the transpose of XLA's convolution."""
    k, geometry = _natural(k, geometry)
    x = jax.ShapeDtypeStruct((*y.shape[:2], *geometry.image, k.shape[3]), y.dtype)
    return jax.linear_transpose(lambda x: forward_xla(x, k, geometry), x)(y)[0]


@_naturally
def kernel_gradient_xla(x: Array, y: Array, geometry: ConvGeometry) -> Array:
    """Computes `primitives.kernel_gradient` as the transpose of XLA's convolution."""
    k = jax.ShapeDtypeStruct((len(x), *geometry.kernel, x.shape[-1], y.shape[-1]), y.dtype)
    return jax.linear_transpose(lambda k: forward_xla(x, k, geometry), k)(y)[0]


# For TPUs: the same, except that groups of few channels are joined. An array of groups is laid out with the channels of
# one group in the 128 lanes, so that 16 channels take eight times their memory, and a pass of the matrix unit computes
# one group alone. Joined groups fill the lanes; their kernel has zeros between the groups. `docs/tpu.md` has figures.

_LANES = 128
_LEAST_PIXELS = 2048  # on each device; with fewer the joined kernels, which are larger, cost more than they save


def forward_tpu(x: Array, k: Array, geometry: ConvGeometry, *, devices: int) -> Array:
    """Computes `primitives.forward` on TPUs, whose `devices` share the batch; with 0, groups lie apart (members)."""
    k, geometry = _natural(k, geometry)
    return _tpu_form(k.shape, x.shape[1], geometry, devices)(x, k, geometry)


def input_gradient_tpu(y: Array, k: Array, geometry: ConvGeometry, *, devices: int) -> Array:
    """Computes `primitives.input_gradient` on TPUs; see `forward_tpu`."""
    k, geometry = _natural(k, geometry)
    form = _tpu_form(k.shape, y.shape[1], geometry, devices)
    x = jax.ShapeDtypeStruct((*y.shape[:2], *geometry.image, k.shape[3]), y.dtype)
    return jax.linear_transpose(lambda x: form(x, k, geometry), x)(y)[0]


@_naturally
def kernel_gradient_tpu(x: Array, y: Array, geometry: ConvGeometry, *, devices: int) -> Array:
    """Computes `primitives.kernel_gradient` on TPUs; see `forward_tpu`."""
    k = jax.ShapeDtypeStruct((len(x), *geometry.kernel, x.shape[-1], y.shape[-1]), y.dtype)
    form = _tpu_form(k.shape, x.shape[1], geometry, devices)
    return jax.linear_transpose(lambda k: form(x, k, geometry), k)(y)[0]


def _tpu_form(kernel: tuple[int, ...], batch: int, geometry: ConvGeometry, devices: int) -> Callable[..., Array]:
    """Returns the function that computes a convolution: with as many groups joined as fill the lanes, if that pays."""
    groups, channels = kernel[0], max(kernel[3:])
    count = max(n for n in range(1, groups + 1) if groups % n == 0 and (n == 1 or n * channels <= _LANES))
    # An exported program has one form for every size of the batch, and cannot compare it with anything.
    if count == 1 or devices == 0 or is_symbolic_dim(batch):
        return forward_xla
    few = batch * math.prod(geometry.image) < _LEAST_PIXELS * devices
    return forward_xla if few else functools.partial(_forward_joined, count=count)


def _forward_joined(x: Array, k: Array, geometry: ConvGeometry, count: int) -> Array:
    """Computes `primitives.forward` as a grouped convolution in which each group is `count` of the given groups."""
    g, u, v, i, o = k.shape
    # 1 where an output channel belongs to the group of the input channel, which comes `count` times: [count, 1, g o]
    own = np.arange(count)[:, None, None] == np.arange(g * o) // o % count
    k = jnp.moveaxis(k, 0, -2).reshape(u, v, 1, i, g * o) * own.astype(k.dtype)
    k = k.reshape(u, v, count * i, g * o)
    x = jnp.moveaxis(x, 0, -2).reshape(*x.shape[1:4], g * i)
    pads = ((geometry.padding, geometry.padding),) * 2
    y = lax.conv_general_dilated(
        x, k, (geometry.stride,) * 2, pads, dimension_numbers=_LAYOUT, feature_group_count=g // count
    )
    return jnp.moveaxis(y.reshape(*y.shape[:3], g, o), -2, 0)


# For CPUs. XLA's convolution is as fast there as its matrix product. Slower are its gradients, grouped convolutions,
# convolutions of few channels, and those of an image smaller than the kernel. XLA splits the pixels of an image row and
# the kernel's output channels among threads, but neither the batch nor the rows: with narrow images and small kernels
# only one thread works.
# `local` is true if the whole batch is on one device. Otherwise the batch is sharded, and must be neither split nor
# reordered here, which would make the devices exchange data.

_FEW = 4  # the largest number of channels that counts as few
_SMALL_KERNEL = 9 * 128 * 128  # numbers in the largest kernel that XLA does not split among threads
_ROW = 128  # pixels in a row that is long enough to be split among threads
_CACHE = 8 * 2**20  # bytes of patches that fit in a cache
_PIXELS = 1024  # pixels that are enough for a fast matrix product


def forward_cpu(x: Array, k: Array, geometry: ConvGeometry, *, local: bool) -> Array:
    """Computes `primitives.forward` on a CPU, in the fastest way for its shape."""
    if few_pixels.pays(geometry, x.shape[1], k.shape[3], k.shape[4]):
        return few_pixels.forward(x, k, geometry)
    k, geometry = _natural(k, geometry)
    turned = geometry.turned()
    if turned is not None and k.shape[4] <= _FEW < k.shape[3]:
        return _overlapping(x, _turn(k), turned)
    if local and winograd.pays(geometry, x.shape[1], k.shape[3], k.shape[4], x.dtype):
        return winograd.forward(x, k, geometry)
    point = geometry.kernel == (1, 1) and geometry.stride == 1
    if len(x) > 1 or _is_small(geometry) or point or (k.shape[3] <= _FEW and geometry.stride > 1):
        taps, patches = _in_blocks(k, geometry.stride), _patches(x, geometry)
        y = _matmul(patches.reshape(len(x), -1, patches.shape[-1]), taps.reshape(len(x), -1, k.shape[-1]), (2, 1))
        return y.reshape(*patches.shape[:-1], -1)
    if local and turned is not None and k.size <= _SMALL_KERNEL:
        return _side_by_side(x, _turn(k), turned)
    return forward_xla(x, k, geometry)


def input_gradient_cpu(y: Array, k: Array, geometry: ConvGeometry, *, local: bool) -> Array:
    """Computes `primitives.input_gradient` on a CPU, in the fastest way for its shape."""
    if few_pixels.pays(geometry, y.shape[1], k.shape[3], k.shape[4]):
        return few_pixels.input_gradient(y, k, geometry)
    return _input_gradient_cpu(y, *_natural(k, geometry), local=local)


def _input_gradient_cpu(y: Array, k: Array, geometry: ConvGeometry, *, local: bool) -> Array:
    """Computes the gradient by the input in one of the forms for many pixels."""
    if local and winograd.pays(geometry, y.shape[1], k.shape[3], k.shape[4], y.dtype):
        return winograd.input_gradient(y, k, geometry)
    if len(y) > 1 or _is_small(geometry) or k.shape[3] <= _FEW:
        return _overlapping(y, k, geometry)
    turned = geometry.turned()
    if turned is not None:
        return forward_cpu(y, _turn(k), turned, local=local)
    if min(geometry.result) <= max(geometry.kernel):
        return _overlapping(y, k, geometry)
    if local and min(geometry.kernel) >= geometry.stride:
        return _side_by_side(y, k, geometry)
    pads = [
        (n - 1 - geometry.padding, image - (result - 1) * geometry.stride - 1 + geometry.padding)
        for n, result, image in zip(geometry.kernel, geometry.result, geometry.image, strict=True)
    ]
    # XLA's transpose of a convolution is the same dilated convolution, but with the kernel in a slower layout
    dilation = (geometry.stride, geometry.stride)
    x = lax.conv_general_dilated(y[0], _turn(k)[0], (1, 1), pads, lhs_dilation=dilation, dimension_numbers=_LAYOUT)
    return x[None]


def _is_small(geometry: ConvGeometry) -> bool:
    """Whether the image or the result is smaller than the kernel."""
    return min(*geometry.image, *geometry.result) < max(geometry.kernel)


def _side_by_side(y: Array, k: Array, geometry: ConvGeometry) -> Array:
    """Computes the gradient by the input, with several images side by side, as a convolution for each residue.

    With n = stride m + r, row n of x is the sum of `y[m + (r + padding - u) / stride] k[u]` over all u for which the
    division is exact. For each residue r this is a convolution of y. The same holds for the columns. Images side by
    side make rows that are long enough for XLA to split them among threads.
    """
    (b, h, w, _), stride = y.shape[1:], geometry.stride
    rows, columns = ([_residue(r, n, stride, geometry.padding) for r in range(stride)] for n in geometry.kernel)
    height, width = (-(-n // stride) for n in geometry.image)
    # columns of zeros between neighbouring images, so that no kernel sees two of them
    gap = max(max(-low, width + high - w, width - w, 0) for _, low, high in columns)
    side = 1
    while side * w < _ROW and b % (2 * side) == 0:
        side *= 2
    y = y[0].reshape(b // side, side, h, w, -1).swapaxes(1, 2)
    y = jnp.pad(y, ((0, 0), (0, 0), (0, 0), (0, gap), (0, 0))).reshape(b // side, h, side * (w + gap), -1)

    def part(row: tuple[int, int, int], column: tuple[int, int, int]) -> Array:
        taps = _turn(k[:, row[0] :: stride, column[0] :: stride])[0]
        pads = ((-row[1], height - h + row[2]), (-column[1], column[2]))
        x = lax.conv_general_dilated(y, taps, (1, 1), pads, dimension_numbers=_LAYOUT)
        return x.reshape(b // side, height, side, w + gap, -1)[:, :, :, :width]

    x = jnp.stack([jnp.stack([part(row, column) for column in columns], axis=4) for row in rows], axis=2)
    x = jnp.moveaxis(x, 3, 1).reshape(1, b, height * stride, width * stride, -1)
    return x[:, :, : geometry.image[0], : geometry.image[1]]


def _residue(r: int, size: int, stride: int, padding: int) -> tuple[int, int, int]:
    """Returns the first tap that writes to positions r modulo the stride; the least and largest offset of y there."""
    first = (r + padding) % stride
    high = (r + padding - first) // stride
    return first, high - (size - 1 - first) // stride, high


def _overlapping(y: Array, k: Array, geometry: ConvGeometry) -> Array:
    """Computes the gradient by the input as one matrix product, and adds up the blocks where they overlap."""
    # for row i of y, tap u = span stride + p of the kernel writes row p of block i + span, in blocks of `stride` rows
    g, b, *_, o = y.shape
    stride, taps = geometry.stride, _in_blocks(k, geometry.stride)
    x = _matmul(y.reshape(g, -1, o), taps.reshape(g, -1, o), (2, 2))
    x = x.reshape(g, b, *geometry.result, *taps.shape[1:3], -1)
    x = _overlap_add(x, space=2, block=4)
    x = _overlap_add(x, space=3, block=4)
    rows, columns = x.shape[2:4]
    x = x.reshape(g, b, rows, columns, stride, stride, -1).transpose(0, 1, 2, 4, 3, 5, 6)
    x = x.reshape(g, b, rows * stride, columns * stride, -1)
    pads = [(-geometry.padding, n + geometry.padding - m, 0) for n, m in zip(geometry.image, x.shape[2:4], strict=True)]
    return lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), (0, 0, 0), *pads, (0, 0, 0)))


def kernel_gradient_cpu(x: Array, y: Array, geometry: ConvGeometry, *, local: bool) -> Array:
    """Computes `primitives.kernel_gradient` on a CPU, in the fastest way for its shape.

    If the patches of all images together would not fit in a cache, it takes a few images at a time.
    """
    if few_pixels.pays(geometry, x.shape[1], x.shape[-1], y.shape[-1]):
        return few_pixels.kernel_gradient(x, y, geometry)
    return _kernel_gradient_cpu(x, y, geometry, local=local)


@_naturally
def _kernel_gradient_cpu(x: Array, y: Array, geometry: ConvGeometry, *, local: bool) -> Array:
    """Computes the gradient by the kernel in one of the forms for many pixels."""
    turned = geometry.turned()
    if turned is not None and y.shape[-1] <= _FEW < x.shape[-1]:
        return _turn(kernel_gradient_cpu(y, x, turned, local=local))
    if x.shape[-1] <= _FEW:
        return _kernel_of_few(x, y, geometry)
    if local and winograd.pays(geometry, x.shape[1], x.shape[-1], y.shape[-1], x.dtype):
        return winograd.kernel_gradient(x, y, geometry)
    b, pixels = x.shape[1], math.prod(geometry.result)
    count = math.gcd(b, max(1, _PIXELS // pixels))
    size = len(x) * b * pixels * geometry.spans[1] * geometry.stride**2 * x.shape[-1] * x.dtype.itemsize
    if not local or count == b or size <= _CACHE:
        return _kernel_by_rows(x, y, geometry)

    def add(index: Array, k: Array) -> Array:
        few_x, few_y = (lax.dynamic_slice_in_dim(a, index * count, count, axis=1) for a in (x, y))
        return k + _kernel_by_rows(few_x, few_y, geometry).astype(k.dtype)

    shape, wide = (len(x), *geometry.kernel, x.shape[-1], y.shape[-1]), jnp.promote_types(x.dtype, jnp.float32)
    return lax.fori_loop(0, b // count, add, jnp.zeros(shape, wide)).astype(x.dtype)


def _kernel_of_few(x: Array, y: Array, geometry: ConvGeometry) -> Array:
    """Computes the gradient by the kernel for few input channels, as one matrix product for all taps."""
    g, b, height, width, o = y.shape
    block = (geometry.stride, geometry.stride, x.shape[-1])
    k = _matmul(_patches(x, geometry).reshape(g, b * height * width, -1), y.reshape(g, -1, o), (1, 1))
    return _of_blocks(k.reshape(g, *geometry.spans, *block, o).transpose(0, 1, 3, 2, 4, 5, 6), geometry)


def _kernel_by_rows(x: Array, y: Array, geometry: ConvGeometry) -> Array:
    """Computes the gradient by the kernel, as one matrix product for each row of strides in the kernel."""
    # a product with few rows and many columns, `[o, taps]`, is twice as fast as its transpose
    g, _, height, _, o = y.shape
    spans, block = geometry.spans, (geometry.stride, geometry.stride, x.shape[-1])
    rows, y = _rows(x, geometry), y.reshape(g, -1, o)
    taps = [_matmul(y, rows[:, :, u : u + height].reshape(g, y.shape[1], -1), (1, 1)) for u in range(spans[0])]
    k = jnp.stack(taps, axis=1).reshape(g, spans[0], o, spans[1], *block)
    return _of_blocks(k.transpose(0, 1, 4, 3, 5, 6, 2), geometry)


def _of_blocks(k: Array, geometry: ConvGeometry) -> Array:
    """Joins blocks `[g, span, stride, span, stride, i, o]` to a kernel, without the zeros that filled its strides."""
    k = k.reshape(len(k), *(span * geometry.stride for span in geometry.spans), *k.shape[5:])
    return k[:, : geometry.kernel[0], : geometry.kernel[1]]


def _turn(k: Array) -> Array:
    """Turns a kernel by 180 degrees and exchanges its channel axes, for the geometry that `turned` returns."""
    return k[:, ::-1, ::-1].swapaxes(3, 4)


def _matmul(a: Array, b: Array, contracted: tuple[int, int]) -> Array:
    """Multiplies batches of matrices over the axes `contracted` of a and b, with sums in at least float32."""
    dims = (((contracted[0],), (contracted[1],)), ((0,), (0,)))
    wide = jnp.promote_types(a.dtype, jnp.float32)
    return lax.dot_general(a, b, dims, preferred_element_type=wide).astype(a.dtype)


def _in_blocks(k: Array, stride: int) -> Array:
    """Pads a kernel to whole strides and divides it into blocks, `[g, span, span, stride stride i, o]`."""
    spans = [-(-n // stride) for n in k.shape[1:3]]
    pads = [(0, span * stride - n) for span, n in zip(spans, k.shape[1:3], strict=True)]
    k = jnp.pad(k, [(0, 0), *pads, (0, 0), (0, 0)])
    k = k.reshape(len(k), spans[0], stride, spans[1], stride, *k.shape[3:]).transpose(0, 1, 3, 2, 4, 5, 6)
    return k.reshape(*k.shape[:3], -1, k.shape[-1])


def _rows(x: Array, geometry: ConvGeometry) -> Array:
    """Gathers what each column of the result sees in each row of blocks, `[g, b, rows, q, span stride stride i]`.

    A block is stride times stride pixels of the padded image; its pixels become channels.
    """
    g, b = x.shape[:2]
    stride, spans = geometry.stride, geometry.spans
    rows, columns = (n + span - 1 for n, span in zip(geometry.result, spans, strict=True))
    pads = [
        (geometry.padding, n * stride - size - geometry.padding, 0)
        for n, size in zip((rows, columns), geometry.image, strict=True)
    ]
    x = lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), (0, 0, 0), *pads, (0, 0, 0)))
    x = x.reshape(g, b, rows, stride, columns, stride, -1).transpose(0, 1, 2, 4, 3, 5, 6)
    x = x.reshape(g, b, rows, columns, -1)
    return jnp.concatenate([x[:, :, :, v : v + geometry.result[1]] for v in range(spans[1])], axis=-1)


def _patches(x: Array, geometry: ConvGeometry) -> Array:
    """Gathers the patch that each pixel of the result sees, `[g, b, p, q, span span stride stride i]`."""
    rows, height = _rows(x, geometry), geometry.result[0]
    return jnp.concatenate([rows[:, :, u : u + height] for u in range(geometry.spans[0])], axis=-1)


def _overlap_add(x: Array, *, space: int, block: int) -> Array:
    """Adds block q of position i to position i + q of the axis `space`, and drops the axis `block`."""
    count = x.shape[block]

    def shifted(q: int) -> Array:
        pads = [(0, 0)] * (x.ndim - 1)
        pads[space] = (q, count - 1 - q)
        return jnp.pad(lax.index_in_dim(x, q, block, keepdims=False), pads)

    return functools.reduce(jnp.add, map(shifted, range(count)))
