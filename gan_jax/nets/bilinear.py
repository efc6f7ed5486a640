"""Convolution as three bilinear maps, each the derivative of the others, in the form that each platform runs well.

An image x `[g, b, h, w, i]`, a kernel k `[g, u, v, i, o]` and a result y `[g, b, p, q, o]` have one trilinear form,

    T(x, k, y) = sum over all indices of x[g, b, s p + u - pad, s q + v - pad, i] k[g, u, v, i, o] y[g, b, p, q, o],

with g groups (or members of a population), stride s and zeros outside the image. A convolution is its derivative by y,
a transposed one that by x, and both together with the derivative by k are closed under differentiation: so each of the
three needs a good form once, and gradients of any order use it.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array

_LAYOUT = ("NHWC", "HWIO", "NHWC")


class Window(NamedTuple):
    """What the three arrays don't say.

    Attributes:
      stride: of the positions of the kernel.
      padding: zeros on every side of the image.
      image: height and width of x.
      kernel: height and width of k.
    """

    stride: int
    padding: int
    image: tuple[int, int]
    kernel: tuple[int, int]

    @property
    def result(self) -> tuple[int, int]:
        """Height and width of y."""
        height, width = (
            (n + 2 * self.padding - k) // self.stride + 1 for n, k in zip(self.image, self.kernel, strict=True)
        )
        return height, width

    def turned(self) -> "Window | None":
        """With x and y in each other's place and the kernel turned by 180 degrees, where that is a window too."""
        padding = self.kernel[0] - 1 - self.padding
        if self.stride > 1 or self.kernel[0] != self.kernel[1] or padding < 0:
            return None
        return Window(1, padding, self.result, self.kernel)


def forward(x: Array, k: Array, window: Window) -> Array:
    """The convolution of x with k: y `[g, b, p, q, o]`."""
    return _bind(forward_p, x, k, window)


def input_gradient(y: Array, k: Array, window: Window) -> Array:
    """The transposed convolution of y with k: x `[g, b, h, w, i]`."""
    return _bind(input_gradient_p, y, k, window)


def kernel_gradient(x: Array, y: Array, window: Window) -> Array:
    """How x and y correlate: k `[g, u, v, i, o]`."""
    return _bind(kernel_gradient_p, x, y, window)


def _bind(primitive: Primitive, left: Array, right: Array, window: Window) -> Array:
    varying = [
        jax.typeof(a).mat.varying for a in (left, right)
    ]  # inside `jax.shard_map` both must vary over the same axes
    left, right = (
        lax.pcast(a, tuple(other - own), to="varying") if other - own else a
        for a, own, other in zip((left, right), varying, varying[::-1], strict=True)
    )
    return primitive.bind(left, right, window=window)


# XLA's own convolution and its transposes, for accelerators: what their libraries are made for.


def _forward_xla(x: Array, k: Array, window: Window) -> Array:
    def one(x: Array, k: Array) -> Array:
        pads = ((window.padding, window.padding),) * 2
        return lax.conv_general_dilated(x, k, (window.stride,) * 2, pads, dimension_numbers=_LAYOUT)

    return one(x[0], k[0])[None] if len(x) == 1 else jax.vmap(one)(x, k)


def _input_gradient_xla(y: Array, k: Array, window: Window) -> Array:
    x = jax.ShapeDtypeStruct((*y.shape[:2], *window.image, k.shape[3]), y.dtype)
    return jax.linear_transpose(lambda x: _forward_xla(x, k, window), x)(y)[0]


def _kernel_gradient_xla(x: Array, y: Array, window: Window) -> Array:
    k = jax.ShapeDtypeStruct((len(x), *window.kernel, x.shape[-1], y.shape[-1]), y.dtype)
    return jax.linear_transpose(lambda k: _forward_xla(x, k, window), k)(y)[0]


# For CPUs. XLA's convolution is as fast there as its matrix product; its gradients and the grouped one are not.
# It falls off a cliff where the image is smaller than the kernel, and is slow with the few channels of an image.

_FEW = 4  # channels


def _is_small(window: Window) -> bool:
    return min(*window.image, *window.result) < max(window.kernel)


def _forward_cpu(x: Array, k: Array, window: Window) -> Array:
    turned = window.turned()
    if turned is not None and k.shape[4] <= _FEW < k.shape[3]:
        return _input_gradient_matmul(x, _turn(k), turned)
    if len(x) == 1 and not _is_small(window):
        return _forward_xla(x, k, window)
    taps, patches = _in_blocks(k, window.stride), _patches(x, window)
    y = _matmul(patches.reshape(len(x), -1, patches.shape[-1]), taps.reshape(len(x), -1, k.shape[-1]), (2, 1))
    return y.reshape(*patches.shape[:-1], -1)


