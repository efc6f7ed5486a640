"""SNGAN's residual networks: sizes, values recomputed from their parameters, conditioning, spectral norm."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from gan_jax import nets
from gan_jax.nets.resnet import doublings
from gan_jax.types import InvalidInputError

KEY = jax.random.key(0)


def networks(size=8, channels=3, classes=None, norm="batch", critic_norm="spectral", dtype="float32"):
    generator = nets.ResNetGenerator(size, channels, 4, norm, classes, dtype)
    return nets.from_linen(generator), nets.from_linen(nets.ResNetDiscriminator(4, critic_norm, classes, dtype))


def leaves(tree):
    return {jax.tree_util.keystr(path, simple=True, separator="/"): x for path, x in jax.tree.leaves_with_path(tree)}


def size_of(network, *inputs):
    return sum(x.size for x in jax.tree.leaves(jax.eval_shape(network.init, KEY, *inputs)[0]))


@pytest.mark.parametrize(
    ("size", "channels", "classes", "norm", "critic_norm", "dtype"),
    [
        (8, 1, None, "batch", "spectral", "float32"),
        (16, 3, 3, "batch", "spectral", "bfloat16"),
        (32, 3, None, "layer", "layer", "float32"),
        (32, 3, 10, "none", "none", "bfloat16"),
        (64, 3, None, "batch", "spectral", "float32"),
    ],
)
def test_shapes_and_dtypes(size, channels, classes, norm, critic_norm, dtype):
    generator, critic = networks(size, channels, classes, norm, critic_norm, dtype)
    label = () if classes is None else (jnp.array([0, classes - 1]),)

    @jax.jit
    def run(z):
        params, state = generator.init(KEY, z, *label)
        images, _ = generator.apply(params, state, z, *label, train=True)
        critic_params, critic_state = critic.init(KEY, images, *label)
        return images, critic.apply(critic_params, critic_state, images, *label, train=True)[0], (params, critic_params)

    images, logits, params = run(jax.random.normal(KEY, (2, 7)))
    assert images.shape == (2, size, size, channels) and logits.shape == (2,)
    assert {x.dtype for x in jax.tree.leaves((images, logits, params))} == {jnp.dtype("float32")}
    assert float(jnp.abs(images).max()) <= 1.0 and bool(jnp.all(jnp.isfinite(logits)))
    blocks = [len({name.split("/")[0] for name in leaves(p) if name.startswith("block")}) for p in params]
    assert blocks == [doublings(size), max(1, doublings(size) - 1) + 2]


def test_as_many_parameters_as_the_papers():
    """Counted layer by layer from table 4, where 3x3 convolutions have biases: 4.28 and 1.05 million."""
    three, one = 256 * 256 * 9 + 256, 256 * 256 + 256
    expected = (128 + 1) * 16 * 256 + 3 * (2 * three + one + 4 * 256) + 2 * 256 + (256 * 9 + 1) * 3
    assert size_of(nets.from_linen(nets.ResNetGenerator(32, 3)), jnp.ones((1, 128))) == expected == 4_276_739
    three, one = 128 * 128 * 9 + 128, 128 * 128 + 128
    expected = (3 * 9 + 1) * 128 + three + (3 + 1) * 128 + (2 * three + one) + 4 * three + 128 + 1
    image = jnp.ones((1, 32, 32, 3))
    assert size_of(nets.from_linen(nets.ResNetDiscriminator()), image) == expected == 1_053_825
    label = jnp.zeros(1, jnp.int32)
    assert size_of(nets.from_linen(nets.ResNetDiscriminator(num_classes=10)), image, label) == expected + 10 * 128


def test_initialisation():
    generator, critic = networks(16, classes=3)
    z, label, x = jnp.ones((1, 7)), jnp.zeros(1, jnp.int32), jnp.ones((1, 16, 16, 3))
    for network, inputs in (
        (generator, (z, label)),
        (critic, (x, label)),
    ):  # the critic's are those without spectral norm
        for name, value in leaves(network.init(KEY, *inputs)[0]).items():
            if "norm" in name or value.ndim == 1:
                np.testing.assert_array_equal(value, 1.0 if "scale" in name else 0.0, err_msg=name)
                continue
            fans = (value.shape[-1] + value.shape[-2]) * math.prod(value.shape[:-2])
            bound = math.sqrt(6 / fans) * (math.sqrt(2) if "conv_" in name else 1)
            largest = float(jnp.abs(value).max())
            assert (0.5 if value.size < 20 else 0.85) * bound < largest <= bound, name


def conv(x, layer):
    pad = layer["kernel"].shape[0] // 2
    y = lax.conv_general_dilated(
        x, layer["kernel"], (1, 1), ((pad, pad),) * 2, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    return y + layer["bias"]


def doubled(x):
    return x.repeat(2, 1).repeat(2, 2)


def halved(x):
    return (x[:, ::2, ::2] + x[:, ::2, 1::2] + x[:, 1::2, ::2] + x[:, 1::2, 1::2]) / 4


def noisy(tree):
    """Adds noise, so that biases and scales matter."""
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda x: x + 0.1 * rng.normal(size=x.shape).astype(np.float32), tree)


def test_the_generators_values():
    """The order is that of the paper and the authors' code: the shortcut is upsampled before its convolution."""
    generator, _ = networks(16, norm="none")
    z = jax.random.normal(KEY, (2, 7))
    params = noisy(generator.init(KEY, z)[0])
    x = (z @ params["input"]["kernel"] + params["input"]["bias"]).reshape(2, 4, 4, 4)
    for block in (params["block_0"], params["block_1"]):
        y = conv(doubled(jax.nn.relu(x)), block["conv_0"])
        x = conv(jax.nn.relu(y), block["conv_1"]) + conv(doubled(x), block["shortcut"])
    expected = jnp.tanh(conv(jax.nn.relu(x), params["output"]))
    np.testing.assert_allclose(generator.apply(params, {}, z, train=True)[0], expected, rtol=1e-4, atol=1e-5)


