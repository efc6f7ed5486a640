"""Resizers against Pillow, and against their definitions; `tests/golden` has more comparisons."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from gan_jax.feature_networks import resize
from gan_jax.types import InvalidInputError
from tests.golden import random_weights

RESIZERS = [resize.tf1_bilinear, resize.bicubic, resize.bicubic_uint8]


@pytest.mark.parametrize(("height", "width", "size"), [(32, 32, 224), (28, 60, 17), (256, 256, 224), (50, 301, 64)])
@pytest.mark.parametrize("kind", ["pictures", "extremes"])
def test_bicubic_is_pillows(height, width, size, kind):
    images = random_weights.images("pillow", 2, height, width)
    if kind == "extremes":  # overshoot at every pixel, and clipping between the passes
        images = np.where(images % 2 > 0, 255, 0).astype(np.uint8)
    expected = np.stack([np.asarray(Image.fromarray(i).resize((size, size), Image.Resampling.BICUBIC)) for i in images])
    ours = jax.jit(resize.bicubic_uint8, static_argnums=1)(images, size)
    assert ours.dtype == jnp.uint8
    np.testing.assert_array_equal(ours, expected)
    channel = Image.fromarray(images[0, :, :, 1].astype(np.float32), mode="F")
    expected = np.asarray(channel.resize((size, size), Image.Resampling.BICUBIC))
    np.testing.assert_allclose(resize.bicubic(images, size)[0, :, :, 1], expected, rtol=0, atol=2e-4)


def test_tf1_bilinear_looks_where_tensorflow_1_looked():
    """Output pixel i is sampled at position i * old / new of the input, whose last pixel is repeated."""
    row = jnp.arange(5.0).reshape(1, 1, 5, 1)
    position = np.minimum(np.arange(7) * 5 / 7, 4)
    np.testing.assert_allclose(resize.tf1_bilinear(row, 7)[0, 3, :, 0], position, atol=1e-6)
    np.testing.assert_array_equal(resize.tf1_bilinear(row, 2)[0, 0, :, 0], [0.0, 2.5])


@pytest.mark.parametrize("function", RESIZERS)
def test_the_size_they_have_already_and_flat_images(function):
    images = random_weights.images("same", 1, 9, 9)
    np.testing.assert_allclose(function(images, 9), images, atol=1e-4)
    flat = jnp.full((1, 13, 40, 3), 200, jnp.uint8)
    np.testing.assert_allclose(function(flat, 21), 200.0, atol=1e-4)


@pytest.mark.parametrize("function", RESIZERS)
def test_refusals(function):
    for shape, size in (((4, 4, 3), 8), ((1, 4, 0, 3), 8), ((1, 4, 4, 3), 0)):
        with pytest.raises(InvalidInputError, match="expected"):
            function(jnp.zeros(shape, jnp.uint8), size)
    if function is resize.bicubic_uint8:
        with pytest.raises(InvalidInputError, match="expected uint8"):
            function(jnp.zeros((1, 4, 4, 3)), 8)
