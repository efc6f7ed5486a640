"""The three maps of `gan_jax.ops.primitives` as products for each tap of the kernel, for images of few pixels.

Where images have fewer pixels than channels, as in the middle of a U-Net, a kernel is much larger than the images. Then
the time goes into reading it, and any form that moves its numbers first takes several times as long. Here the images
are moved, and the kernel is read once, in the order in which it is stored: natural, `[g, u, v, i, o]`, or with its
channels swapped, `[g, u, v, o, i]` (`ConvGeometry.swapped`), as a transposed convolution has it.
"""

import math

import jax.numpy as jnp
from jax import lax
from jax.export import is_symbolic_dim
from jaxtyping import Array

from gan_jax.ops.geometry import ConvGeometry

_LEAST = 16  # channels from which a kernel is so large that it matters


def pays(geometry: ConvGeometry, batch: int, inputs: int, outputs: int) -> bool:
    """Whether a batch of results has fewer pixels than either side has channels, and these are not few.

    Args:
      geometry: geometry of the convolution, with more than one tap.
      batch: number of images; where an exported program leaves it open, they count as many.
      inputs: number of channels of x.
      outputs: number of channels of y.
    """
    if geometry.kernel == (1, 1) or is_symbolic_dim(batch):
        return False
    # With as many pixels as channels, Winograd's algorithm takes two thirds of the time at 256 channels.
    return batch * math.prod(geometry.result) < min(inputs, outputs) >= _LEAST


def forward(x: Array, k: Array, geometry: ConvGeometry) -> Array:
    """Computes `primitives.forward`."""
    g, b = x.shape[:2]
    if geometry.swapped:
        y = jnp.sum(_product(_seen(x, geometry), _by_tap(k), 3, 3), axis=1)
    else:
        seen = jnp.moveaxis(_seen(x, geometry), 1, 2)
        y = _product(seen.reshape(g, 1, seen.shape[1], -1), k.reshape(g, 1, -1, k.shape[4]), 3, 2)
    return y.reshape(g, b, *geometry.result, -1).astype(x.dtype)


def input_gradient(y: Array, k: Array, geometry: ConvGeometry) -> Array:
    """Computes `primitives.input_gradient`."""
    g, b, *_, o = y.shape
    taps = math.prod(geometry.kernel)
    rows = y.reshape(g, 1, -1, o)
    if geometry.swapped:
        parts = _product(_for_each(rows, taps), _by_tap(k), 3, 2)
    else:
        parts = _product(rows, k.reshape(g, 1, -1, o), 3, 3).reshape(g, rows.shape[2], taps, -1).swapaxes(1, 2)
    parts = parts.reshape(g, *geometry.kernel, b, *geometry.result, -1)
    x = jnp.zeros((), parts.dtype)
    for u in range(geometry.kernel[0]):
        for v in range(geometry.kernel[1]):
            x = x + lax.pad(parts[:, u, v], jnp.zeros((), parts.dtype), _written(geometry, (u, v)))
    return x.astype(y.dtype)


def kernel_gradient(x: Array, y: Array, geometry: ConvGeometry) -> Array:
    """Computes `primitives.kernel_gradient`."""
    g, i, o = x.shape[0], x.shape[-1], y.shape[-1]
    seen, rows = _seen(x, geometry), y.reshape(g, 1, -1, o)
    if geometry.swapped:
        return _product(_for_each(rows, seen.shape[1]), seen, 2, 2).reshape(g, *geometry.kernel, o, i).astype(x.dtype)
    seen = jnp.moveaxis(seen, 1, 2)
    k = _product(seen.reshape(g, 1, seen.shape[1], -1), rows, 2, 2)
    return k.reshape(g, *geometry.kernel, i, o).astype(x.dtype)


def _product(a: Array, b: Array, contracted_a: int, contracted_b: int) -> Array:
    """Multiplies the matrices of every group and tap, `[g, taps, ...]`, with sums in at least float32."""
    wide = jnp.promote_types(a.dtype, jnp.float32)
    dims = (((contracted_a,), (contracted_b,)), ((0, 1), (0, 1)))
    return lax.dot_general(a, b, dims, preferred_element_type=wide)


def _by_tap(k: Array) -> Array:
    return k.reshape(len(k), -1, *k.shape[3:])


def _for_each(rows: Array, taps: int) -> Array:
    return jnp.broadcast_to(rows, (rows.shape[0], taps, *rows.shape[2:]))


def _seen(x: Array, geometry: ConvGeometry) -> Array:
    """Gathers the pixels that each tap sees, `[g, taps, b p q, i]`."""
    pads = [(geometry.padding, geometry.padding, 0)] * 2
    x = lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), (0, 0, 0), *pads, (0, 0, 0)))
    stride, (height, width) = geometry.stride, geometry.result
    each = [
        x[:, :, u : u + stride * (height - 1) + 1 : stride, v : v + stride * (width - 1) + 1 : stride]
        for u in range(geometry.kernel[0])
        for v in range(geometry.kernel[1])
    ]
    return jnp.stack(each, axis=1).reshape(len(x), len(each), -1, x.shape[-1])


def _written(geometry: ConvGeometry, tap: tuple[int, int]) -> list[tuple[int, int, int]]:
    """Returns the padding, which may be negative, that puts the results of a tap where they belong in the image."""
    stride, pads = geometry.stride, [(0, 0, 0), (0, 0, 0)]
    for offset, result, image in zip(tap, geometry.result, geometry.image, strict=True):
        low = offset - geometry.padding
        pads.append((low, image - (stride * (result - 1) + 1) - low, stride - 1))
    return [*pads, (0, 0, 0)]