def _input_gradient_cpu(y: Array, k: Array, window: Window) -> Array:
    if len(y) > 1 or _is_small(window) or k.shape[3] <= _FEW:
        return _input_gradient_matmul(y, k, window)
    flipped = k[0, ::-1, ::-1].swapaxes(2, 3)  # XLA's transpose of a convolution is this too, in a slower layout
    pads = [
        (n - 1 - window.padding, image - (result - 1) * window.stride - 1 + window.padding)
        for n, result, image in zip(window.kernel, window.result, window.image, strict=True)
    ]
    dilation = (window.stride, window.stride)
    return lax.conv_general_dilated(y[0], flipped, (1, 1), pads, lhs_dilation=dilation, dimension_numbers=_LAYOUT)[None]


def _input_gradient_matmul(y: Array, k: Array, window: Window) -> Array:
    # Tap u = span stride + p of the kernel writes row p of block i + span.
    g, b, *_, o = y.shape
    stride, taps = window.stride, _in_blocks(k, window.stride)
    x = _matmul(y.reshape(g, -1, o), taps.reshape(g, -1, o), (2, 2))
    x = x.reshape(g, b, *window.result, *taps.shape[1:3], -1)
    x = _overlap_add(x, space=2, block=4)
    x = _overlap_add(x, space=3, block=4)
    rows, columns = x.shape[2:4]
    x = x.reshape(g, b, rows, columns, stride, stride, -1).transpose(0, 1, 2, 4, 3, 5, 6)
    x = x.reshape(g, b, rows * stride, columns * stride, -1)
    pads = [(-window.padding, n + window.padding - m, 0) for n, m in zip(window.image, x.shape[2:4], strict=True)]
    return lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), (0, 0, 0), *pads, (0, 0, 0)))


def _kernel_gradient_cpu(x: Array, y: Array, window: Window) -> Array:
    turned = window.turned()
    if turned is not None and y.shape[-1] <= _FEW < x.shape[-1]:
        return _turn(_kernel_gradient_cpu(y, x, turned))
    g, b, height, width, o = y.shape
    spans, block = _spans(window), (window.stride, window.stride, x.shape[-1])
    y = y.reshape(g, -1, o)
    if x.shape[-1] <= _FEW:
        k = _matmul(_patches(x, window).reshape(g, b * height * width, -1), y, (1, 1))
        k = k.reshape(g, *spans, *block, o).transpose(0, 1, 3, 2, 4, 5, 6)
    else:  # a product of few rows by many columns, as [o, taps], runs twice as fast as its transpose
        rows = _rows(x, window)
        taps = [_matmul(y, rows[:, :, u : u + height].reshape(g, y.shape[1], -1), (1, 1)) for u in range(spans[0])]
        k = jnp.stack(taps, axis=1).reshape(g, spans[0], o, spans[1], *block).transpose(0, 1, 4, 3, 5, 6, 2)
    k = k.reshape(g, *(span * window.stride for span in spans), -1, o)
    return k[:, : window.kernel[0], : window.kernel[1]]


def _turn(k: Array) -> Array:
    """The kernel of the turned window."""
    return k[:, ::-1, ::-1].swapaxes(3, 4)


def _matmul(a: Array, b: Array, contracted: tuple[int, int]) -> Array:
    """A batch of matrix products, summed in at least float32."""
    dims = (((contracted[0],), (contracted[1],)), ((0,), (0,)))
    wide = jnp.promote_types(a.dtype, jnp.float32)
    return lax.dot_general(a, b, dims, preferred_element_type=wide).astype(a.dtype)


