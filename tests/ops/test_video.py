"""The folded convolution of clips against XLA's own, in value and both gradients, in float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from gan_jax import ops
from gan_jax.types import InvalidInputError

# XLA's simplifier aborts on some gradients of XLA's own convolutions, so the reference is compiled without it.
PLAIN = {"xla_disable_hlo_passes": "algsimp"}


def theirs(x, kernel, stride, padding, time_stride, time_padding):
    return lax.conv_general_dilated(
        x, kernel, (time_stride, stride, stride), ((time_padding,) * 2, (padding,) * 2, (padding,) * 2),
        dimension_numbers=("NDHWC", "DHWIO", "NDHWC"),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("kernel", "options"),
    [((4, 4, 4), (2, 1, 1, 0)), ((3, 3, 3), (1, 1, 1, 1)), ((2, 3, 4), (2, 0, 2, 1)), ((1, 2, 2), (1, 0, 3, 0))],
)
def test_values_and_both_gradients(kernel, options):
    with jax.enable_x64(True):
        x = jax.random.normal(jax.random.key(0), (2, 6, 8, 7, 3), jnp.float64)
        k = jax.random.normal(jax.random.key(1), (*kernel, 3, 5), jnp.float64)
        named = dict(zip(("stride", "padding", "time_stride", "time_padding"), options, strict=True))

        def both(form, x, k):
            y, back = jax.vjp(form, x, k)
            return y, *back(jnp.cos(jnp.arange(y.size, dtype=jnp.float64)).reshape(y.shape))

        ours = jax.jit(functools.partial(both, lambda x, k: ops.conv_clip(x, k, **named)))(x, k)
        expected = jax.jit(functools.partial(both, lambda x, k: theirs(x, k, *options)), compiler_options=PLAIN)(x, k)
        for a, b in zip(ours, expected, strict=True):
            assert a.dtype == jnp.float64
            np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(
    ("shape", "kernel", "options", "message"),
    [
        ((1, 3, 4, 4, 2), (4, 3, 3, 2, 1), {}, "kernel of 4 frames is longer than x of 3"),
        ((1, 3, 4, 4), (2, 3, 3, 2, 1), {}, "expected clips"),
        ((1, 3, 4, 4, 3), (2, 3, 3, 2, 1), {}, "expected clips"),
        ((1, 3, 4, 4, 2), (2, 3, 3, 2, 1), {"time_stride": 0}, "time_stride=0"),
    ],
)
def test_arguments_that_are_refused(shape, kernel, options, message):
    with pytest.raises(InvalidInputError, match=message):
        ops.conv_clip(jnp.zeros(shape), jnp.zeros(kernel), **options)
