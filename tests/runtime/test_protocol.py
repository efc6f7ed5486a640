"""Metrics of functions of a game that map inputs: translations, reconstructions, clips; and their previews."""

import dataclasses
import json
import sys

import jax
import numpy as np
import pytest
from PIL import Image

from gan_jax import data, gans, host, metrics, nets, runtime, sweep
from gan_jax import eval as evals
from gan_jax.runs import load_module
from gan_jax.types import InvalidInputError
from tests.processes import ROOT, run

EXAMPLES = ROOT / "docs" / "examples"
SHORT = {
    "steps": 4, "steps_per_dispatch": 2, "report_every": 2, "checkpoint_every": 2, "sample_every": 4,
    "batch_size": 8, "sample_count": 4, "evaluate_every": 2,
}  # fmt: skip


def built(name, **options):
    module = load_module(EXAMPLES / f"{name}.py")
    config = module.get_config()
    config.update(SHORT | options)
    return module.build(config)


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_translations_are_measured_in_the_loop_against_their_targets(tmp_path):
    read = []
    made = built("pix2pix")
    held_out = made.conditions()

    class Counted(data.Renamed):
        def read(self, indices):
            read.append(len(indices))
            return super().read(indices)

    made = dataclasses.replace(made, conditions=lambda: Counted(held_out.source, held_out.names))
    runtime.train(made, tmp_path, log=lambda message: None)
    found = lines(tmp_path / "metrics.jsonl")
    assert [line["step"] for line in found if "eval/psnr" in line] == [2, 4]
    assert read == [1, len(held_out)], "one to look at, and then each once, for metrics, grids and all"

    with runtime.Checkpointer(tmp_path / "checkpoints", keep_last=1, read_only=True) as saved:
        state = saved.restore(4, runtime.build_start(made, made.open_source().spec, runtime.make_mesh()).abstract)[
            "state"
        ]
    count = len(held_out)
    stored = held_out.read(np.arange(count))
    output = np.concatenate(list(runtime.stream_samples(made, state, made.seed)))
    assert output.shape == stored["target"].shape == (count, 8, 8, 1)
    quantized = [host.to_uint8(x).astype(np.float32) / 127.5 - 1.0 for x in (output, stored["target"])]
    assert found[-1]["eval/l1"] == pytest.approx(float(metrics.l1(*quantized).mean()), rel=1e-5)
    assert found[-1]["eval/psnr"] == pytest.approx(float(metrics.psnr(*quantized).mean()), rel=1e-5)
    assert {path.name for path in (tmp_path / "samples").iterdir()} == {
        "step_00000004.png",
        "translations_00000004.png",
    }
    with Image.open(tmp_path / "samples" / "translations_00000004.png") as picture:
        assert picture.width == 2 * (2 * 24 + 2) + 2  # two columns of source, output and target, enlarged twice


@pytest.mark.slow
def test_a_population_is_swept_by_a_metric_of_pairs(tmp_path):
    made = built("pix2pix", steps=6, checkpoint_every=6)
    members = [sweep.Member(0, {"l1_weight": weight}) for weight in (0.0, 100.0)]
    outcomes = sweep.train_population(made, members, tmp_path / "population", log=lambda message: None)
    alone = built("pix2pix", steps=6, checkpoint_every=6, seed=0)
    runtime.train(alone, tmp_path / "alone", log=lambda message: None)
    values = [outcome.metrics["eval/psnr"] for outcome in outcomes]
    assert values[1] == pytest.approx(lines(tmp_path / "alone" / "metrics.jsonl")[-1]["eval/psnr"], abs=0.01)
    assert values[0] < values[1]


@pytest.mark.slow
def test_translations_are_compared_with_the_held_out_targets_as_a_set(tmp_path, monkeypatch):
    """By a classifier that is trained on a reference with labels; in the loop, where it selects the checkpoint."""
    monkeypatch.setattr(sys.modules["gan_jax.eval.classifier"], "_LEAST_STEPS", 30)
    made = dataclasses.replace(
        built("pix2pix", metrics="fcd,kcd,classifier_distance", best_metric="eval/fcd"),
        reference=lambda: data.digits(labels=True),
    )
    runtime.train(made, tmp_path, log=lambda message: None)
    found = lines(tmp_path / "metrics.jsonl")
    assert [line["step"] for line in found if line.get("eval/fcd", 0) > 0] == [2, 4] and made.best() == "min"
    record = json.loads((tmp_path / "evaluation.json").read_text())
    assert record["fcd"]["samples"] == 180 and record["fcd"]["reference"] == "digits"
    assert record["classifier_distance"]["function"] == "sample" and 0 < found[-1]["eval/classifier_distance"] < 2


