"""Winograd's algorithm for the three maps of `gan_jax.ops.primitives`, for CPUs: it needs a few times fewer products.

Consider a convolution along one axis, with r taps and tiles of m results. Its trilinear form is a sum over
n = m + r - 1 points of products of three numbers, each linear in one of the three arrays,

    T(x, k, y) = sum over tiles and p of (B x)[p] (G k)[p] (A y)[p],

where the direct form takes m r products. Here both axes are transformed. Each map transforms its two operands,
multiplies matrices of channels at each of the n^2 points, and transforms the result by the transpose of the third
matrix. If two maps share an operand, as all do in training, XLA transforms it once. With stride 2, blocks of 2x2 pixels
become channels, and a 4x4 kernel becomes a kernel of 2x2 such blocks. The number of products per tile of 4x4 results
falls from 144 to 36 for 3x3 kernels at stride 1, and from 64 to 25 for 4x4 kernels at stride 2.

In float32 the rounding error is about five times that of a plain sum: 9e-7 and 2e-7, relative, for random numbers.

References:
  Winograd, "Arithmetic Complexity of Computations", SIAM, 1980; Lavin and Gray, "Fast Algorithms for Convolutional
  Neural Networks", arXiv:1509.09308, 2015; the points are those of Barabasz et al., "Error Analysis and Improving the
  Accuracy of Winograd Convolution for Deep Neural Networks", arXiv:1803.10986, 2018.
"""

import functools
import math
from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.export import is_symbolic_dim
from jaxtyping import Array

from gan_jax.ops.geometry import ConvGeometry

_TILE = 4  # m, the results of a tile along each axis
_POINTS = {2: ("0", "1", "-1", "2"), 3: ("0", "1", "-1", "1/2", "-2")}  # for r taps, beside the point at infinity
_KERNELS = {((3, 3), 1), ((4, 4), 2)}  # kernels and their strides
_TRANSFORM = 2.0  # cost of a product in a transform, relative to one in a large matrix product
_KERNEL = 12.0  # cost of a number of the transformed kernel, in the same unit; most of it is the memory's
_GAIN = 1.2  # predicted speed-up from which the algorithm is used


def pays(geometry: ConvGeometry, batch: int, inputs: int, outputs: int, dtype: jnp.dtype) -> bool:
    """Whether the algorithm saves enough products to make up for its transforms.

    Transformed, a kernel has up to six times as many numbers. For few tiles, as small images in small batches have, it
    takes longer to write and to read these than to multiply by the kernel itself.

    Args:
      geometry: geometry of the convolution.
      batch: number of images; many, where an exported program leaves it open.
      inputs: number of channels of x.
      outputs: number of channels of y.
      dtype: dtype of all arrays; never true for half precision, whose rounding errors would be too large.
    """
    if (geometry.kernel, geometry.stride) not in _KERNELS or jnp.dtype(dtype).itemsize < 4:
        return False
    n, depth = _TILE + geometry.spans[0] - 1, inputs * geometry.stride**2
    direct = math.prod(geometry.result) * math.prod(geometry.kernel) * inputs * outputs
    transforms = n**3 * 2 * depth + (n + _TILE) * n * _TILE * outputs
    images = math.prod(_tiles(geometry)) * (n**2 * depth * outputs + _TRANSFORM * transforms)
    kernel = 0.0 if is_symbolic_dim(batch) else _KERNEL * n**2 * depth * outputs / batch
    return direct > _GAIN * (images + kernel)


def forward(x: Array, k: Array, geometry: ConvGeometry) -> Array:
    """Computes `primitives.forward`."""
    return _result_from_points(_product(_image_at_points(x, geometry), _kernel_at_points(k, geometry), 3, 2), geometry)


def input_gradient(y: Array, k: Array, geometry: ConvGeometry) -> Array:
    """Computes `primitives.input_gradient`."""
    return _image_from_points(_product(_result_at_points(y, geometry), _kernel_at_points(k, geometry), 3, 3), geometry)


def kernel_gradient(x: Array, y: Array, geometry: ConvGeometry) -> Array:
    """Computes `primitives.kernel_gradient`."""
    return _kernel_from_points(_product(_image_at_points(x, geometry), _result_at_points(y, geometry), 2, 2), geometry)


def _product(a: Array, b: Array, contracted_a: int, contracted_b: int) -> Array:
    """Multiplies the matrices at every point, `[n n, g, ...]`; those of images are `[b tiles, channels]`."""
    return lax.dot_general(a, b, (((contracted_a,), (contracted_b,)), ((0, 1), (0, 1))))


