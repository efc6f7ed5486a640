"""Convolution as three bilinear maps, each the derivative of the others, in the form that each platform runs well.

An image x `[g, b, h, w, i]`, a kernel k `[g, u, v, i, o]` and a result y `[g, b, p, q, o]` have one trilinear form,

    T(x, k, y) = sum over all indices of x[g, b, s p + u - pad, s q + v - pad, i] k[g, u, v, i, o] y[g, b, p, q, o],

with g groups (or members of a population), stride s and zeros outside the image. A convolution is its derivative by y,
a transposed one that by x, and both together with the derivative by k are closed under differentiation: so each of the
three needs a good form once, and gradients of any order use it.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax._src.sharding_impls import SPMDAxisContext  # what a lowering is told of devices has no public name
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array

from gan_jax.ops import lowerings
from gan_jax.ops.geometry import ConvGeometry


def forward(x: Array, k: Array, geometry: ConvGeometry) -> Array:
    """The convolution of x with k: y `[g, b, p, q, o]`."""
    return _bind(forward_p, x, k, geometry)


def input_gradient(y: Array, k: Array, geometry: ConvGeometry) -> Array:
    """The transposed convolution of y with k: x `[g, b, h, w, i]`."""
    return _bind(input_gradient_p, y, k, geometry)


def kernel_gradient(x: Array, y: Array, geometry: ConvGeometry) -> Array:
    """How x and y correlate: k `[g, u, v, i, o]`."""
    return _bind(kernel_gradient_p, x, y, geometry)


def _bind(primitive: Primitive, left: Array, right: Array, geometry: ConvGeometry) -> Array:
    varying = [
        jax.typeof(a).mat.varying for a in (left, right)
    ]  # inside `jax.shard_map` both must vary over the same axes
    left, right = (
        lax.pcast(a, tuple(other - own), to="varying") if other - own else a
        for a, own, other in zip((left, right), varying, varying[::-1], strict=True)
    )
    return primitive.bind(left, right, geometry=geometry)


# The three as primitives of JAX.


def _is_local(axis_context: Any) -> bool:
    """Whether a program is of one device: there is one, or it is inside `jax.shard_map` over all axes."""
    if isinstance(axis_context, SPMDAxisContext):
        return set(axis_context.manual_axes) == set(axis_context.mesh.axis_names)
    return getattr(axis_context, "num_devices", None) == 1


def _primitive(name: str, default: Callable[..., Array], cpu: Callable[..., Array]) -> Primitive:
    primitive = Primitive(name)
    evaluated = jax.jit(lambda left, right, geometry: primitive.bind(left, right, geometry=geometry), static_argnums=2)
    primitive.def_impl(lambda left, right, *, geometry: evaluated(left, right, geometry))

    def lower_cpu(context: Any, *operands: Any, geometry: ConvGeometry) -> Any:
        form = functools.partial(cpu, local=_is_local(context.module_context.axis_context))
        return mlir.lower_fun(form, multiple_results=False)(context, *operands, geometry=geometry)

    mlir.register_lowering(primitive, mlir.lower_fun(default, multiple_results=False))
    mlir.register_lowering(primitive, lower_cpu, platform="cpu")
    return primitive


forward_p = _primitive("convolution", lowerings.forward_xla, lowerings.forward_cpu)
input_gradient_p = _primitive("convolution_input_gradient", lowerings.input_gradient_xla, lowerings.input_gradient_cpu)
kernel_gradient_p = _primitive(
    "convolution_kernel_gradient", lowerings.kernel_gradient_xla, lowerings.kernel_gradient_cpu
)


@forward_p.def_abstract_eval
def _(x: Any, k: Any, *, geometry: ConvGeometry) -> Any:
    return x.update(shape=(*x.shape[:2], *geometry.result, k.shape[-1]), weak_type=False)


@input_gradient_p.def_abstract_eval
def _(y: Any, k: Any, *, geometry: ConvGeometry) -> Any:
    return y.update(shape=(*y.shape[:2], *geometry.image, k.shape[3]), weak_type=False)


@kernel_gradient_p.def_abstract_eval
def _(x: Any, y: Any, *, geometry: ConvGeometry) -> Any:
    return x.update(shape=(x.shape[0], *geometry.kernel, x.shape[-1], y.shape[-1]), weak_type=False)


ad.defbilinear(
    forward_p,
    lambda y, x, k, *, geometry: input_gradient(y, k, geometry),
    lambda y, x, k, *, geometry: kernel_gradient(x, y, geometry),
)
ad.defbilinear(
    input_gradient_p,
    lambda x, y, k, *, geometry: forward(x, k, geometry),
    lambda x, y, k, *, geometry: kernel_gradient(x, y, geometry),
)
ad.defbilinear(
    kernel_gradient_p,
    lambda k, x, y, *, geometry: input_gradient(y, k, geometry),
    lambda k, x, y, *, geometry: forward(x, k, geometry),
)


def _let_vmap_widen(primitive: Primitive, left: tuple[int, int], right: tuple[int, int]) -> None:
    """Tells `vmap` what to widen: the groups where both operands are mapped, else an axis that only the mapped one has.

    Args:
      primitive: which.
      left: the axis of the left operand to widen, and which axis of the output that is.
      right: likewise.
    """

    def rule(operands: Sequence[Array], dims: Sequence[int | None], *, geometry: ConvGeometry) -> tuple[Array, int]:
        mapped = [dim is not None for dim in dims]
        (a, out_a), (b, out_b) = ((0, 0), (0, 0)) if all(mapped) else (left, right)
        axis = out_a if mapped[0] else out_b
        count = next(x.shape[dim] for x, dim in zip(operands, dims, strict=True) if dim is not None)
        wide = [
            x if dim is None else jnp.moveaxis(x, dim, at).reshape(_merged(x, dim, at))
            for x, dim, at in zip(operands, dims, (a, b), strict=True)
        ]
        out = primitive.bind(*wide, geometry=geometry)
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
