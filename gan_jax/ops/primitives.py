"""Convolution as three bilinear maps, each the derivative of the others, with implementations for each platform.

An image x `[g, b, h, w, i]`, a kernel k `[g, u, v, i, o]` and a result y `[g, b, p, q, o]` define a trilinear form,

    T(x, k, y) = sum over all indices of x[g, b, s p + u - pad, s q + v - pad, i] k[g, u, v, i, o] y[g, b, p, q, o],

with g groups (or members of a population), stride s and zeros outside the image. The derivative of T by y is a
convolution, the derivative by x a transposed convolution, and the derivative by k the gradient by the kernel. These
three maps are closed under differentiation: if each has a fast implementation, gradients of every order are fast. With
`geometry.swapped` the kernel is stored as `[g, u, v, o, i]`.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax._src.sharding_impls import SPMDAxisContext  # no public name tells a lowering its devices
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jax.sharding import AbstractMesh, PartitionSpec
from jaxtyping import Array

from gan_jax.ops import lowerings
from gan_jax.ops.geometry import ConvGeometry


def forward(x: Array, k: Array, geometry: ConvGeometry) -> Array:
    """Computes the convolution of x with k: y `[g, b, p, q, o]`."""
    return _bind(forward_p, x, k, geometry)


def input_gradient(y: Array, k: Array, geometry: ConvGeometry) -> Array:
    """Computes the transposed convolution of y with k, the gradient by the input: x `[g, b, h, w, i]`."""
    return _bind(input_gradient_p, y, k, geometry)


def kernel_gradient(x: Array, y: Array, geometry: ConvGeometry) -> Array:
    """Computes the correlation of x and y, the gradient by the kernel: k `[g, u, v, i, o]`."""
    return _bind(kernel_gradient_p, x, y, geometry)


def _bind(primitive: Primitive, left: Array, right: Array, geometry: ConvGeometry) -> Array:
    # inside `jax.shard_map` both operands must be marked as varying over the same mesh axes
    varying = [jax.typeof(a).mat.varying for a in (left, right)]
    left, right = (
        lax.pcast(a, tuple(other - own), to="varying") if other - own else a
        for a, own, other in zip((left, right), varying, varying[::-1], strict=True)
    )
    return primitive.bind(left, right, geometry=geometry)


# The three maps as primitives of JAX.


def _is_local(axis_context: Any) -> bool:
    """Whether a program sees one device only: there is just one, or it is inside `jax.shard_map` over all mesh axes."""
    if isinstance(axis_context, SPMDAxisContext):
        return set(axis_context.manual_axes) == set(axis_context.mesh.axis_names)
    return getattr(axis_context, "num_devices", None) == 1


def _splits(axis_context: Any, left: tuple[int, ...]) -> AbstractMesh | None:
    """Returns the mesh whose devices can share the batch of a grouped convolution; None if there is none."""
    mesh = jax.sharding.get_abstract_mesh()
    alone = left[0] == 1 or _is_local(axis_context) or isinstance(axis_context, SPMDAxisContext) or mesh.empty
    return None if alone or left[1] % mesh.size else mesh


def _split_by_hand(form: Callable[..., Array], mesh: AbstractMesh, sums: bool) -> Callable[..., Array]:
    """Returns a form of which each device computes its part of the batch: the second axis of the left operand.

    XLA's partitioner does not split a grouped convolution for GPUs: every device would gather, and compute, all of it.

    Args:
      form: `(left, right, geometry) -> result`.
      mesh: mesh whose devices share the batch.
      sums: whether the right operand has the batch too, and the result is a sum over it.
    """
    split, whole = PartitionSpec(None, mesh.axis_names), PartitionSpec()

    def run(left: Array, right: Array, geometry: ConvGeometry) -> Array:
        def own(left: Array, right: Array) -> Array:
            part = form(left, right, geometry)
            return lax.psum(part, mesh.axis_names) if sums else part

        specs, result = (split, split if sums else whole), whole if sums else split
        return jax.shard_map(own, mesh=mesh, in_specs=specs, out_specs=result, check_vma=False)(left, right)

    return run


def _primitive(
    name: str,
    default: Callable[..., Array],
    cpu: Callable[..., Array],
    tpu: Callable[..., Array],
    *,
    sums: bool = False,
) -> Primitive:
    """Makes a primitive that is lowered to `cpu` on CPUs, to `tpu` on TPUs and to `default` on all other platforms.

    Args:
      name: name of the primitive.
      default: form for other platforms.
      cpu: form for CPUs.
      tpu: form for TPUs.
      sums: whether the result is a sum over the batch.

    Returns:
      The primitive.
    """
    primitive = Primitive(name)
    # called outside `jit` it is compiled on the spot, since it has no other implementation
    evaluated = jax.jit(lambda left, right, geometry: primitive.bind(left, right, geometry=geometry), static_argnums=2)
    primitive.def_impl(lambda left, right, *, geometry: evaluated(left, right, geometry))

    def lower(choose: Callable[[Any, Any], Callable[..., Array]]) -> Callable[..., Any]:
        def rule(context: Any, *operands: Any, geometry: ConvGeometry) -> Any:
            form = choose(context.module_context.axis_context, context.avals_in[0].shape)
            return mlir.lower_fun(form, multiple_results=False)(context, *operands, geometry=geometry)

        return rule

    def on_cpu(axes: Any, left: tuple[int, ...]) -> Callable[..., Array]:
        return functools.partial(cpu, local=_is_local(axes))

    def on_tpu(axes: Any, left: tuple[int, ...]) -> Callable[..., Array]:
        mesh = _splits(axes, left)
        if sums and mesh is not None:  # or else the zeros between joined groups would be sent too
            return _split_by_hand(functools.partial(tpu, devices=1), mesh, sums)
        # Inside `jax.shard_map` groups are members of a population.
        return functools.partial(tpu, devices=0 if isinstance(axes, SPMDAxisContext) else axes.num_devices)

    def elsewhere(axes: Any, left: tuple[int, ...]) -> Callable[..., Array]:
        mesh = _splits(axes, left)
        return default if mesh is None else _split_by_hand(default, mesh, sums)

    mlir.register_lowering(primitive, lower(elsewhere))
    mlir.register_lowering(primitive, lower(on_tpu), platform="tpu")
    mlir.register_lowering(primitive, lower(on_cpu), platform="cpu")
    return primitive


forward_p = _primitive("convolution", lowerings.forward_xla, lowerings.forward_cpu, lowerings.forward_tpu)
input_gradient_p = _primitive(
    "convolution_input_gradient",
    lowerings.input_gradient_xla,
    lowerings.input_gradient_cpu,
    lowerings.input_gradient_tpu,
)
kernel_gradient_p = _primitive(
    "convolution_kernel_gradient",
    lowerings.kernel_gradient_xla,
    lowerings.kernel_gradient_cpu,
    lowerings.kernel_gradient_tpu,
    sums=True,
)


@forward_p.def_abstract_eval
def _(x: Any, k: Any, *, geometry: ConvGeometry) -> Any:
    return x.update(shape=(*x.shape[:2], *geometry.result, k.shape[3 if geometry.swapped else 4]), weak_type=False)


@input_gradient_p.def_abstract_eval
def _(y: Any, k: Any, *, geometry: ConvGeometry) -> Any:
    return y.update(shape=(*y.shape[:2], *geometry.image, k.shape[4 if geometry.swapped else 3]), weak_type=False)


@kernel_gradient_p.def_abstract_eval
def _(x: Any, y: Any, *, geometry: ConvGeometry) -> Any:
    channels = (y.shape[-1], x.shape[-1]) if geometry.swapped else (x.shape[-1], y.shape[-1])
    return x.update(shape=(x.shape[0], *geometry.kernel, *channels), weak_type=False)


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


def _let_vmap_widen(
    primitive: Primitive, left: tuple[int, int], right: tuple[int, int], swapped: Sequence[tuple[int, int]]
) -> None:
    """Registers the `vmap` rule of a primitive, which merges the mapped axis into an axis that the operands have.

    If both operands are mapped, that is the group axis. Else it is an axis that only the mapped operand has.

    Args:
      primitive: the primitive that gets the rule.
      left: axis of the left operand that the mapped axis is merged into, and the same axis of the output.
      right: the same two axes for the right operand.
      swapped: the same for both operands, for a kernel with swapped channels.
    """

    def rule(operands: Sequence[Array], dims: Sequence[int | None], *, geometry: ConvGeometry) -> tuple[Array, int]:
        mapped = [dim is not None for dim in dims]
        (a, out_a), (b, out_b) = ((0, 0), (0, 0)) if all(mapped) else swapped if geometry.swapped else (left, right)
        axis = out_a if mapped[0] else out_b
        count = next(x.shape[dim] for x, dim in zip(operands, dims, strict=True) if dim is not None)
        # the mapped axis becomes the slower part of the merged one, in the operands and so in the output
        wide = [
            x if dim is None else jnp.moveaxis(x, dim, at).reshape(_merged(x, dim, at))
            for x, dim, at in zip(operands, dims, (a, b), strict=True)
        ]
        out = primitive.bind(*wide, geometry=geometry)
        return out.reshape(*out.shape[:axis], count, -1, *out.shape[axis + 1 :]), axis

    batching.primitive_batchers[primitive] = rule


def _merged(x: Array, dim: int, at: int) -> list[int]:
    """Returns the shape of `x` after its axis `dim` is merged into axis `at` of the remaining axes."""
    shape = list(x.shape)
    count = shape.pop(dim)
    shape[at] *= count
    return shape


_let_vmap_widen(forward_p, (1, 1), (4, 4), ((1, 1), (3, 4)))
_let_vmap_widen(input_gradient_p, (1, 1), (3, 4), ((1, 1), (4, 4)))
_let_vmap_widen(kernel_gradient_p, (4, 3), (4, 4), ((4, 4), (4, 3)))
