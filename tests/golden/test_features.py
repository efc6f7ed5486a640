"""Resizers and feature networks against outputs of TensorFlow, Pillow and PyTorch packages, from make_features.py."""

import functools
import hashlib
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gan_jax import eval
from gan_jax.feature_networks import resize
from tests.golden import random_weights
from tests.golden.make_features import CASES, RESIZED, sample

GOLDEN = json.loads(pathlib.Path(__file__).with_name("features.json").read_text())["entries"]
NETWORKS = {
    "inception_2015": eval.inception,
    "inception_2015_clean": lambda: eval.inception("bicubic"),
    "dinov2_vitb14": lambda: eval.dinov2("vitb14"),
    "dinov2_vitl14": eval.dinov2,
    "clip_vitl14_336": eval.clip,
}
OUTPUTS = {"inception_2015": ["features", "logits", "biased_logits"]}
OUTPUTS["inception_2015_clean"] = OUTPUTS["inception_2015"]


@pytest.mark.parametrize(("height", "width", "size"), RESIZED)
def test_resizers(height, width, size):
    images, name = random_weights.images("resizers", 1, height, width), f"{height}x{width}_{size}"
    entries = {kind: GOLDEN[f"{kind}_{name}"] for kind in ("tf1_bilinear", "bicubic", "bicubic_uint8")}
    bilinear = resize.tf1_bilinear(jnp.asarray(images), size)
    np.testing.assert_allclose(sample(bilinear), entries["tf1_bilinear"]["sample"], rtol=0, atol=6e-5)
    clean = jnp.clip(resize.bicubic(jnp.asarray(images), size), 0, 255)
    np.testing.assert_allclose(sample(clean), entries["bicubic"]["sample"], rtol=0, atol=1e-4)
    whole = np.asarray(resize.bicubic_uint8(jnp.asarray(images), size))
    assert sample(whole) == entries["bicubic_uint8"]["sample"]
    assert hashlib.sha256(whole.tobytes()).hexdigest() == entries["bicubic_uint8"]["sha256"]


@functools.lru_cache(maxsize=1)  # one network at a time: the largest takes 1.2 GB
def ready(name):
    network = NETWORKS[name]()
    params = jax.tree.map(jnp.asarray, network.prepare(random_weights.tensors(network.file.used)))
    return network, params


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "case"),
    [
        pytest.param(
            name,
            case,
            # The large DINOv2 takes gigabytes, and differs from the base one in sizes alone.
            marks=[
                pytest.mark.xdist_group(f"weights of {name}"),
                *([pytest.mark.long] if name == "dinov2_vitl14" else []),
            ],
        )
        for name, cases in CASES.items()
        for case in cases
    ],
)
def test_networks(name, case):
    """At full size. The tolerance is 1e-4, for other machines; on the one that wrote the file, 6e-6 would do."""
    network, params = ready(name)
    assert network.name == name
    outputs = jax.jit(network.apply)(params, random_weights.images(name, *CASES[name][case]))
    assert set(outputs) == set(OUTPUTS.get(name, ["features"]))
    for output, value in outputs.items():
        entry, scale = GOLDEN[f"{name}_{case}_{output}"], float(jnp.sqrt(jnp.mean(value**2)))
        np.testing.assert_allclose(sample(value), entry["sample"], rtol=0, atol=3e-5 * scale)
        np.testing.assert_allclose(jnp.linalg.norm(value, axis=1), entry["norms"], rtol=1e-5)


def test_every_entry_is_compared():
    resizers = {
        f"{kind}_{height}x{width}_{size}"
        for kind in ("tf1_bilinear", "bicubic", "bicubic_uint8")
        for height, width, size in RESIZED
    }
    features = {
        f"{name}_{case}_{output}"
        for name, cases in CASES.items()
        for case in cases
        for output in OUTPUTS.get(name, ["features"])
    }
    assert set(GOLDEN) == resizers | features
    assert {entry["package"] for entry in GOLDEN.values()} == {
        "clean-fid", "open_clip_torch", "pillow", "tensorflow-cpu", "timm", "torch-fidelity"
    }  # fmt: skip


def test_the_rule_of_weights_and_images_is_what_it_was():
    """The numbers are pinned: with others, features.json would have to be made again."""
    weights = random_weights.tensors({"a.conv.weight": (2, 3), "a.bn.running_var": (3,), "b.bias": (2,)})
    digest = hashlib.sha256(b"".join(value.tobytes() for value in weights.values()))
    digest.update(random_weights.images("a", 1, 5, 4).tobytes())
    assert digest.hexdigest() == FROZEN
    drawn = functools.reduce(np.append, [random_weights.uniform(str(i), (1000,)) for i in range(50)])
    assert abs(drawn.mean()) < 0.02 and abs(drawn.std() - 1) < 0.02


FROZEN = "563775c3fc3649101845d4193d3647ded7af999275365519577951a8f07daea0"
