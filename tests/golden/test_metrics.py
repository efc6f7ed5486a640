"""Metrics against values of torch-fidelity, clean-fid, prdc and POT, which make_metrics.py wrote to metrics.json."""

import json
import pathlib

import pytest

from gan_jax import metrics
from tests.golden.make_metrics import FAKE, REAL, logits

GOLDEN = json.loads(pathlib.Path(__file__).with_name("metrics.json").read_text())["entries"]


def near(value, rel=1e-6):
    return pytest.approx(value, rel=rel)


def test_frechet_distance():
    found = metrics.frechet_distance(metrics.moments(REAL), metrics.moments(FAKE))
    assert found == near(GOLDEN["torch_fidelity"]["fid"]["frechet_inception_distance"])
    assert found == near(GOLDEN["cleanfid"]["frechet_distance"])


def test_kernel_distance():
    found = metrics.kernel_distance(REAL, FAKE, subsets=1, subset_size=1000).mean
    assert found == near(GOLDEN["torch_fidelity"]["kid"]["kernel_inception_distance_mean"], 1e-4)
    assert found == near(GOLDEN["cleanfid"]["kernel_distance"], 1e-4)


def test_inception_score():
    found = metrics.inception_score(logits())
    theirs = GOLDEN["torch_fidelity"]["isc"]
    assert found.mean == near(theirs["inception_score_mean"], 1e-3)
    assert found.std == near(theirs["inception_score_std"], 0.05)  # theirs splits 1,005 samples differently


def test_precision_recall_density_coverage():
    found = metrics.precision_recall(REAL, FAKE)
    theirs = GOLDEN["torch_fidelity"]["prc"]
    assert found.precision == near(theirs["precision"], 1e-3) and found.recall == near(theirs["recall"], 1e-3)
    balls, expected = metrics.density_coverage(REAL, FAKE), GOLDEN["prdc"]
    assert balls.density == near(expected["density"], 1e-3) and balls.coverage == near(expected["coverage"], 1e-3)
    manifolds = metrics.precision_recall(REAL, FAKE, k=5)
    assert manifolds.precision == near(expected["precision"], 1e-3)
    assert manifolds.recall == near(expected["recall"], 1e-3)


def test_sliced_wasserstein():
    found = metrics.sliced_wasserstein(REAL, FAKE[:700], projections=4000)
    assert found == near(GOLDEN["ot"]["sliced"], 0.02)  # the random directions differ
    one = metrics.sliced_wasserstein(REAL[:, :1], FAKE[:700, :1], projections=2)
    assert one == near(GOLDEN["ot"]["one_dimension"])
