"""Networks of every size, dtype and conditioning, and the two adapters."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from gan_jax import nets
from gan_jax.nets.dcgan import halvings
from gan_jax.types import InvalidInputError

KEY = jax.random.key(0)


@pytest.mark.parametrize(
    ("size", "channels", "classes", "norm", "dtype"),
    [
        (8, 1, None, "batch", "float32"),
        (16, 4, 3, "layer", "float32"),
        (28, 1, None, "none", "bfloat16"),
        (32, 3, 10, "batch", "bfloat16"),
        (48, 2, None, "batch", "float32"),
        (64, 3, None, "layer", "float32"),
    ],
)
def test_dcgan(size, channels, classes, norm, dtype):
    generator = nets.from_linen(nets.DCGANGenerator(size, channels, 4, norm, classes, dtype))
    critic = nets.from_linen(nets.DCGANDiscriminator(4, norm, classes, dtype))
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


@pytest.mark.parametrize(("size", "count"), [(8, 2), (12, 2), (16, 2), (20, 2), (28, 2), (32, 3), (48, 3), (64, 4)])
def test_halvings(size, count):
    assert halvings(size) == count


@pytest.mark.parametrize("size", [4, 9, 10, 14, 27, 44, 60, 128])
def test_sizes_that_dcgan_refuses(size):
    with pytest.raises(InvalidInputError, match=f"image_size={size}"):
        halvings(size)


def test_labels_are_needed_and_matter():
    generator = nets.from_linen(nets.MLPGenerator((4, 4, 1), (8,), num_classes=3))
    z = jnp.ones((2, 5))
    with pytest.raises(InvalidInputError, match="label"):
        generator.init(KEY, z)
    params, state = generator.init(KEY, z, jnp.array([0, 1]))
    a, b = generator.apply(params, state, z, jnp.array([0, 1]), train=False)[0]
    assert not np.allclose(a, b)


def test_encoders_return_a_mean_and_a_bounded_log_variance():
    x = jax.random.normal(KEY, (2, 8, 8, 1))
    for module in (nets.MLPEncoder(3, (4,)), nets.DCGANEncoder(3, 4, "layer", "bfloat16")):
        network = nets.from_linen(module)
        params, state = network.init(KEY, x)
        for scale in (1.0, 1e6):  # a variance of e^1000 or of 0 would have no finite loss
            large = jax.tree.map(lambda p: scale * p, params)  # noqa: B023 - used at once
            mean, log_variance = network.apply(large, state, x, train=False)[0]
            assert mean.shape == log_variance.shape == (2, 3) and mean.dtype == log_variance.dtype == jnp.float32
            assert float(log_variance.min()) >= -30 and float(log_variance.max()) <= 20


def test_a_discriminator_returns_the_activations_of_a_layer():
    x = jax.random.normal(KEY, (2, 8, 8, 1))
    for kind, shape in ((nets.DCGANDiscriminator, (2, 2, 2, 8)), (nets.MLPDiscriminator, (2, 256))):
        options = {"norm": "none"} | ({"width": 4} if kind is nets.DCGANDiscriminator else {})
        plain, both = (nets.from_linen(kind(feature_layer=layer, **options)) for layer in (None, 1))
        params, state = plain.init(KEY, x)
        found = both.apply(params, state, x, train=False)[0]
        assert found["features"].shape == shape
        np.testing.assert_array_equal(found["logits"], plain.apply(params, state, x, train=False)[0])


def test_leaky_relu_has_the_slope_of_dcgan_below_zero():
    """The slope is 0.2 (arXiv:1511.06434, section 4), seen through a critic of one hidden unit, whose kernels are 1."""
    network = nets.from_linen(nets.MLPDiscriminator((1,)))
    x = jnp.array([[-5.0], [0.0], [3.0]])
    params, state = network.init(KEY, x)
    ones = jax.tree.map(lambda p: jnp.ones_like(p) if p.ndim > 1 else p, params)
    np.testing.assert_allclose(network.apply(ones, state, x, train=False)[0], [-1.0, 0.0, 3.0], rtol=1e-6)


def test_running_statistics_of_batch_norm_move_by_a_tenth():
    """They move from mean 0 and variance 1 to those of the batch. Hidden units are the latents here, all positive."""
    network = nets.from_linen(nets.MLPGenerator((2,), (3,), norm="batch"))
    z = jax.random.uniform(KEY, (16, 3), minval=1.0, maxval=4.0)
    params, state = network.init(KEY, z)
    params["dense_0"] = {"kernel": jnp.eye(3), "bias": jnp.zeros(3)}
    _, after = network.apply(params, state, z, train=True)
    moved = after["batch_stats"]["norm_0"]
    np.testing.assert_allclose(moved["mean"], 0.1 * z.mean(0), rtol=1e-5)
    np.testing.assert_allclose(moved["var"], 0.9 + 0.1 * z.var(0), rtol=1e-5)


def test_float64_is_refused_unless_jax_computes_in_it():
    """And where it does, statistics of a batch keep the dtype of the state."""
    network, z = nets.from_linen(nets.MLPGenerator((2,), (3,), norm="batch", dtype="float64")), jnp.ones((4, 3))
    with pytest.raises(InvalidInputError, match=r"dtype=float64: JAX would compute in float32; .*JAX_ENABLE_X64=1"):
        network.init(KEY, z)
    with jax.enable_x64(True):
        params, state = network.init(KEY, z)
        _, after = network.apply(params, state, z, train=True)
        assert {x.dtype.name for x in jax.tree.leaves((params, state, after))} == {"float32"}


@pytest.mark.parametrize("dropout", [-0.1, 1.0, float("nan")])
def test_dropout_is_a_share(dropout):
    with pytest.raises(InvalidInputError, match="dropout"):
        nets.from_linen(nets.MLPDiscriminator((4,), dropout)).init(KEY, jnp.ones((1, 3)))


def test_every_stream_of_an_nnx_module_gets_the_key():
    class Noisy(nnx.Module):
        def __init__(self, rngs):
            self.one, self.two = nnx.Dropout(0.5, rngs=rngs), nnx.Dropout(0.5, rngs=rngs, rng_collection="other")

        def __call__(self, x):
            return self.one(x), self.two(x)

    network = nets.from_nnx(lambda rngs: Noisy(nnx.Rngs(params=0, dropout=1, other=2)))
    params, state = network.init(KEY)
    x = jnp.ones((64,))
    first, again, other = (
        network.apply(params, state, x, train=True, key=jax.random.key(seed))[0] for seed in (1, 1, 2)
    )
    for i in (0, 1):
        np.testing.assert_array_equal(first[i], again[i])
        assert not np.array_equal(first[i], other[i])
    assert not np.array_equal(first[0], first[1])


NORMED = {
    "DCGANGenerator": {"image_size": 8, "channels": 1, "width": 4},
    "DCGANDiscriminator": {"width": 4},
    "DCGANEncoder": {"latents": 3, "width": 4},
    "MLPGenerator": {"shape": (8, 8, 1), "features": (4,)},
    "MLPDiscriminator": {"features": (4,)},
    "MLPEncoder": {"latents": 3, "features": (4,)},
    "ResNetGenerator": {"image_size": 8, "channels": 1, "width": 4},
    "ResNetDiscriminator": {"width": 4},
    "TranslationResNet": {"channels": 1, "width": 4, "blocks": 1},
    "UNet": {"channels": 1, "levels": 3, "width": 4},
    "PatchDiscriminator": {"width": 4, "depth": 1},
    "PixelDiscriminator": {"width": 4},
    "MultiScaleDiscriminator": {"width": 4, "depth": 1},
    "MoCoGANCritic": {"width": 4},
    "MoCoGANDiscriminator": {"width": 4},
    "FramesDiscriminator": {"width": 4},
    "SPADE": {"hidden": 4},
    "SPADEBlock": {"features": 4, "hidden": 4},
    "SPADEGenerator": {"channels": 1, "width": 1, "hidden": 4},
}
LATENTS = {"DCGANGenerator", "MLPGenerator", "ResNetGenerator"}
OF_CLIPS = {"MoCoGANCritic", "MoCoGANDiscriminator", "FramesDiscriminator"}


def test_every_network_with_a_norm_is_in_the_list():
    fields = {name: getattr(getattr(nets, name), "__dataclass_fields__", {}) for name in nets.__all__}
    assert {name for name, found in fields.items() if "norm" in found} == set(NORMED)


@pytest.mark.parametrize("norm", ["batch", "layer", "spectral", "none", "instance", ""])
@pytest.mark.parametrize("name", NORMED)
def test_a_norm_does_what_its_docstring_says_or_is_refused(name, norm):
    module = getattr(nets, name)(**NORMED[name], norm=norm)
    size = 32 if name == "SPADEGenerator" else 8
    images = (jnp.ones((2, size, size, 1)),) * (2 if name in ("SPADE", "SPADEBlock") else 1)
    inputs = (jnp.ones((2, 4)),) if name in LATENTS else images
    inputs = (jnp.ones((2, 10, 16, 16, 1)),) if name in OF_CLIPS else inputs

    def make():
        return jax.eval_shape(lambda: nets.from_linen(module).init(KEY, *inputs))

    listed = module.__doc__.split("norm: ")[1].split("num_classes:")[0].split("dtype:")[0]
    if f"'{norm}'" not in listed.replace("'batch' is an error", ""):
        with pytest.raises(InvalidInputError, match=f"norm='{norm}': a {name} takes"):
            make()
        return
    params, state = make()
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path((params, state))]
    found = {"batch": "batch_stats", "layer": "norm_", "spectral": "sigma"}.get(norm, "kernel")
    assert any(found in path for path in paths), paths
    assert norm != "none" or not any("norm" in path or "sigma" in path for path in paths)
    assert norm != "instance" or not any("norm" in path for path in paths)  # it has no parameters


@pytest.mark.parametrize("classes", [None, 3])
@pytest.mark.parametrize("make", [nets.DCGANDiscriminator, nets.MLPDiscriminator])
def test_spectral_norm_divides_every_kernel_by_its_largest_singular_value(make, classes):
    """Tested after many power iterations. If the kernels are scaled, the logits stay the same."""
    options = {"width": 4} if make is nets.DCGANDiscriminator else {"features": (16, 8)}
    network = nets.from_linen(make(**options, norm="spectral", num_classes=classes))
    x = jax.random.normal(KEY, (4, 16, 16, 3))
    inputs = (x,) if classes is None else (x, jnp.array([0, 1, 2, 0]))
    params, state = jax.jit(network.init)(KEY, *inputs)
    apply = jax.jit(lambda params, state: network.apply(params, state, *inputs, train=True))
    _, once = apply(params, state)
    for _ in range(300):
        _, state = apply(params, state)
    logits, _ = apply(params, state)
    assert any(not np.allclose(a, b) for a, b in zip(*map(jax.tree.leaves, (once, state)), strict=True))
    kernels = {jax.tree_util.keystr(p): k for p, k in jax.tree_util.tree_leaves_with_path(params) if k.ndim > 1}
    sigmas = [v for p, v in jax.tree_util.tree_leaves_with_path(state) if "sigma" in jax.tree_util.keystr(p)]
    singular = [np.linalg.norm(np.reshape(k, (-1, k.shape[-1])), 2) for k in kernels.values()]
    assert len(kernels) == len(sigmas) > 2
    np.testing.assert_allclose(sorted(float(s) for s in sigmas), sorted(singular), rtol=1e-3)
    scaled = jax.tree.map(lambda k: 7.0 * k if k.ndim > 1 else k, params)
    np.testing.assert_allclose(apply(scaled, state)[0], logits, rtol=1e-3, atol=1e-5)
    frozen, same = network.apply(params, state, *inputs, train=False)
    np.testing.assert_allclose(frozen, logits, rtol=1e-3, atol=1e-5)
    jax.tree.map(np.testing.assert_array_equal, same, state)


@pytest.mark.parametrize("make", [nets.DCGANDiscriminator, nets.MLPDiscriminator])
def test_spectral_norm_leaves_the_initial_parameters_alone(make):
    """They are those of the network without spectral norm; kernels are divided only when they are used."""
    x, label = jnp.ones((1, 8, 8, 1)), jnp.zeros(1, jnp.int32)
    plain, normalised = (
        nets.from_linen(make(norm=norm, num_classes=3)).init(KEY, x, label)[0] for norm in ("none", "spectral")
    )
    jax.tree.map(np.testing.assert_array_equal, normalised, plain)


def test_a_spectrally_normalised_mlp_is_lipschitz():
    network = nets.from_linen(nets.MLPDiscriminator((32, 32), norm="spectral"))
    x = jax.random.normal(KEY, (256, 5))
    params, state = network.init(KEY, x)
    for _ in range(100):
        _, state = network.apply(params, state, x, train=True)
    gradients = jax.vmap(jax.grad(lambda x: network.apply(params, state, x[None], train=False)[0][0]))(x)
    assert float(jnp.linalg.norm(gradients, axis=-1).max()) <= 1.0 + 1e-3


def test_unknown_norm():
    with pytest.raises(InvalidInputError, match="norm='group'"):
        nets.from_linen(nets.DCGANGenerator(8, 1, 4, "group")).init(KEY, jnp.ones((1, 3)))


class Small(nn.Module):
    @nn.compact
    def __call__(self, x, *, train):
        x = nn.BatchNorm(use_running_average=not train)(nn.Dense(4)(x))
        return nn.Dropout(0.5, deterministic=not train)(x)


def small_nnx(rngs):
    class SmallNNX(nnx.Module):
        def __init__(self):
            self.dense = nnx.Linear(3, 4, rngs=rngs)
            self.norm = nnx.BatchNorm(4, rngs=rngs)
            self.drop = nnx.Dropout(0.5, rngs=rngs)

        def __call__(self, x):
            return self.drop(self.norm(self.dense(x)))

    return SmallNNX()


@pytest.mark.parametrize("network", [nets.from_linen(Small()), nets.from_nnx(small_nnx)], ids=["linen", "nnx"])
def test_the_seam(network):
    """Statistics change in training only, keys determine dropout, and both work under jit and grad."""
    x = jax.random.normal(KEY, (8, 3))
    params, state = jax.jit(network.init)(KEY, x)
    train = jax.jit(lambda p, s, k: network.apply(p, s, x, train=True, key=k))
    a, after = train(params, state, jax.random.key(1))
    assert jax.tree.structure(after) == jax.tree.structure(state)
    same, _ = train(params, state, jax.random.key(1))
    other, _ = train(params, state, jax.random.key(2))
    np.testing.assert_array_equal(a, same)
    assert not np.array_equal(a, other)
    quiet, unchanged = network.apply(params, state, x, train=False)
    assert all(jax.tree.leaves(jax.tree.map(lambda p, q: bool(jnp.all(p == q)), state, unchanged)))
    moved, _ = network.apply(params, after, x, train=False)
    assert not np.allclose(quiet, moved), "the statistics of training are not used in evaluation"
    gradient = jax.grad(lambda p: jnp.sum(network.apply(p, state, x, train=False)[0] ** 2))(params)
    assert jax.tree.structure(gradient) == jax.tree.structure(params)
    assert any(bool(jnp.any(g != 0)) for g in jax.tree.leaves(gradient))