def test_the_discriminators_values():
    _, critic = networks(32, classes=3, critic_norm="none")
    x, label = jax.random.normal(KEY, (2, 32, 32, 3)), jnp.array([2, 0])
    params = noisy(critic.init(KEY, x, label)[0])
    first, second, *others = (params[f"block_{index}"] for index in range(4))
    y = halved(conv(jax.nn.relu(conv(x, first["conv_0"])), first["conv_1"])) + conv(halved(x), first["shortcut"])
    z = conv(jax.nn.relu(conv(jax.nn.relu(y), second["conv_0"])), second["conv_1"])
    y = halved(z) + halved(conv(y, second["shortcut"]))
    for block in others:
        y = y + conv(jax.nn.relu(conv(jax.nn.relu(y), block["conv_0"])), block["conv_1"])
    features = jax.nn.relu(y).sum((1, 2))
    expected = features @ params["logit"]["kernel"][:, 0] + params["logit"]["bias"][0]
    expected += jnp.sum(params["label"]["embedding"][label] * features, -1)
    np.testing.assert_allclose(critic.apply(params, {}, x, label, train=True)[0], expected, rtol=1e-4)


@pytest.mark.parametrize("classes", [None, 3])
def test_gradients_reach_every_parameter(classes):
    """Tested in evaluation: in training, batch norm removes the mean, and so the gradient of the bias before it."""
    generator, critic = networks(16, classes=classes)
    z = jax.random.normal(KEY, (4, 7))
    label = () if classes is None else (jnp.array([0, 1, 2, 0]),)
    params, state = generator.init(KEY, z, *label)
    critic_params, critic_state = critic.init(KEY, jnp.zeros((4, 16, 16, 3)), *label)

    @jax.jit
    def gradients(params, critic_params):
        def loss(params, critic_params):
            images, _ = generator.apply(params, state, z, *label, train=False)
            return jnp.sum(critic.apply(critic_params, critic_state, images, *label, train=False)[0] ** 2)

        return jax.grad(loss, (0, 1))(params, critic_params)

    for tree in gradients(params, critic_params):
        for name, gradient in leaves(tree).items():
            assert bool(jnp.all(jnp.isfinite(gradient))) and bool(jnp.any(gradient != 0)), name


def test_conditional_batch_norm_scales_and_shifts_by_label():
    generator, _ = networks(classes=3)
    z = jnp.ones((2, 7))
    label = jnp.array([0, 2])
    params, state = generator.init(KEY, z, label)
    assert params["block_0"]["norm_0_scale"]["embedding"].shape == (3, 4)
    assert "bias" in params["norm"] and "norm_0" not in params["block_0"]  # the last norm is unconditional
    same = generator.apply(params, state, z, label, train=False)[0]
    np.testing.assert_array_equal(same[0], same[1])
    for what in ("norm_0_scale", "norm_1_shift"):
        embedding = params["block_0"][what]["embedding"].at[2].add(0.5)
        changed = {**params, "block_0": {**params["block_0"], what: {"embedding": embedding}}}
        first, second = generator.apply(changed, state, z, label, train=False)[0]
        np.testing.assert_array_equal(first, same[0])
        assert not np.allclose(second, same[1])