class _Matrices(NamedTuple):
    """Transforms along one axis: B `[n, n]` of an image tile, G `[n, r]` of a kernel, A `[n, m]` of a result tile."""

    image: np.ndarray
    kernel: np.ndarray
    result: np.ndarray


@functools.cache
def matrices(taps: int) -> _Matrices:
    """Computes the matrices of Toom and Cook in fractions, so that only the conversion to floats rounds.

    Toom and Cook find the product of two polynomials from its values at the points a_p; this is the transpose of their
    algorithm. With M(x) = product of (x - a_l), row p of B holds the coefficients of M(x) / (x - a_p). Row p of G holds
    the powers of a_p, divided by the value of that polynomial at a_p. Row p of A holds the powers of a_p. The last row
    of each matrix belongs to the point at infinity.

    Args:
      taps: number of taps r.
    """
    points = [Fraction(point) for point in _POINTS[taps]]
    image, kernel, result = [], [], []
    for index, point in enumerate(points):
        others = points[:index] + points[index + 1 :]
        image.append([*_coefficients(others), Fraction(0)])
        scale = math.prod((point - other for other in others), start=Fraction(1))
        kernel.append([point**power / scale for power in range(taps)])
        result.append([point**power for power in range(_TILE)])
    image.append(_coefficients(points))
    kernel.append([Fraction(power == taps - 1) for power in range(taps)])
    result.append([Fraction(power == _TILE - 1) for power in range(_TILE)])
    return _Matrices(*(np.array(matrix, dtype=float) for matrix in (image, kernel, result)))


def _coefficients(roots: Sequence[Fraction]) -> list[Fraction]:
    """Returns the coefficients of the polynomial with these roots and leading coefficient 1, the constant first."""
    found = [Fraction(1)]
    for root in roots:
        found = [a - root * b for a, b in zip([Fraction(0), *found], [*found, Fraction(0)], strict=True)]
    return found


def _tiles(geometry: ConvGeometry) -> list[int]:
    """Returns the number of tiles that cover the result along each axis."""
    return [-(-n // _TILE) for n in geometry.result]


def _combined(matrix: np.ndarray, parts: Sequence[Array]) -> list[Array]:
    """Multiplies the matrix by a vector of arrays, as sums of arrays: its rows are short, and have zeros and ones."""
    return [
        functools.reduce(
            jnp.add,
            [part if c == 1 else jnp.asarray(c, part.dtype) * part for c, part in zip(row, parts, strict=True) if c],
        )
        for row in matrix
    ]


def _image_at_points(x: Array, geometry: ConvGeometry) -> Array:
    """Transforms images, `[g, b, h, w, i]` to `[n n, g, b tiles, stride stride i]`."""
    g, b, *_, i = x.shape
    stride, tiles, matrix = geometry.stride, _tiles(geometry), matrices(geometry.spans[0]).image
    n = len(matrix)
    sizes = [(_TILE * (count - 1) + n) * stride for count in tiles]
    pads = [
        (geometry.padding, size - old - geometry.padding, 0) for size, old in zip(sizes, geometry.image, strict=True)
    ]
    x = lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), (0, 0, 0), *pads, (0, 0, 0)))
    x = x.reshape(g * b, sizes[0] // stride, stride, sizes[1] // stride, stride * i).swapaxes(2, 3)
    rows = _combined(matrix, [x[:, p : p + _TILE * (tiles[0] - 1) + 1 : _TILE] for p in range(n)])
    x = jnp.stack(rows).reshape(n, g * b, tiles[0], sizes[1] // stride, stride * stride * i)
    columns = [x[:, :, :, p : p + _TILE * (tiles[1] - 1) + 1 : _TILE] for p in range(n)]
    x = jnp.stack(_combined(matrix, columns), axis=1)
    return x.reshape(n * n, g, b * math.prod(tiles), stride * stride * i)


def _image_from_points(x: Array, geometry: ConvGeometry) -> Array:
    """Applies the transpose of `_image_at_points`."""
    stride, tiles, matrix = geometry.stride, _tiles(geometry), matrices(geometry.spans[0]).image.T
    n, g, i = len(matrix), x.shape[1], x.shape[3] // geometry.stride**2
    x = x.reshape(n, n, -1, *tiles, x.shape[3])
    x = _overlapped(_combined(matrix, [x[:, p] for p in range(n)]), axis=3)
    x = _overlapped(_combined(matrix, list(x)), axis=1)
    height, width = x.shape[1:3]
    x = x.reshape(-1, height, width, stride, stride, i).transpose(0, 1, 3, 2, 4, 5)
    x = x.reshape(g, -1, height * stride, width * stride, i)
    pads = [(-geometry.padding, n + geometry.padding - m, 0) for n, m in zip(geometry.image, x.shape[2:4], strict=True)]
    return lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), (0, 0, 0), *pads, (0, 0, 0)))


