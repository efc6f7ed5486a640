"""Metrics of samples in the loop: they are logged, the same after a resume, and select the checkpoint to keep."""

import hashlib
import json
import sys
import types

import jax
import numpy as np
import pytest

from gan_jax import data, host, metrics, runtime
from gan_jax.types import InvalidInputError
from tests.conformance.games import GAMES, PAIRS, REAL
from tests.experiments import conformance
from tests.runtime.test_train import train

SHORT = {
    "steps": 8,
    "report_every": 2,
    "checkpoint_every": 4,
    "evaluate_every": 4,
    "metrics": "fcd1k,prdc_classifier1k",
}


def lines(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def many():
    """Returns images that suffice for a classifier, all different: distances of few points are badly conditioned."""
    images = np.random.default_rng(1).integers(0, 256, (400, 8, 8, 1), np.uint8)
    return data.Arrays("many", {"real": images, "label": (np.arange(400) % 3).astype(np.int32)}, 3)


@pytest.fixture(scope="module", autouse=True)
def short_training():
    """Trains the classifier briefly: what it learns does not matter here, and is tested elsewhere."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys.modules["gan_jax.eval.classifier"], "_LEAST_STEPS", 30)
        yield


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


def evaluator(cache, wanted=("fcd1k",), devices=1, said=None, **options):
    mesh = runtime.make_mesh(jax.devices()[:devices])
    return runtime.Evaluator(wanted, many(), mesh, cache, log=(said or []).append, **options)


@pytest.mark.slow
def test_the_log_has_them_and_the_best_checkpoint_is_kept_by_them(cache, tmp_path):
    options = SHORT | {"reference": many, "best_metric": "eval/fcd1k", "keep_last": 1}
    whole, said = train(tmp_path / "whole", REAL, cache=cache, **options)
    found = lines(tmp_path / "whole")
    assert [line["step"] for line in found if "eval/fcd1k" in line] == [4, 8]
    assert {"eval/prdc_classifier1k_coverage", "eval/prdc_classifier1k_precision"} <= set(found[-1])
    values = {line["step"]: line["eval/fcd1k"] for line in found if "eval/fcd1k" in line}
    assert whole.best_checkpoint == min(values, key=values.get)
    assert any("eval/fcd1k" in message for message in said)

    train(tmp_path / "halves", REAL, cache=cache, **(options | {"steps": 4}))
    halves, _ = train(tmp_path / "halves", REAL, cache=cache, **options)
    assert halves.state_sha256 == whole.state_sha256
    timeless = [
        [{k: v for k, v in line.items() if k != "images_per_second"} for line in x]
        for x in (found, lines(tmp_path / "halves"))
    ]
    assert timeless[0] == timeless[1]
    protocol = json.loads((tmp_path / "halves" / "evaluation.json").read_text())
    assert set(protocol) == {"fcd1k", "prdc_classifier1k"}
    protocol["fcd1k"]["network"]["weights_sha256"] = "another"
    (tmp_path / "halves" / "evaluation.json").write_text(json.dumps(protocol))
    with pytest.raises(InvalidInputError, match="'fcd1k' would no longer be comparable"):
        train(tmp_path / "halves", REAL, cache=cache, **(options | {"steps": 12}))
    plain, _ = train(
        tmp_path / "plain", REAL, **{k: v for k, v in SHORT.items() if k not in ("metrics", "evaluate_every")}
    )
    assert plain.state_sha256 == whole.state_sha256, "looking at a run changed it"


@pytest.mark.slow
def test_batches_and_devices_change_no_value_and_the_second_time_nothing_is_computed_anew(cache):
    random = np.random.default_rng(0)
    samples = [np.tanh(random.normal(size=(n, 8, 8, 1))).astype(np.float32) for n in (300, 1, 699, 500)]
    first = evaluator(cache)(samples)["fcd1k"]
    for devices, batch_size in ((1, 7), (1, 500), (8, 7), (8, 64), (8, 500)):
        said = []
        again = evaluator(cache, devices=devices, batch_size=batch_size, said=said)
        assert again(samples)["fcd1k"] == pytest.approx(first, rel=1e-6) and not said
    fresh = evaluator(cache / "other", batch_size=7)  # the reference's features in other batches too
    assert fresh(samples)["fcd1k"] == pytest.approx(first, rel=1e-6)


@pytest.mark.slow
def test_the_data_themselves_score_best_and_the_record_tells_the_protocol(cache):
    judge = evaluator(cache, ("fcd1k", "kcd1k", "prdc_classifier1k"))
    images = many().arrays["real"][np.arange(1000) % 400].astype(np.float32) / 127.5 - 1.0
    itself, noise = judge([images]), judge([np.random.default_rng(0).uniform(-1, 1, images.shape).astype(np.float32)])
    assert itself["fcd1k"] < 0.05 * noise["fcd1k"] and itself["prdc_classifier1k_precision"] > 0.99
    record = judge.records["fcd1k"]
    assert record["network"]["accuracy"] >= 0 and record["samples"] == 1000 and record["reference_count"] == 400
    assert record["reference_fingerprint"] == many().fingerprint() and len(record["network"]["weights_sha256"]) == 64
    seen = hashlib.sha256(many().arrays["real"].tobytes()).hexdigest()
    assert record["reference_images_sha256"] == seen == evaluator(cache).records["fcd1k"]["reference_images_sha256"]
    json.dumps(judge.records)


@pytest.mark.slow
def test_a_classifier_is_taken_from_the_cache_for_its_own_data_alone(cache):
    """It is not used for other data of the same name, which are too few here to train one on."""
    named = evaluator(cache).reference
    few = data.Arrays(named.name, {key: values[:100] for key, values in named.arrays.items()}, named.num_classes)
    with pytest.raises(InvalidInputError, match="128 or more"):
        runtime.Evaluator(["fcd1k"], few, runtime.make_mesh(jax.devices()[:1]), cache, log=lambda message: None)


@pytest.mark.slow
@pytest.mark.parametrize("then", ["stop", "rollback"])
def test_a_divergence_is_one_with_metrics_too(cache, tmp_path, then):
    """Samples of a generator that is not finite are an error elsewhere; the training loop handles them."""
    poison = types.SimpleNamespace(seed=1, poison_from=5, poison_all=then == "stop")
    run = runtime.Experiment(
        game=conformance.poisoned(GAMES["vanilla"][0](), poison), source=lambda: REAL, preview=runtime.image_grid,
        seed=1, batch_size=16, sample_every=0, reference=many, on_divergence=then, steps_per_dispatch=2, **SHORT,
    )  # fmt: skip
    found = runtime.train(run, tmp_path, log=lambda message: None, evaluation_cache=cache)
    assert (found.status, found.rollbacks) == (("diverged", 0) if then == "stop" else ("done", 1))
    assert found.checkpoint == (4 if then == "stop" else 8)


def test_mixtures_need_no_network(cache):
    ring = data.ring()
    judge = runtime.Evaluator(["mixture"], ring, runtime.make_mesh(jax.devices()[:1]), cache)
    points = np.asarray(ring.draw(jax.random.key(0), 2500)["real"])
    found = judge([points[:1000], points[1000:]])
    assert set(found) == set(judge.values) == {f"mixture_{name}" for name in metrics.MixtureCoverage._fields}
    assert found["mixture_modes"] == 8 and found["mixture_high_quality"] > 0.98


def test_uint8_is_the_nearest():
    x = np.arange(256, dtype=np.uint8)
    assert (host.to_uint8(x.astype(np.float32) / 127.5 - 1.0) == x).all()
    assert host.to_uint8(np.array([-7.0, 7.0])).tolist() == [0, 255]


def test_what_can_not_be_evaluated_is_refused_before_training(cache, tmp_path):
    def refused(match, source=REAL, **options):
        with pytest.raises(InvalidInputError, match=match):
            train(tmp_path / "bad", source, cache=cache, **(SHORT | options))

    refused("comes without labels", metrics="fcd1k")
    refused("of eval/fcd1k the min is best", best_metric="eval/fcd1k", best_mode="max")
    refused("needs the modes of its reference", metrics="stacked")
    refused("compares images, and pairs has a", reference=lambda: PAIRS)
    refused("expected one of fid, ", metrics="fcd1000")
    refused("needs the centers and std of its reference", metrics="mixture")
    refused("multiple of report_every=2", evaluate_every=3)
    refused("expected both or neither", metrics="")
    refused("must be a multiple of evaluate_every=8", evaluate_every=8, best_metric="eval/fcd1k")
    refused("expected one of ", reference=many, best_metric="eval/fcd2k")
    with pytest.raises(InvalidInputError, match="compares images, and ring of 8 has real"):
        runtime.Evaluator(["kcd1k"], data.ring(), runtime.make_mesh(jax.devices()[:1]), cache)
    with pytest.raises(InvalidInputError, match="conditions is missing"):
        next(runtime.stream_samples(translation(), None, 0))
    with pytest.raises(InvalidInputError, match="conditions is missing"):
        translation(metrics="fcd1k", evaluate_every=100)


def test_a_metric_says_which_way_is_best():
    found = runtime.directions(["fid", "prdc5k", "inception_score", "stacked", "mixture"])
    assert found["fid"] == found["stacked_kl"] == found["mixture_kl"] == "min"
    assert found["prdc5k_recall"] == found["inception_score"] == found["stacked_modes"] == "max"
    assert found["inception_score_std"] == ""


def test_samples_that_are_not_finite_or_too_few_are_refused(cache):
    with pytest.raises(InvalidInputError, match="samples are not finite"):
        host.to_uint8(np.array([0.0, np.nan]))
    judge = runtime.Evaluator(["mixture"], data.ring(), runtime.make_mesh(jax.devices()[:1]), cache)
    assert judge.records["mixture"]["reference_fingerprint"] == data.ring().fingerprint()
    with pytest.raises(InvalidInputError, match="1,000 samples: expected 2,500"):
        judge([np.zeros((1000, 2))])


def translation(**options):
    return runtime.Experiment(
        game=GAMES["cyclegan"][0](), source=lambda: REAL, preview=runtime.image_grid, seed=0, batch_size=8, steps=2,
        sample_every=0, **options,
    )  # fmt: skip
