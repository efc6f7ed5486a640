"""The feature pass: the same for all batch sizes and devices, and of exactly the requested number of images."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh

from gan_jax import eval as evals
from gan_jax import metrics
from gan_jax.types import InvalidInputError

KERNEL = np.random.default_rng(0).normal(size=(48, 6)).astype(np.float32)


def apply(params, images):
    flat = images.reshape(images.shape[0], -1).astype(jnp.float32)
    return {"features": jnp.tanh(flat @ params / 500), "logits": flat[:, :3]}


LINEAR = evals.Extractor(apply, KERNEL, {"name": "linear"})


def images(count):
    return np.random.default_rng(1).integers(0, 256, (count, 4, 4, 3), np.uint8)


def parts(array, *sizes):
    at = 0
    for size in sizes:
        yield array[at : at + size]
        at += size


def mesh(devices):
    return Mesh(np.array(jax.devices()[:devices]), ("data",))


def outputs(x, count, devices=1, batch_size=64, sizes=None):
    given = [x] if sizes is None else parts(x, *sizes)
    return evals.extract({"linear": LINEAR}, given, count, mesh=mesh(devices), batch_size=batch_size)["linear"]


@pytest.mark.parametrize("devices", [1, 8])
@pytest.mark.parametrize("batch_size", [7, 64, 500])
def test_batches_and_devices_change_nothing(devices, batch_size):
    x = images(1003)
    truth = apply(KERNEL, x)
    found = outputs(x, 1003, devices, batch_size, sizes=[1, 700, 300, 2])
    np.testing.assert_allclose(found.features, truth["features"], atol=1e-6)
    assert (found.logits == np.asarray(truth["logits"])).all()
    reference = metrics.moments(np.random.default_rng(2).normal(size=(500, 6)))
    alone = metrics.frechet_distance(reference, metrics.moments(np.asarray(truth["features"])))
    assert metrics.frechet_distance(reference, metrics.moments(found.features)) == pytest.approx(alone, rel=1e-6)


@pytest.mark.parametrize("count", [1, 63, 64, 65, 128])
def test_exactly_as_many_as_asked_for(count):
    x = images(300)
    found = outputs(x, count, sizes=[50, 100, 150])
    assert len(found.features) == len(found.logits) == count
    np.testing.assert_allclose(found.features, apply(KERNEL, x[:count])["features"], atol=1e-6)


def test_no_more_images_are_taken_than_needed():
    taken = []

    def stream():
        while True:
            taken.append(1)
            yield images(10)

    evals.extract({"linear": LINEAR}, stream(), 25, mesh=mesh(1), batch_size=8)
    assert len(taken) == 3


def test_progress_comes_to_the_end_and_too_few_images_are_refused():
    seen = []
    evals.extract({"linear": LINEAR}, [images(20)], 20, mesh=mesh(1), batch_size=8, progress=lambda *x: seen.append(x))
    assert seen == [(8, 20), (16, 20), (20, 20)]
    with pytest.raises(InvalidInputError, match="20 images: expected 21"):
        outputs(images(20), 21)


def test_moments_in_blocks():
    x = np.random.default_rng(0).normal(size=(1001, 5)).astype(np.float32)
    blocked, whole = metrics.moments(x, block=64), metrics.moments(x)
    assert blocked.size == 1001
    np.testing.assert_allclose(blocked.covariance, whole.covariance, rtol=1e-12, atol=1e-12)


def test_requests_by_name():
    fid, short, dinov2, proxy = evals.metric_specs(["fid", "fid5k", "fd_dinov2", "fd_dinov25k"])
    assert (fid.samples, short.samples, dinov2.samples, proxy.samples) == (None, 5000, None, 5000)
    assert fid.metric.samples == dinov2.metric.samples == 50_000
    [rebuilt] = evals.metric_specs(["reconstruct:fcd2k"])
    assert (rebuilt.function, rebuilt.base, rebuilt.samples) == ("reconstruct", "fcd", 2000)
    assert fid.metric is short.metric and dinov2.metric is proxy.metric and dinov2.metric.network == "dinov2"
    for wrong in ("FID", "fid0k", "fid5", "fidk", "fd", ""):
        with pytest.raises(InvalidInputError, match="expected one of fid, "):
            evals.metric_specs([wrong])


@pytest.mark.parametrize("name", sorted(evals.METRICS))
def test_every_metric_gives_the_values_that_it_names(name):
    random, classes = np.random.default_rng(0), 30 if name == "stacked" else 5
    metric = evals.METRICS[name]
    features = {"mixture": 2, "shapes": 18, "moving_digits": 18, "disentanglement": 18, "fd_attributes": 18}.get(
        name, 8
    )
    widths, paired = (features, classes), metric.takes == evals.PAIRS
    real, fake = (
        evals.FeatureStatistics(evals.Outputs(*(random.normal(size=(n, width)).astype(np.float32) for width in widths)))
        for n in (400, 400 if paired else 300)
    )
    facts = {"centers": np.zeros((1, 2)), "std": 1.0}
    found = metric.compute(evals.Comparison(real, fake, 0, facts))
    assert list(found) == list(metric.suffixes) and np.isfinite(list(found.values())).all()
    assert found == metric.compute(evals.Comparison(real if metric.compares else None, fake, 0, facts))


def test_networks_see_the_frames_of_clips_or_whole_clips_and_pairs_alike():
    clips = np.random.default_rng(0).integers(0, 256, (5, 3, 4, 4, 1), np.uint8)

    def total(params, x):
        return {"features": x.reshape(len(x), -1).astype(np.float32).sum(1, keepdims=True)}

    frames, whole, pair = (evals.Extractor(total, None, {}, takes) for takes in ("images", "clips", "pairs"))
    found = evals.extract({"frames": frames, "whole": whole}, [clips], 5, mesh=mesh(1), batch_size=2)
    np.testing.assert_array_equal(found["frames"].features[:, 0], clips.reshape(15, -1).sum(1))
    np.testing.assert_array_equal(found["whole"].features[:, 0], clips.reshape(5, -1).sum(1))
    both = np.stack([clips, 255 - clips], axis=1)
    found = evals.extract({"frames": frames, "pair": pair}, [both], 5, mesh=mesh(8), batch_size=2, paired=True)
    np.testing.assert_array_equal(found["frames"].features[:, 0], clips.reshape(15, -1).sum(1))
    np.testing.assert_array_equal(found["pair"].features[:, 0], np.full(5, 255 * clips[0].size))
    for network, given in ((whole, clips[:, 0]), (pair, clips)):
        with pytest.raises(InvalidInputError, match=f"a network of {network.takes} got examples"):
            evals.extract({"x": network}, [given], 5, mesh=mesh(1))