def _spans(window: Window) -> list[int]:
    """How many strides a kernel spans."""
    return [-(-n // window.stride) for n in window.kernel]


def _in_blocks(k: Array, stride: int) -> Array:
    """A kernel padded to whole strides, `[g, span, span, stride stride i, o]`."""
    spans = [-(-n // stride) for n in k.shape[1:3]]
    pads = [(0, span * stride - n) for span, n in zip(spans, k.shape[1:3], strict=True)]
    k = jnp.pad(k, [(0, 0), *pads, (0, 0), (0, 0)])
    k = k.reshape(len(k), spans[0], stride, spans[1], stride, *k.shape[3:]).transpose(0, 1, 3, 2, 4, 5, 6)
    return k.reshape(*k.shape[:3], -1, k.shape[-1])


def _rows(x: Array, window: Window) -> Array:
    """What each column of the result sees of each row of blocks, `[g, b, rows, q, span stride stride i]`.

    The blocks are of stride times stride pixels of the padded image, and become channels.
    """
    g, b = x.shape[:2]
    stride, spans = window.stride, _spans(window)
    rows, columns = (n + span - 1 for n, span in zip(window.result, spans, strict=True))
    pads = [
        (window.padding, n * stride - size - window.padding, 0)
        for n, size in zip((rows, columns), window.image, strict=True)
    ]
    x = lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), (0, 0, 0), *pads, (0, 0, 0)))
    x = x.reshape(g, b, rows, stride, columns, stride, -1).transpose(0, 1, 2, 4, 3, 5, 6)
    x = x.reshape(g, b, rows, columns, -1)
    return jnp.concatenate([x[:, :, :, v : v + window.result[1]] for v in range(spans[1])], axis=-1)


def _patches(x: Array, window: Window) -> Array:
    """What each pixel of the result sees, `[g, b, p, q, span span stride stride i]`."""
    rows, height = _rows(x, window), window.result[0]
    return jnp.concatenate([rows[:, :, u : u + height] for u in range(_spans(window)[0])], axis=-1)


def _overlap_add(x: Array, *, space: int, block: int) -> Array:
    """Adds block q of position i to position i + q, and drops the axis `block`."""
    count = x.shape[block]

    def shifted(q: int) -> Array:
        pads = [(0, 0)] * (x.ndim - 1)
        pads[space] = (q, count - 1 - q)
        return jnp.pad(lax.index_in_dim(x, q, block, keepdims=False), pads)

    return functools.reduce(jnp.add, map(shifted, range(count)))


# The three as primitives of JAX.


def _primitive(name: str, default: Callable[..., Array], cpu: Callable[..., Array]) -> Primitive:
    primitive = Primitive(name)
    evaluated = jax.jit(lambda left, right, window: primitive.bind(left, right, window=window), static_argnums=2)
    primitive.def_impl(lambda left, right, *, window: evaluated(left, right, window))
    mlir.register_lowering(primitive, mlir.lower_fun(default, multiple_results=False))
    mlir.register_lowering(primitive, mlir.lower_fun(cpu, multiple_results=False), platform="cpu")
    return primitive


forward_p = _primitive("convolution", _forward_xla, _forward_cpu)
input_gradient_p = _primitive("convolution_input_gradient", _input_gradient_xla, _input_gradient_cpu)
kernel_gradient_p = _primitive("convolution_kernel_gradient", _kernel_gradient_xla, _kernel_gradient_cpu)


@forward_p.def_abstract_eval
def _(x: Any, k: Any, *, window: Window) -> Any:
    return x.update(shape=(*x.shape[:2], *window.result, k.shape[-1]), weak_type=False)


@input_gradient_p.def_abstract_eval
def _(y: Any, k: Any, *, window: Window) -> Any:
    return y.update(shape=(*y.shape[:2], *window.image, k.shape[3]), weak_type=False)


@kernel_gradient_p.def_abstract_eval
def _(x: Any, y: Any, *, window: Window) -> Any:
    return x.update(shape=(x.shape[0], *window.kernel, x.shape[-1], y.shape[-1]), weak_type=False)


ad.defbilinear(
    forward_p,
    lambda y, x, k, *, window: input_gradient(y, k, window),
    lambda y, x, k, *, window: kernel_gradient(x, y, window),
)
ad.defbilinear(
    input_gradient_p,
    lambda x, y, k, *, window: forward(x, k, window),
    lambda x, y, k, *, window: kernel_gradient(x, y, window),
)
ad.defbilinear(
    kernel_gradient_p,
    lambda k, x, y, *, window: input_gradient(y, k, window),
    lambda k, x, y, *, window: forward(x, k, window),
)


def _let_vmap_widen(primitive: Primitive, left: tuple[int, int], right: tuple[int, int]) -> None:
    """Tells `vmap` what to widen: the groups where both operands are mapped, else an axis that only the mapped one has.

    Args:
      primitive: which.
      left: the axis of the left operand to widen, and which axis of the output that is.
      right: likewise.
    """

    def rule(operands: Sequence[Array], dims: Sequence[int | None], *, window: Window) -> tuple[Array, int]:
        mapped = [dim is not None for dim in dims]
        (a, out_a), (b, out_b) = ((0, 0), (0, 0)) if all(mapped) else (left, right)
        axis = out_a if mapped[0] else out_b
        count = next(x.shape[dim] for x, dim in zip(operands, dims, strict=True) if dim is not None)
        wide = [
            x if dim is None else jnp.moveaxis(x, dim, at).reshape(_merged(x, dim, at))
            for x, dim, at in zip(operands, dims, (a, b), strict=True)
        ]
        out = primitive.bind(*wide, window=window)
        return out.reshape(*out.shape[:axis], count, -1, *out.shape[axis + 1 :]), axis

    batching.primitive_batchers[primitive] = rule


def _merged(x: Array, dim: int, at: int) -> list[int]:
    """The shape of `x` with its axis `dim` made part of the axis `at` of the others."""
    shape = list(x.shape)
    count = shape.pop(dim)
    shape[at] *= count
    return shape


_let_vmap_widen(forward_p, (1, 1), (4, 4))
_let_vmap_widen(input_gradient_p, (1, 1), (3, 4))
_let_vmap_widen(kernel_gradient_p, (4, 3), (4, 4))