def _overlapped(parts: Sequence[Array], axis: int) -> Array:
    """Adds up overlapping tiles, `_TILE` apart; `parts[p]` is position p of every tile, with the tiles along `axis`."""
    count = parts[0].shape[axis]

    def next_tile(x: Array) -> Array:
        pads = [(0, 0, 0)] * x.ndim
        pads[axis] = (1, -1, 0)
        return lax.pad(x, jnp.zeros((), x.dtype), pads)

    own, beyond = parts[:_TILE], parts[_TILE:]
    own = [x + next_tile(beyond[p]) if p < len(beyond) else x for p, x in enumerate(own)]
    whole = jnp.stack(own, axis + 1)
    whole = whole.reshape(*whole.shape[:axis], count * _TILE, *whole.shape[axis + 2 :])
    return jnp.concatenate([whole, *(lax.slice_in_dim(x, count - 1, count, axis=axis) for x in beyond)], axis)


def _result_at_points(y: Array, geometry: ConvGeometry) -> Array:
    """Transforms results, `[g, b, p, q, o]` to `[n n, g, b tiles, o]`."""
    g, b, *_, o = y.shape
    tiles, matrix = _tiles(geometry), matrices(geometry.spans[0]).result
    pads = [(0, _TILE * count - size, 0) for count, size in zip(tiles, geometry.result, strict=True)]
    y = lax.pad(y, jnp.zeros((), y.dtype), ((0, 0, 0), (0, 0, 0), *pads, (0, 0, 0)))
    y = y.reshape(g * b, tiles[0], _TILE, tiles[1], _TILE, o)
    rows = jnp.stack(_combined(matrix, [y[:, :, p] for p in range(_TILE)]))
    columns = jnp.stack(_combined(matrix, [rows[:, :, :, :, p] for p in range(_TILE)]), axis=1)
    return columns.reshape(len(matrix) ** 2, g, b * math.prod(tiles), o)


def _result_from_points(y: Array, geometry: ConvGeometry) -> Array:
    """Applies the transpose of `_result_at_points`."""
    tiles, matrix = _tiles(geometry), matrices(geometry.spans[0]).result.T
    n, g = matrix.shape[1], y.shape[1]
    y = y.reshape(n, n, -1, *tiles, y.shape[3])
    columns = jnp.stack(_combined(matrix, [y[:, p] for p in range(n)]), axis=4)
    rows = jnp.stack(_combined(matrix, list(columns)), axis=2)
    y = rows.reshape(g, -1, _TILE * tiles[0], _TILE * tiles[1], y.shape[-1])
    return y[:, :, : geometry.result[0], : geometry.result[1]]


def _blocks_at_points(geometry: ConvGeometry) -> np.ndarray:
    """Returns G for both axes, and for each row and column of a stride's blocks: `[n n stride stride, kh kw]`."""
    matrix = matrices(geometry.spans[0]).kernel
    one = np.einsum("pt,sr->pstr", matrix, np.eye(geometry.stride)).reshape(len(matrix), geometry.stride, -1)
    return np.einsum("psu,qtv->pqstuv", one, one).reshape(-1, one.shape[-1] ** 2)


def _kernel_at_points(k: Array, geometry: ConvGeometry) -> Array:
    """Transforms kernels, `[g, kh, kw, i, o]` to `[n n, g, stride stride i, o]`."""
    g, *_, i, o = k.shape
    matrix = jnp.asarray(_blocks_at_points(geometry), k.dtype)
    k = matrix @ jnp.moveaxis(k, 0, 2).reshape(-1, g * i * o)
    blocks = geometry.stride**2
    return k.reshape(-1, blocks, g, i, o).swapaxes(1, 2).reshape(-1, g, blocks * i, o)


def _kernel_from_points(k: Array, geometry: ConvGeometry) -> Array:
    """Applies the transpose of `_kernel_at_points`."""
    taps, stride = geometry.spans[0], geometry.stride
    matrix = matrices(taps).kernel.T
    n, (g, depth, o) = matrix.shape[1], k.shape[1:]
    k = k.reshape(n, n, g, stride, stride, depth // stride**2, o)
    columns = jnp.stack(_combined(matrix, [k[:, p] for p in range(n)]), axis=3)
    rows = jnp.stack(_combined(matrix, list(columns)), axis=1)
    k = rows.reshape(g, taps * stride, taps * stride, -1, o)
    return k[:, : geometry.kernel[0], : geometry.kernel[1]]
