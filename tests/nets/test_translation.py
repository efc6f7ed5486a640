"""Networks of image translation beyond the golden files: sizes, options, SPADE, instance norm, initialisation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gan_jax import nets
from gan_jax.nets import layers, spade
from gan_jax.types import InvalidInputError

KEY = jax.random.key(0)


def test_instance_norm_is_that_of_each_channel_of_each_image():
    x = 3.0 + 0.01 * jax.random.normal(KEY, (2, 5, 4, 3))  # variance 1e-4: the epsilon of 1e-5 is seen
    wide = np.asarray(x, np.float64)
    mean, variance = (f(wide, axis=(1, 2), keepdims=True) for f in (np.mean, np.var))
    np.testing.assert_allclose(layers.instance_norm(x), (wide - mean) / np.sqrt(variance + 1e-5), atol=1e-4)
    half = layers.instance_norm(x.astype(jnp.bfloat16))
    assert half.dtype == jnp.bfloat16
    np.testing.assert_array_equal(layers.instance_norm(x[:, :1, :1]), 0.0)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (nets.UNet(3, levels=4, width=2), "32x40 pixels: this UNet takes multiples of 16"),
        (nets.TranslationResNet(3, width=2, downsamplings=4), "multiples of 16"),
        (
            nets.TranslationResNet(3, width=2, features=("block_9",)),
            "features=.*'block_9'.* has the layers input, down_0.* more blocks",
        ),
        (nets.TranslationResNet(3, width=2, dropout=1.0), "dropout=1.0"),
        (nets.UNet(3, levels=3, width=2, dropout=-1.0), "dropout=-1.0"),
        (nets.PatchDiscriminator(2, spectral="some"), "spectral='some'"),
        (nets.PatchDiscriminator(0), "width=0"),
        (nets.MultiScaleDiscriminator(0), "scales=0"),
        (nets.SPADEGenerator(3, width=1), "doublings=5, maps of 32x40"),
    ],
)
def test_what_the_networks_refuse(module, message):
    with pytest.raises(InvalidInputError, match=message):
        jax.eval_shape(nets.from_linen(module).init, KEY, jnp.ones((1, 32, 40, 3)))


def test_conditions_of_another_size_are_refused():
    with pytest.raises(InvalidInputError, match=r"condition \(1, 8, 8, 1\), x \(1, 16, 16, 3\)"):
        nets.from_linen(nets.PatchDiscriminator(2, 1)).init(KEY, jnp.ones((1, 16, 16, 3)), jnp.ones((1, 8, 8, 1)))


def test_the_field_of_view_of_a_patch_is_70_pixels():
    """One logit of the 3-layer network depends on 70x70 pixels of an image of 256, which has 30x30 logits."""
    network = nets.from_linen(nets.PatchDiscriminator(1, norm="none"))
    x = jax.random.normal(KEY, (1, 256, 256, 1))
    params, _ = network.init(KEY, x)
    params = jax.tree.map(lambda p: p + 0.1, params)

    @jax.jit
    def slope(x):
        return jax.grad(lambda x: network.apply(params, {}, x, train=False)[0][0, 15, 15])(x)

    rows, columns = np.nonzero(np.asarray(slope(x))[0, :, :, 0])
    assert (np.ptp(rows) + 1, np.ptp(columns) + 1) == (70, 70)
    assert jax.eval_shape(lambda x: network.apply(params, {}, x, train=False)[0], x).shape == (1, 30, 30)


@pytest.mark.slow
def test_initialisation_is_that_of_the_authors():
    """Kernels N(0, 0.02^2) and scales N(1, 0.02^2), or for CUT kernels of variance 0.02^2 * 2 / (fan-in + fan-out)."""
    x = jnp.ones((1, 16, 16, 3))
    params, _ = jax.jit(nets.from_linen(nets.TranslationResNet(3, 16, 2, norm="batch")).init)(KEY, x)
    kernels = np.concatenate([np.ravel(p["kernel"]) for p in params.values() if "kernel" in p])
    scales = np.concatenate([np.ravel(p["scale"]) for p in params.values() if "scale" in p])
    np.testing.assert_allclose([kernels.mean(), kernels.std()], [0.0, 0.02], atol=2e-4)
    np.testing.assert_allclose([scales.mean(), scales.std()], [1.0, 0.02], atol=4e-3)
    network = nets.from_linen(nets.TranslationResNet(3, 16, 2, kernel_init=nets.cut_init))
    params, _ = jax.jit(network.init)(KEY, x)
    kernel = np.asarray(params["block_0_0"]["kernel"])
    np.testing.assert_allclose(kernel.std(), 0.02 * np.sqrt(2 / (9 * 64 * 2)), rtol=0.02)
    assert all(not np.any(p["bias"]) for p in params.values())


@pytest.mark.slow
def test_dropout_is_noise_in_training_only():
    """A U-Net of 6 levels has one level with dropout, a ResNet has it in each block."""
    x = jax.random.normal(KEY, (1, 64, 64, 1))
    for module in (nets.UNet(1, 6, 1, norm="instance"), nets.TranslationResNet(1, 2, 1, dropout=0.5)):
        network = nets.from_linen(module)
        params, _ = jax.jit(network.init)(KEY, x)
        apply = jax.jit(network.apply, static_argnames="train")
        noisy = [apply(params, {}, x, train=True, key=jax.random.key(seed))[0] for seed in (1, 1, 2)]
        np.testing.assert_array_equal(noisy[0], noisy[1])
        assert not np.array_equal(noisy[0], noisy[2])
        plain = [apply(params, {}, x, train=False, key=jax.random.key(seed))[0] for seed in (1, 2)]
        np.testing.assert_array_equal(*plain)
        assert noisy[0].shape == x.shape and noisy[0].dtype == jnp.float32


@pytest.mark.slow
def test_bfloat16_is_near_float32():
    x = jax.random.normal(KEY, (1, 16, 16, 2))
    for make in (
        lambda **o: nets.TranslationResNet(2, 4, 1, 1, antialias=True, **o),
        lambda **o: nets.UNet(2, 2, 4, norm="instance", **o),
    ):
        whole, half = (nets.from_linen(make(dtype=dtype)) for dtype in ("float32", "bfloat16"))
        params, _ = jax.jit(whole.init)(KEY, x)
        params = jax.tree.map(lambda p: 5 * p, params)
        expected, found = jax.jit(lambda p, w=whole, h=half: [n.apply(p, {}, x, train=False)[0] for n in (w, h)])(
            params
        )
        assert found.dtype == jnp.float32 and not np.array_equal(found, expected)
        np.testing.assert_allclose(found, expected, atol=0.1 * float(jnp.abs(expected).max()))


@pytest.mark.parametrize(("spectral", "divided"), [("none", 0), ("inner", 2), ("all", 4)])
def test_spectral_norm_of_patches(spectral, divided):
    """'inner' leaves out the first and the last kernel; the norm of the activations is chosen apart from it."""
    network = nets.from_linen(nets.PatchDiscriminator(2, 2, spectral=spectral, norm="instance"))
    params, state = jax.eval_shape(network.init, KEY, jnp.ones((1, 16, 16, 1)))
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(state)]
    assert sum("sigma" in path for path in paths) == divided
    assert set(params) == {"conv_0", "conv_1", "conv_2", "logit"}


def test_smaller_scales_leave_out_pixels_beyond_the_edge():
    x = jax.random.normal(KEY, (2, 5, 8, 3))
    padded = np.pad(np.asarray(x), ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=np.nan)
    expected = [
        [np.nanmean(padded[:, i : i + 3, j : j + 3], axis=(1, 2)) for j in range(0, 8, 2)] for i in range(0, 5, 2)
    ]
    from gan_jax.nets.patchgan import halved

    np.testing.assert_allclose(halved(x), np.transpose(expected, (2, 0, 1, 3)), rtol=1e-5, atol=1e-6)


def test_spade_scales_and_shifts_by_the_map():
    """norm(x) (1 + gamma) + beta: where gamma and beta are 0 it is batch norm without scale and shift."""
    x = jax.random.normal(KEY, (2, 4, 4, 3)) * 2 + 1
    classes = jax.random.randint(KEY, (2, 8, 8), 0, 2)
    segmentation = jax.nn.one_hot(classes, 2)
    network = nets.from_linen(nets.SPADE(hidden=5))
    params, state = network.init(KEY, x, segmentation)
    params = jax.tree.map(lambda p: jax.random.normal(KEY, p.shape), params)
    found, after = network.apply(params, state, x, segmentation, train=True)
    wide = np.asarray(x, np.float64)
    norm = (wide - wide.mean((0, 1, 2))) / np.sqrt(wide.var((0, 1, 2)) + 1e-5)
    # nearest neighbours: every second pixel of the map
    s = np.pad(np.asarray(segmentation[:, ::2, ::2], np.float64), ((0, 0), (1, 1), (1, 1), (0, 0)))

    def conv(y, p):
        windows = np.lib.stride_tricks.sliding_window_view(y, (3, 3), axis=(1, 2))
        return np.einsum("bijcuv,uvco->bijo", windows, np.asarray(p["kernel"], np.float64)) + np.asarray(p["bias"])

    shared = np.pad(np.maximum(conv(s, params["shared"]), 0), ((0, 0), (1, 1), (1, 1), (0, 0)))
    expected = norm * (1 + conv(shared, params["gamma"])) + conv(shared, params["beta"])
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    assert set(params) == {"shared", "gamma", "beta"} and after["batch_stats"]["norm"]["mean"].shape == (3,)


def test_segmentation_maps_are_resized_to_the_nearest_pixel_above():
    x = jnp.arange(6.0).reshape(1, 6, 1, 1)
    np.testing.assert_array_equal(spade.resized(x, 4, 1)[0, :, 0, 0], [0, 1, 3, 4])  # floor(6 i / 4)


def test_a_spade_block_with_as_many_features_has_the_identity_as_its_shortcut():
    x, segmentation = jax.random.normal(KEY, (1, 4, 4, 3)), jnp.ones((1, 4, 4, 2))
    for features, names in ((3, set()), (5, {"conv_shortcut", "spade_shortcut"})):
        network = nets.from_linen(nets.SPADEBlock(features, hidden=4))
        params, state = jax.jit(network.init)(KEY, x, segmentation)
        assert set(params) == {"conv_0", "conv_1", "spade_0", "spade_1"} | names
        assert "bias" not in params.get("conv_shortcut", {}) and params["conv_0"]["kernel"].shape[-1] == 3
        zeros = jax.tree.map(jnp.zeros_like, params)
        out, _ = jax.jit(network.apply, static_argnames="train")(
            zeros | {"conv_0": params["conv_0"]}, state, x, segmentation, train=True
        )
        np.testing.assert_allclose(out, x if features == 3 else 0.0, atol=1e-6)


def test_spades_generator_has_the_size_of_the_authors():
    """93.0 M parameters for Cityscapes, with 36 channels of input, as in Li et al., "GAN Compression", table 1."""
    maps = jax.ShapeDtypeStruct((1, 256, 512, 36), jnp.float32)
    network = nets.from_linen(nets.SPADEGenerator(3))
    params, state = jax.eval_shape(network.init, KEY, maps)
    assert round(sum(x.size for x in jax.tree.leaves(params)) / 1e5) == 930
    image = jax.eval_shape(lambda p, s, x: network.apply(p, s, x, train=False)[0], params, state, maps)
    assert image.shape == (1, 256, 512, 3)