def test_batch_norm_moves_its_statistics_in_training_only():
    generator, _ = networks(classes=3)
    z, label = jax.random.normal(KEY, (4, 7)), jnp.array([0, 1, 2, 0])
    params, state = generator.init(KEY, z, label)
    trained = generator.apply(params, state, z, label, train=True)[1]
    assert all(not np.allclose(a, b) for a, b in zip(*map(jax.tree.leaves, (state, trained)), strict=True))
    jax.tree.map(np.testing.assert_array_equal, generator.apply(params, state, z, label, train=False)[1], state)


@pytest.mark.parametrize("norm", ["spectral", "layer", "none"])
def test_a_logit_is_of_its_own_image_alone(norm):
    _, critic = networks(critic_norm=norm)
    x = jax.random.normal(KEY, (3, 8, 8, 3))
    params, state = critic.init(KEY, x)
    alone = jnp.concatenate([critic.apply(params, state, image[None], train=True)[0] for image in x])
    np.testing.assert_allclose(critic.apply(params, state, x, train=True)[0], alone, rtol=1e-4, atol=1e-5)


def test_spectral_norm_of_every_kernel_is_one_and_of_its_scale_nothing_is_seen():
    _, critic = networks(classes=3)
    x, label = jax.random.normal(KEY, (3, 8, 8, 3)), jnp.array([0, 1, 2])
    params, state = critic.init(KEY, x, label)
    apply = jax.jit(lambda params, state: critic.apply(params, state, x, label, train=True))
    for _ in range(300):
        logits, state = apply(params, state)
    kernels = {name: value for name, value in leaves(params).items() if value.ndim > 1}
    sigmas = {
        "/".join(part for part in name.split("/")[1:-1] if not part.startswith("spectral_")): value
        for name, value in leaves(state).items()
        if name.endswith("/sigma")
    }
    assert kernels.keys() == sigmas.keys() and len(kernels) == 9  # two in each of 3 blocks, shortcut, logit, labels
    for name, kernel in kernels.items():
        matrix = np.reshape(kernel, (-1, kernel.shape[-1])) / float(sigmas[name])
        np.testing.assert_allclose(np.linalg.norm(matrix, 2), 1.0, rtol=1e-3, err_msg=name)
    scaled = jax.tree.map(lambda k: 7.0 * k if k.ndim > 1 else k, params)
    np.testing.assert_allclose(apply(scaled, state)[0], logits, rtol=1e-3, atol=1e-5)


def test_bfloat16_is_near_float32():
    z, x = jax.random.normal(KEY, (4, 7)), jax.random.normal(KEY, (4, 16, 16, 3))
    results = []
    for dtype in ("float32", "bfloat16"):
        generator, critic = networks(16, dtype=dtype)
        params, state = generator.init(KEY, z)
        critic_params, critic_state = critic.init(KEY, x)
        results.append((generator.apply(params, state, z, train=True)[0],
                        critic.apply(critic_params, critic_state, x, train=True)[0]))  # fmt: skip
    for exact, rounded in zip(*results, strict=True):
        assert 0 < float(jnp.abs(exact - rounded).max()) < 0.05 * float(jnp.abs(exact).max())


@pytest.mark.parametrize("size", [4, 12, 28, 48, 128])
def test_sizes_that_are_refused(size):
    generator, critic = networks(size)
    for build in (
        lambda: generator.init(KEY, jnp.ones((1, 7))),
        lambda: critic.init(KEY, jnp.ones((1, size, size, 3))),
    ):
        with pytest.raises(InvalidInputError, match=f"image_size={size}"):
            build()


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (nets.ResNetGenerator(8, 1, 4, norm="spectral"), "norm='spectral'"),
        (nets.ResNetGenerator(8, 1, 0), "width=0"),
        (nets.ResNetGenerator(8, 0, 4), "channels=0"),
        (nets.ResNetGenerator(8, 1, 4, num_classes=0), "num_classes=0"),
        (nets.ResNetGenerator(8, 1, 4, num_classes=3), "label is missing"),
        (nets.ResNetGenerator(8, 1, 4, dtype="int8"), "dtype='int8'"),
    ],
)
def test_generators_that_cannot_be(module, message):
    with pytest.raises(InvalidInputError, match=message):
        nets.from_linen(module).init(KEY, jnp.ones((1, 7)))


@pytest.mark.parametrize(
    ("module", "shape", "message"),
    [
        (nets.ResNetDiscriminator(4, "batch"), (1, 8, 8, 1), "norm='batch'"),
        (nets.ResNetDiscriminator(0), (1, 8, 8, 1), "width=0"),
        (nets.ResNetDiscriminator(4), (1, 8, 16, 1), "square"),
        (nets.ResNetDiscriminator(4, num_classes=3), (1, 8, 8, 1), "label is missing"),
    ],
)
def test_discriminators_that_cannot_be(module, shape, message):
    with pytest.raises(InvalidInputError, match=message):
        nets.from_linen(module).init(KEY, jnp.ones(shape))
