"""I3D with random weights: its shape, its padding and preprocessing by hand, and files that are refused."""

import importlib
import json
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gan_jax import eval as evals
from gan_jax import feature_networks
from gan_jax.eval import METRICS
from gan_jax.types import InvalidInputError

NETWORK = feature_networks.i3d()
module = importlib.import_module("gan_jax.feature_networks.i3d")  # which the function of that name hides


def test_it_has_the_parameters_of_i3d():
    """The weights, scales and shifts of the published network are 12,697,264 with 400 classes."""
    sizes = {name: int(np.prod(shape)) for name, shape in NETWORK.file.used.items()}
    trained = sum(size for name, size in sizes.items() if "running" not in name)
    assert trained == 12_697_264
    assert METRICS["fvd"].network == "i3d" and METRICS["fvd"].samples == 2048 and NETWORK.takes == "clips"


def test_shapes_of_clips():
    clips = jax.ShapeDtypeStruct((2, 16, 64, 64, 3), jnp.uint8)
    found = jax.eval_shape(NETWORK.apply, NETWORK.shapes(), clips)
    assert found["features"].shape == (2, 400)
    for bad in ((2, 8, 64, 64, 3), (2, 64, 64, 3), (2, 16, 64, 64, 2)):
        with pytest.raises(InvalidInputError):
            jax.eval_shape(NETWORK.apply, NETWORK.shapes(), jax.ShapeDtypeStruct(bad, jnp.uint8))
    with pytest.raises(InvalidInputError, match="uint8"):
        jax.eval_shape(NETWORK.apply, NETWORK.shapes(), jax.ShapeDtypeStruct(clips.shape, jnp.float32))


def test_padding_is_that_of_tensorflow_and_batch_norm_is_folded():
    """With kernel 7 and stride 2, an even size gets two zeros before and three behind."""
    random = np.random.default_rng(0)
    weight = random.normal(size=(4, 3, 7, 7, 7)).astype(np.float32)
    scale, shift, mean = random.normal(size=(3, 4)).astype(np.float32)
    variance = random.uniform(0.5, 2, 4).astype(np.float32)
    factor = scale / np.sqrt(variance + 1e-3)
    params = {
        "Conv3d_1a_7x7.kernel": jnp.asarray(weight.transpose(2, 3, 4, 1, 0) * factor),
        "Conv3d_1a_7x7.bias": jnp.asarray(shift - mean * factor),
    }
    x = random.normal(size=(1, 8, 10, 12, 3)).astype(np.float32)
    found = np.asarray(module._conv(params, "Conv3d_1a_7x7", jnp.asarray(x), 2))
    padded = np.pad(x, [(0, 0), (2, 3), (2, 3), (2, 3), (0, 0)])
    assert found.shape == (1, 4, 5, 6, 4)
    for t, i, j in ((0, 0, 0), (3, 4, 5), (1, 2, 3)):
        window = padded[0, 2 * t : 2 * t + 7, 2 * i : 2 * i + 7, 2 * j : 2 * j + 7]
        conv = np.einsum("tijc,octij->o", window, weight)
        expected = np.maximum(0, (conv - mean) * factor + shift)
        np.testing.assert_allclose(found[0, t, i, j], expected, rtol=1e-4, atol=1e-4)
    # pooling pads with what never wins, as the zeros of the published code beside values of a ReLU
    pooled = np.asarray(module._pool(jnp.asarray(np.abs(x)), (3, 3, 3), (2, 2, 2)))
    np.testing.assert_allclose(pooled[0, 3, 4, 5], np.abs(x)[0, 6:8, 8:10, 10:12].max((0, 1, 2)))


def test_an_unknown_file_is_refused_and_a_missing_one_is_described(tmp_path):
    with pytest.raises(InvalidInputError, match=r"i3d_pretrained_400\.pt .*VideoGPT"):
        NETWORK.load(tmp_path)
    with zipfile.ZipFile(tmp_path / "i3d_pretrained_400.pt", "w") as file:
        file.writestr("archive/data.json", json.dumps({}))
    with pytest.raises(InvalidInputError, match="is refused"):
        NETWORK.load(tmp_path)


def test_the_record_tells_which_pipeline_it_is():
    record = evals.i3d().record("0" * 64)
    assert record["name"] == "i3d_kinetics400" and record["weights"] == "i3d_pretrained_400.pt"
    assert record["resize"] == "bilinear without antialiasing" and record["size"] == 224
