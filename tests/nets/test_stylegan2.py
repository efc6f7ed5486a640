"""StyleGAN2's layers against naive forms of their definitions, and its networks: sizes, dtypes, conditioning."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import NamedSharding, PartitionSpec

from gan_jax import nets
from gan_jax.nets import stylegan2
from gan_jax.nets.stylegan2 import EqualConv, minibatch_stddev, modulated_conv, style_layers
from gan_jax.types import InvalidInputError

KEY = jax.random.key(0)
FILTER = np.outer([1, 3, 3, 1], [1, 3, 3, 1]) / 64


def naive_conv(x, kernel, padding=0, stride=1):
    layout = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(x, kernel, (stride,) * 2, ((padding, padding),) * 2, dimension_numbers=layout)


def naive_filter(x, padding, gain=1.0):
    """Applies the filter to each channel separately."""
    kernel = jnp.asarray(gain * FILTER)[:, :, None, None]
    channels = [naive_conv(x[..., i : i + 1], kernel, padding) for i in range(x.shape[-1])]
    return jnp.concatenate(channels, axis=-1)


def stuffed(x):
    """Inserts a zero after each pixel, along both axes."""
    b, h, w, c = x.shape
    return jnp.zeros((b, 2 * h, 2 * w, c), x.dtype).at[:, ::2, ::2].set(x)


def kernels_of_each(kernel, style, demodulate):
    """Yields the modulated kernel of each example, `[k, k, in, out]`."""
    for factors in style:
        scaled = kernel * factors[:, None]
        yield scaled / jnp.sqrt(jnp.sum(scaled**2, (0, 1, 2)) + 1e-8) if demodulate else scaled


@pytest.mark.parametrize("demodulate", [True, False])
@pytest.mark.parametrize("size", [1, 3])
def test_scaling_images_is_scaling_each_examples_kernel(size, demodulate):
    with jax.enable_x64(True):
        x, style = jax.random.normal(KEY, (3, 6, 5, 4)), jax.random.normal(jax.random.key(1), (3, 4))
        kernel = jax.random.normal(jax.random.key(2), (size, size, 4, 7))
        ours = modulated_conv(x, kernel, style, demodulate=demodulate)
        each = kernels_of_each(kernel, style, demodulate)
        theirs = [naive_conv(image[None], k, size // 2) for image, k in zip(x, each, strict=True)]
        np.testing.assert_allclose(ours, jnp.concatenate(theirs), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("size", [1, 3, 5])
def test_an_up_layer_is_zeros_between_pixels_then_the_kernel_then_the_filter(size):
    """The kernel is turned by 180 degrees, as in a transposed convolution; the filter's gain of 4 offsets the zeros."""
    with jax.enable_x64(True):
        x, style = jax.random.normal(KEY, (2, 5, 4, 3)), jax.random.normal(jax.random.key(1), (2, 3))
        kernel = jax.random.normal(jax.random.key(2), (size, size, 3, 6))
        ours = modulated_conv(x, kernel, style, up=True)
        theirs = []
        for image, k in zip(x, kernels_of_each(kernel, style, True), strict=True):
            # Pad widely with zeros; the result starts where kernel and filter together are centred.
            spread = jnp.pad(stuffed(image[None]), ((0, 0), (8, 8), (8, 8), (0, 0)))
            full = naive_filter(naive_conv(spread, k[::-1, ::-1]), 0, 4.0)
            start = 8 - (5 - size) // 2 - (size - 1)
            theirs.append(full[:, start : start + 10, start : start + 8])
        assert ours.shape == (2, 10, 8, 6)
        np.testing.assert_allclose(ours, jnp.concatenate(theirs), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("size", [1, 3])
def test_a_down_layer_is_the_filter_and_then_every_second_place(size):
    layer = EqualConv(4, size, down=True)
    x = jax.random.normal(KEY, (2, 8, 6, 3))
    params = jax.tree.map(lambda p: p + 0.5, layer.init(KEY, x))
    kernel = params["params"]["kernel"] / math.sqrt(3 * size**2)
    full = naive_conv(naive_filter(x, 2 if size == 3 else 1), kernel)
    expected = full[:, ::2, ::2] + params["params"]["bias"]
    np.testing.assert_allclose(layer.apply(params, x), expected, rtol=1e-4, atol=1e-5)


def test_demodulation_keeps_the_variance_of_white_noise_whatever_the_style():
    x = jax.random.normal(KEY, (2, 34, 34, 64))
    kernel = 7.0 * jax.random.normal(jax.random.key(1), (3, 3, 64, 64))
    style = 3.0 * jax.random.normal(jax.random.key(2), (2, 64))
    inside = modulated_conv(x, kernel, style)[:, 1:-1, 1:-1]
    np.testing.assert_allclose(jnp.std(inside, axis=(1, 2)).mean(), 1.0, rtol=0.02)


@pytest.mark.parametrize("multiplier", [1.0, 0.01])
def test_a_learning_rate_multiplier_slows_parameters_down_and_changes_no_output(multiplier):
    """With fan-in 16, initial outputs are sums of N(0, 1) draws over 4, plus the bias; a step adds sum(x) / 4 + 1."""
    x = jax.random.normal(KEY, (64, 16))
    layer = stylegan2.EqualDense(512, bias=3.0, lr_multiplier=multiplier)
    params = layer.init(KEY, x)
    out = layer.apply(params, x)
    np.testing.assert_allclose(jnp.var(out, axis=1) / jnp.mean(x**2, axis=1), 1.0, rtol=0.3)
    np.testing.assert_allclose(jnp.mean(out), 3.0, atol=0.05)
    step = layer.apply(jax.tree.map(lambda p: p + 1.0, params), x) - out
    expected = multiplier * (x.sum(1, keepdims=True) / 4 + 1)
    np.testing.assert_allclose(step, jnp.broadcast_to(expected, step.shape), rtol=1e-3, atol=1e-5)


def test_activations_are_leaky_and_keep_the_power_of_white_noise():
    """The slope is 0.2 below zero, the gain sqrt(2): for N(0, 1) the power is 2 (1 + 0.2^2) / 2 = 1.04."""
    layer = stylegan2.MappingLayers(2, 1, 0.5)
    x = jnp.array([[3.0, -5.0], [-1.0, 0.5]])
    identity = jnp.eye(2) * math.sqrt(2) / 0.5  # after scaling: the layer divides by the root of the fan-in
    out = layer.apply({"params": {"layer_0": {"kernel": identity, "bias": jnp.zeros(2)}}}, x)
    np.testing.assert_allclose(out, math.sqrt(2) * jnp.array([[3.0, -1.0], [-0.2, 0.5]]), rtol=1e-5)


def test_a_residual_critic_divides_the_sum_of_its_branches_by_the_root_of_two():
    """A critic whose skip connection is 0 has the logits of one without it, divided by the root of two.

    Its biases are 0, so it is homogeneous; its only skip connection leads from 8 pixels to 4.
    """
    x = 100.0 * jax.random.normal(KEY, (4, 8, 8, 1))  # large, so that the epsilon of the deviation is negligible
    residual, plain = (nets.from_linen(nets.StyleGAN2Discriminator(32, 2, residual=each)) for each in (True, False))
    params, _ = jax.jit(residual.init)(KEY, x)
    skip = jax.tree.map(jnp.zeros_like, params.pop("skip_8"))
    logits, _ = jax.jit(lambda: residual.apply(params | {"skip_8": skip}, {}, x, train=False))()
    expected, _ = jax.jit(lambda: plain.apply(params, {}, x, train=False))()
    np.testing.assert_allclose(logits, expected / math.sqrt(2), rtol=1e-4)


def test_minibatch_stddev_by_hand():
    x = jnp.array([[1.0, 2.0], [3.0, 2.0], [0.0, 0.0], [0.0, 8.0]])[:, None, None, :]
    out = minibatch_stddev(x, 2)
    np.testing.assert_array_equal(out[..., :2], x)
    # The deviation of (1, 3) is 1, of (2, 2) and (0, 0) it is 1e-4 because of the epsilon, of (0, 8) it is 4.
    low = 1e-4
    np.testing.assert_allclose(out[:, 0, 0, 2], [(1 + low) / 2] * 2 + [(low + 4) / 2] * 2, rtol=1e-4)
    np.testing.assert_allclose(minibatch_stddev(x, 64)[:, 0, 0, 2], [float(jnp.std(x, axis=0).mean())] * 4, rtol=1e-4)
    with pytest.raises(InvalidInputError, match="group_size=3: a batch of 4"):
        minibatch_stddev(x, 3)


def test_devices_that_hold_whole_groups_exchange_nothing(mesh):
    split = NamedSharding(mesh(8), PartitionSpec("data"))
    x = jax.device_put(jax.random.normal(KEY, (32, 2, 2, 3)), split)
    for group, apart in ((4, True), (2, True), (8, False)):  # four examples on each device
        program = jax.jit(lambda x, n=group: minibatch_stddev(x, n), in_shardings=split, out_shardings=split)
        text = program.lower(x).compile().as_text()
        kinds = ("all-reduce", "all-gather", "all-to-all", "collective-permute")
        assert apart != any(f"{kind}(" in text or f"{kind}-start(" in text for kind in kinds), (group, text)
        np.testing.assert_allclose(program(x), minibatch_stddev(x, group), rtol=1e-5)


def count(params):
    return sum(math.prod(x.shape) for x in jax.tree.leaves(params))


def test_config_f_at_1024_has_the_parameters_of_the_authors():
    """The counts are those that the authors' code prints."""
    generator, critic = (
        nets.from_linen(nets.StyleGAN2Generator(1024, 3)),
        nets.from_linen(nets.StyleGAN2Discriminator()),
    )
    z, x = jax.ShapeDtypeStruct((4, 512), jnp.float32), jax.ShapeDtypeStruct((4, 1024, 1024, 3), jnp.float32)
    params, state = jax.eval_shape(generator.init, KEY, z)
    assert count(params["mapping"]) == 8 * (512 * 512 + 512) and state == {} and style_layers(1024) == 18
    assert count(params) == 30_370_060
    assert count(jax.eval_shape(critic.init, KEY, x)[0]) == 29_012_513


@pytest.mark.parametrize(
    ("size", "channels", "classes", "residual", "dtype"),
    [(8, 1, None, True, "float32"), (32, 3, 5, False, "bfloat16"), (16, 2, None, True, "bfloat16")],
)
def test_networks(size, channels, classes, residual, dtype):
    conditions = {"num_classes": classes, "dtype": dtype}
    generator = nets.from_linen(
        nets.StyleGAN2Generator(size, channels, 64, 8, style_size=6, mapping_layers=2, **conditions)
    )
    critic = nets.from_linen(nets.StyleGAN2Discriminator(64, 8, residual=residual, mapping_layers=2, **conditions))
    label = () if classes is None else (jnp.array([0, classes - 1, 1, 1]),)

    @jax.jit
    def run(z):
        params, state = generator.init(KEY, z, *label)
        images, _ = generator.apply(params, state, z, *label, train=True, key=KEY)
        critic_params, critic_state = critic.init(KEY, images, *label)
        return images, critic.apply(critic_params, critic_state, images, *label, train=True)[0], (params, critic_params)

    images, logits, params = run(jax.random.normal(KEY, (4, 7)))
    assert images.shape == (4, size, size, channels) and logits.shape == (4,)
    assert {x.dtype for x in jax.tree.leaves((images, logits, params))} == {jnp.dtype("float32")}
    assert bool(jnp.all(jnp.isfinite(images))) and bool(jnp.all(jnp.isfinite(logits)))
    deviations = {jax.tree_util.keystr(p): float(jnp.std(k)) for p, k in jax.tree_util.tree_leaves_with_path(params)}
    for path, deviation in deviations.items():
        if "kernel" in path:
            slow = "mapping" in path and "layer_" in path
            np.testing.assert_allclose(deviation, 100.0 if slow else 1.0, rtol=0.5, err_msg=path)


def test_bfloat16_is_near_float32():
    def images(dtype):
        generator = nets.from_linen(
            nets.StyleGAN2Generator(16, 3, 128, 16, style_size=16, mapping_layers=2, dtype=dtype)
        )
        z = jax.random.normal(KEY, (4, 16))
        return jax.jit(lambda: generator.apply(*generator.init(KEY, z), z, train=False)[0])()

    exact, rough = images("float32"), images("bfloat16")
    assert 0.001 < float(jnp.sqrt(jnp.mean((rough - exact) ** 2) / jnp.mean(exact**2))) < 0.03


def test_noise_comes_with_a_key_and_has_the_strength_that_was_learned():
    synthesis = nets.from_linen(nets.StyleGAN2Generator(8, 1, 32, 4, style_size=4).parts()[1])
    w = jnp.ones((2, 4, 4))
    params, state = synthesis.init(KEY, w)
    images = [synthesis.apply(params, state, w, train=True, key=key)[0] for key in (None, jax.random.key(1))]
    np.testing.assert_array_equal(*images)
    params["conv_8"]["noise_strength"] = jnp.float32(0.3)
    quiet, one, same, other = (
        synthesis.apply(params, state, w, train=True, key=key)[0]
        for key in (None, jax.random.key(1), jax.random.key(1), jax.random.key(2))
    )
    np.testing.assert_array_equal(quiet, images[0])
    np.testing.assert_array_equal(one, same)
    assert not np.allclose(one, quiet) and not np.allclose(one, other) and not np.allclose(one[0], one[1])


def test_the_parts_make_the_whole():
    module = nets.StyleGAN2Generator(8, 1, 32, 4, style_size=4, mapping_layers=2, num_classes=3)
    whole, mapping, synthesis = map(nets.from_linen, (module, *module.parts()))
    z, label = jax.random.normal(KEY, (3, 5)), jnp.array([0, 1, 2])
    params, _ = whole.init(KEY, z, label)
    w, _ = mapping.apply(params["mapping"], {}, z, label, train=False)
    assert w.shape == (3, style_layers(8), 4)
    np.testing.assert_array_equal(w, jnp.broadcast_to(w[:, :1], w.shape))
    images, _ = synthesis.apply(params["synthesis"], {}, w, train=False)
    np.testing.assert_array_equal(images, whole.apply(params, {}, z, label, train=False)[0])
    scaled, _ = mapping.apply(params["mapping"], {}, 7.0 * z, label, train=False)
    np.testing.assert_allclose(scaled, w, rtol=1e-5, atol=1e-6)  # latents are normalised


@pytest.mark.parametrize("size", [4, 12, 28, 0, -8])
def test_sizes_that_stylegan2_refuses(size):
    with pytest.raises(InvalidInputError, match=f"image_size={size}"):
        style_layers(size)


@pytest.mark.parametrize(
    ("module", "inputs", "message"),
    [
        (nets.StyleGAN2Generator(8, 1, 4), (jnp.ones((1, 3)),), "fmap_base=4: .* at least 8"),
        (nets.StyleGAN2Generator(8, 1, 32, 0), (jnp.ones((1, 3)),), "fmap_max=0"),
        (nets.StyleGAN2Generator(8, 1, 32, 4, mapping_layers=0), (jnp.ones((1, 3)),), "mapping_layers=0"),
        (nets.StyleGAN2Generator(8, 1, 32, 4, num_classes=2), (jnp.ones((1, 3)),), "label is missing"),
        (nets.StyleGAN2Generator(8, 1, 32, 4).parts()[1], (jnp.ones((1, 3, 4)),), r"expected \[b, 4, d\]"),
        (nets.StyleGAN2Discriminator(32, 4), (jnp.ones((6, 8, 8, 1)),), "group_size=4: a batch of 6"),
        (nets.StyleGAN2Discriminator(32, 4, group_size=0), (jnp.ones((1, 8, 8, 1)),), "group_size=0"),
        (nets.StyleGAN2Discriminator(32, 4, dtype="int8"), (jnp.ones((1, 8, 8, 1)),), "dtype='int8'"),
    ],
)
def test_errors_name_the_argument(module, inputs, message):
    with pytest.raises(InvalidInputError, match=message):
        nets.from_linen(module).init(KEY, *inputs)