@pytest.mark.slow
def test_the_commands_evaluate_and_sample_a_translation(tmp_path):
    flags = [f"--config.{key}={value}" for key, value in SHORT.items()]
    run("train", f"--config={EXAMPLES / 'pix2pix.py'}", f"--workdir={tmp_path}", *flags)
    run("evaluate", f"--workdir={tmp_path}", "--metrics=l1,psnr", "--step=all")
    found, logged = lines(tmp_path / "eval.jsonl"), lines(tmp_path / "metrics.jsonl")
    assert [line["metrics"]["l1"] for line in found] == [line["eval/l1"] for line in logged]
    record = found[0]["protocol"]["metrics"]["l1"]
    assert record["samples"] == 180 and record["function"] == "sample" and len(record["inputs_fingerprint"]) == 64
    run("sample", f"--workdir={tmp_path}", "--num=4", f"--out={tmp_path / 'grid.png'}")
    refused = run("evaluate", f"--workdir={tmp_path}", "--metrics=ssim", code=2)
    assert "11 pixels or more a side" in refused
    assert "'fcd1k' is of 1,000 outputs, but blurred digits (test) has 180 inputs" in run(
        "evaluate", f"--workdir={tmp_path}", "--metrics=fcd1k", code=2
    )


def test_reconstructions_are_of_the_reference_and_samples_of_the_prior(tmp_path):
    made = built("vae_gan", metrics="psnr")
    state = made.game.init(jax.random.key(0), {"real": np.zeros((8, 8, 8, 1), np.float32)})
    judge = runtime.Evaluator(
        ["l1", "mean", "reconstruct:mean"], made.comparison, runtime.make_mesh(jax.devices()[:1]), tmp_path,
        functions=made.outputs, own={"mean": MEAN},
    )  # fmt: skip
    found = judge(lambda function: runtime.stream_samples(made, state, 0, function))
    images = made.comparison.read(np.arange(1797))["real"]
    output = np.concatenate(list(runtime.stream_samples(made, state, 0, "reconstruct")))
    first = runtime.first_samples(runtime.stream_samples(made, state, 0), 100)
    scaled = [host.to_uint8(x).astype(np.float32) / 127.5 - 1.0 for x in (output, images)]
    assert found["l1"] == pytest.approx(np.abs(scaled[0] - scaled[1]).mean(), rel=1e-5)
    assert found["mean"] == pytest.approx(host.to_uint8(first).mean(), rel=1e-5)
    assert found["reconstruct:mean"] == pytest.approx(host.to_uint8(output).mean(), rel=1e-5)
    assert judge.records["reconstruct:mean"]["samples"] == 1797 and judge.records["mean"]["samples"] == 100


def mean_of(takes):
    def apply(params, x):
        return {"features": x.reshape(len(x), -1).astype(np.float32).mean(1, keepdims=True)}

    network = evals.Extractor(apply, None, {"network": "a mean"}, takes)
    value = lambda found: {"": float(found.fake.outputs.features.mean())}  # noqa: E731
    return evals.Metric(network, value, {"": "max"}, samples=100, compares=False)


MEAN = mean_of("images")


def test_own_metrics_see_clips_or_their_frames(tmp_path):
    clips = data.Arrays("clips", {"real": np.zeros((8, 3, 8, 8, 1), np.uint8)})
    made = np.random.default_rng(0).uniform(-1, 1, (100, 3, 8, 8, 1)).astype(np.float32)
    own = {"frames": MEAN, "clips": mean_of("clips")}
    judge = runtime.Evaluator(["frames", "clips"], clips, runtime.make_mesh(jax.devices()[:1]), tmp_path, own=own)
    found = judge([made])
    assert found["frames"] == pytest.approx(found["clips"], rel=1e-5) == pytest.approx(host.to_uint8(made).mean())
    assert runtime.directions(["clips"], own) == {"clips": "max"}


def test_what_does_not_fit_is_refused():
    made = built("pix2pix")
    cropped = data.transformed(data.digits(labels=True), data.crop(6))
    with pytest.raises(InvalidInputError, match=r"stores images \(8, 8, 1\), and changes them to \(6, 6, 1\)"):
        runtime.Evaluator(["fcd1k"], cropped, runtime.make_mesh(), ROOT)
    with pytest.raises(InvalidInputError, match=r"stores 'inputs' as \(8, 8, 1\)"):
        runtime.Conditions(data.renamed(cropped, inputs="real"))
    for wanted, message in (
        ("reconstruct:l1", "no function 'reconstruct': it has sample"),
        ("l1k", "expected one of fid"),
        ("fid1k", "is of 1,000 outputs, but blurred digits"),
    ):
        with pytest.raises(InvalidInputError, match=message):
            runtime.Evaluator([wanted], made.comparison, runtime.make_mesh(), ROOT, functions=made.outputs)
    with pytest.raises(InvalidInputError, match="conditions is missing"):
        dataclasses.replace(made, conditions=None)
    with pytest.raises(InvalidInputError, match="expected 'inputs', which the game maps"):
        dataclasses.replace(made, conditions=made.source).examples  # noqa: B018
    drawn = built("infogan", evaluate_every=0)
    with pytest.raises(InvalidInputError, match="has no inputs to map"):
        drawn.outputs("logits", evals.PAIRS)
    with pytest.raises(InvalidInputError, match="previews x: expected `conditions`"):
        dataclasses.replace(drawn, previews={"x": runtime.side_by_side(drawn.game)})


