"""Whole feature networks: from a file to features, for any batch, on one device or eight."""

import functools
import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from gan_jax import eval
from gan_jax.types import InvalidInputError
from tests.feature_networks import writers
from tests.golden import random_weights

MAKERS = {
    "inception": eval.inception,
    "clean": lambda: eval.inception("bicubic"),
    "vitb14": lambda: eval.dinov2("vitb14"),
    "vitl14": eval.dinov2,
    "clip": eval.clip,
}


def of(name):
    """Returns a test parameter. All tests of a network run in one process, which makes its weights once."""
    return pytest.param(name, marks=pytest.mark.xdist_group(name))


@functools.lru_cache(maxsize=1)
def ready(name):
    network = MAKERS[name]()
    params = jax.tree.map(jnp.asarray, network.prepare(random_weights.tensors(network.file.used)))
    return network, params, jax.jit(network.apply)


def close(ours, expected):
    scale = float(np.sqrt(np.mean(np.square(expected))))
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-5 * scale)


@pytest.mark.slow
@pytest.mark.parametrize("name", [of("inception"), of("vitb14")])
def test_features_depend_on_their_image_alone(name):
    _, params, apply = ready(name)
    images = random_weights.images("batch", 2, 40, 40)
    together, alone = apply(params, images), apply(params, images[1:])
    for output, value in together.items():
        close(alone[output][0], value[1])
    assert np.abs(together["features"][0] - together["features"][1]).max() > 0.05  # but they differ between images


@pytest.mark.slow
@pytest.mark.parametrize("name", [of("inception"), of("vitb14")])
def test_a_sharded_batch_is_not_exchanged(name, mesh):
    network, params, apply = ready(name)
    images = random_weights.images("sharded", 8, 24, 24)
    devices = mesh(8)
    split = jax.device_put(images, NamedSharding(devices, P(devices.axis_names)))
    everywhere = jax.device_put(params, NamedSharding(devices, P()))
    compiled = jax.jit(network.apply).lower(everywhere, split).compile()
    text = compiled.as_text()
    assert not [word for word in ("all-gather", "all-reduce", "all-to-all", "collective-permute") if word in text]
    if name == "inception":
        outputs = compiled(everywhere, split)
        assert all(value.sharding.is_equivalent_to(split.sharding, value.ndim) for value in outputs.values())
        close(outputs["features"][:1], apply(params, images[:1])["features"])


@pytest.mark.slow
@pytest.mark.xdist_group("inception")
def test_grey_images_are_colour_images_of_equal_channels():
    _, params, apply = ready("inception")
    grey = random_weights.images("grey", 1, 28, 28)[..., :1]
    np.testing.assert_array_equal(
        apply(params, grey)["features"], apply(params, np.repeat(grey, 3, axis=-1))["features"]
    )


@pytest.mark.slow
@pytest.mark.xdist_group("inception")
def test_from_the_file_to_features_and_their_record(tmp_path):
    """Loads a file in the format of the published one, whose hash is not pinned."""
    network, params, apply = ready("inception")
    writers.save_old(tmp_path / network.file.name, random_weights.tensors(network.file.used))
    network = network._replace(file=network.file._replace(sha256=None))
    loaded, record = network.load(tmp_path)
    assert jax.tree.all(jax.tree.map(np.array_equal, loaded, params))
    assert record == {
        "name": "inception_2015", "version": 1, "weights": "pt_inception-2015-12-05-6726825d.pth",
        "weights_sha256": record["weights_sha256"], "size": 299, "resize": "tf1_bilinear", "dim": 2048,
        "dtype": "float32", "precision": "highest",
    }  # fmt: skip
    assert len(record["weights_sha256"]) == 64
    outputs = apply(loaded, random_weights.images("file", 1, 32, 32))
    assert {name: value.shape for name, value in outputs.items()} == {
        "features": (1, 2048), "logits": (1, 1008), "biased_logits": (1, 1008)
    }  # fmt: skip


@pytest.mark.parametrize("name", [of(name) for name in MAKERS])
def test_shapes_and_refusals(name):
    """Traces only, without computing: shapes are as promised, and other kinds of images are refused."""
    network = MAKERS[name]()
    shapes = {key: jax.ShapeDtypeStruct(shape, jnp.float32) for key, shape in network.file.used.items()}
    params = jax.eval_shape(lambda: network.prepare({key: np.zeros(s.shape, np.float32) for key, s in shapes.items()}))
    run = functools.partial(jax.eval_shape, network.apply, params)
    for shape in ((2, 32, 32, 3), (1, 30, 50, 3), (1, 28, 28, 1)):
        features = run(jax.ShapeDtypeStruct(shape, jnp.uint8))["features"]
        assert features.shape == (shape[0], network.dim) and features.dtype == jnp.float32
    for shape, dtype in (((1, 32, 32, 3), jnp.float32), ((32, 32, 3), jnp.uint8), ((1, 32, 32, 4), jnp.uint8)):
        with pytest.raises(InvalidInputError, match="expected uint8"):
            run(jax.ShapeDtypeStruct(shape, dtype))


def test_unknown_variants_are_refused():
    with pytest.raises(InvalidInputError, match="vitb14"):
        eval.dinov2("vitg14")
    with pytest.raises(InvalidInputError, match="bicubic"):
        eval.inception("lanczos")
    with pytest.raises(InvalidInputError, match="at least 1"):
        jax.eval_shape(lambda x: eval.inception().apply({}, x), jax.ShapeDtypeStruct((1, 0, 8, 3), jnp.uint8))


def test_clip_looks_at_the_largest_central_square():
    images = random_weights.images("square", 1, 20, 33)
    module = importlib.import_module("gan_jax.feature_networks.clip")  # the package's attribute `clip` is the function
    np.testing.assert_array_equal(module._center_square(images), images[:, :, 6:26])
