"""Convolutions against XLA's own, in float64: values, first and second derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from gan_jax.nets import ops

LAYOUT = ("NHWC", "HWIO", "NHWC")
CASES = [  # kernel, stride, padding, size
    (1, 1, 0, (4, 3)),
    (2, 2, 0, (6, 4)),
    (3, 1, 1, (5, 4)),
    (3, 2, 1, (7, 6)),
    (4, 2, 1, (8, 6)),
    (5, 1, 2, (6, 5)),
    (5, 2, 0, (8, 7)),
]


def reference(x, kernel, *, stride, padding):
    return lax.conv_general_dilated(x, kernel, (stride, stride), ((padding, padding),) * 2, dimension_numbers=LAYOUT)


def reference_transpose(x, kernel, *, stride, padding):
    """The transpose of a convolution, by JAX's own linear transpose."""
    h, w = ((n - 1) * stride + k - 2 * padding for n, k in zip(x.shape[1:3], kernel.shape[:2], strict=True))
    big = jax.ShapeDtypeStruct((x.shape[0], h, w, kernel.shape[3]), x.dtype)
    forward = lambda y: reference(y, kernel.swapaxes(2, 3), stride=stride, padding=padding)  # noqa: E731
    return jax.linear_transpose(forward, big)(x)[0]


@pytest.mark.parametrize(("kernel_size", "stride", "padding", "size"), CASES)
@pytest.mark.parametrize("transpose", [False, True])
def test_equals_xla(kernel_size, stride, padding, size, transpose):
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        x = jnp.asarray(rng.normal(size=(2, *size, 3)))
        kernel = jnp.asarray(rng.normal(size=(kernel_size, kernel_size, 3, 4)))
        ours, theirs = (ops.conv_transpose, reference_transpose) if transpose else (ops.conv, reference)
        settings = {"stride": stride, "padding": padding}

        def gradient(op):
            return jax.jit(jax.grad(lambda x, k: jnp.sum(jnp.sin(op(x, k, **settings))), (0, 1)))

        def second(op):
            return jax.jit(jax.grad(lambda x, k: sum(jnp.sum(g**2) for g in gradient(op)(x, k)), (0, 1)))

        np.testing.assert_allclose(ours(x, kernel, **settings), theirs(x, kernel, **settings), rtol=1e-12, atol=1e-12)
        for derivative in (gradient, second):
            for a, b in zip(derivative(ours)(x, kernel), derivative(theirs)(x, kernel), strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("op", [ops.conv, ops.conv_transpose])
def test_platform_forms_agree(op):
    """The form for accelerators runs here too, and gives what the CPU's gives."""
    matmul, xla = {
        ops.conv: (ops._conv_matmul, ops._conv_xla),
        ops.conv_transpose: (ops._conv_transpose_matmul, ops._conv_transpose_xla),
    }[op]
    x, kernel = jax.random.normal(jax.random.key(0), (2, 8, 8, 3)), jax.random.normal(jax.random.key(1), (4, 4, 3, 5))
    np.testing.assert_allclose(
        matmul(x, kernel, stride=2, padding=1), xla(x, kernel, stride=2, padding=1), rtol=1e-4, atol=1e-4
    )


def test_conv_transpose_undoes_the_shape_of_conv():
    x = jnp.ones((1, 28, 28, 3))
    down = ops.conv(x, jnp.ones((4, 4, 3, 8)), stride=2, padding=1)
    assert down.shape == (1, 14, 14, 8)
    assert ops.conv_transpose(down, jnp.ones((4, 4, 8, 3)), stride=2, padding=1).shape == x.shape