def brightness(compares):
    """The mean brightness of outputs and, in `_from`, its distance from that of what they are compared with."""

    def apply(params, images):
        return {"features": images.reshape(len(images), -1).astype(np.float32).mean(1, keepdims=True)}

    def compute(found):
        mean = float(found.fake.outputs.features.mean())
        return {"": mean, "_from": mean - float(found.real.outputs.features.mean())}

    network = evals.Extractor(apply, None, {"network": "a mean", "weights_sha256": ""})
    return evals.Metric(network, compute, {"": "", "_from": ""}, compares=compares)


def test_each_way_of_a_translation_has_its_own_inputs_and_reference(tmp_path):
    """`translate` maps a and is compared with b; `translate_back` maps b and is compared with a."""
    dark, bright = np.full((12, 8, 8, 1), 50, np.uint8), np.full((20, 8, 8, 1), 200, np.uint8)
    domains = {name: data.Arrays(name, {"real": x}) for name, x in {"a": dark, "b": bright}.items()}
    functions = {
        "sample": lambda state, key, n, label=None, *, inputs=None, truncation=None: inputs,
        "translate": lambda state, key, inputs: inputs,
        "translate_back": lambda state, key, inputs: inputs + 0.1,
    }
    game = built("pix2pix").game._replace(functions=functions)
    made = dataclasses.replace(
        built("pix2pix"), game=game, metrics="", evaluate_every=0, best_metric="",
        own_metrics={"mean": brightness(True)},
        conditions=lambda: data.renamed(domains["a"], inputs="real"), reference=lambda: domains["b"],
        domains={
            "translate_back": runtime.Domain(
                lambda: data.renamed(domains["b"], inputs="real"), lambda: domains["a"]
            )
        },
        previews={name: runtime.side_by_side(game, name) for name in ("translate", "translate_back")},
    )  # fmt: skip
    mesh = runtime.make_mesh(jax.devices()[:1])
    blank = made.game.init(jax.random.key(0), {name: np.zeros((2, 8, 8, 1), np.float32) for name in "ab"})
    judge = runtime.Evaluator(
        ["translate:mean", "translate_back:mean"], made.comparison, mesh, tmp_path,
        functions=made.outputs, references=made.references, own=made.own_metrics,
    )  # fmt: skip
    found = judge(lambda function: runtime.stream_samples(made, blank, 0, function))
    assert found["translate:mean"] == pytest.approx(50) and found["translate:mean_from"] == pytest.approx(50 - 200)
    assert found["translate_back:mean"] == pytest.approx(213) and found["translate_back:mean_from"] == 213 - 50
    back = judge.records["translate_back:mean"]
    assert (back["inputs"], back["reference"], back["samples"]) == ("b", "a", 20)
    assert judge.records["translate:mean"]["reference"] == "b"
    pictures = runtime.sampling.begin_pictures(made, blank, jax.random.key(0))
    assert host.to_uint8(np.asarray(pictures["translate_back"][0]))[0, 0, :, 0].tolist() == [200] * 8 + [213] * 8
    with pytest.raises(InvalidInputError, match="domains of back: this game has the functions sample, translate"):
        dataclasses.replace(made, domains={"back": made.domains["translate_back"]})


def test_bits_and_active_units_are_means_over_all_inputs(tmp_path):
    """Metrics of what functions return, which is not images; and of reconstructions, for the same VAE."""
    images = np.random.default_rng(0).integers(0, 256, (300, 8, 8, 1), np.uint8)  # more than one chunk
    source = data.Arrays("noise", {"real": images})
    networks = nets.MLPEncoder(3, (8,)), nets.MLPGenerator((8, 8, 1), (8,))
    made = runtime.Experiment(
        game=gans.vae(*map(nets.from_linen, networks), 3, levels=256), source=lambda: source,
        preview=runtime.image_grid, seed=0, batch_size=8, steps=1,
    )  # fmt: skip
    mesh = runtime.make_mesh(jax.devices()[:1])
    wanted = ["bits_per_dimension:mean", "encode:active_units", "reconstruct:psnr"]
    with jax.set_mesh(mesh):
        state = runtime.build_start(made, source.spec, mesh).init()["state"]
        judge = runtime.Evaluator(wanted, made.comparison, mesh, tmp_path, functions=made.outputs)
        found = judge(lambda function: runtime.stream_samples(made, state, 0, function))
        functions = made.game.functions
        x = host.from_uint8(images)
        means = functions["encode"](state, jax.random.key(0), x)
        assert found["encode:active_units"] == int(metrics.active_units(means))
        again = [float(np.mean(functions["bits_per_dimension"](state, jax.random.key(i), x))) for i in range(2)]
        # other draws of noise and latents change the mean of 300 images little
        assert found["bits_per_dimension:mean"] == pytest.approx(again[0], rel=0.02)
        assert again[0] != again[1]
        rebuilt = host.from_uint8(host.to_uint8(np.asarray(functions["reconstruct"](state, jax.random.key(0), x))))
    assert found["reconstruct:psnr"] == pytest.approx(float(metrics.psnr(rebuilt, x).mean()), rel=1e-4)
    assert judge.records["bits_per_dimension:mean"]["samples"] == 300
