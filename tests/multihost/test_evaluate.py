"""Metrics of samples over two processes: equal to those of one, in the loop and after it; no watchdog fires."""

import json

import pytest

from tests.experiments.test_evaluate import DIGITS
from tests.processes import metrics, run, run_together

METRICS = "fcd1k,prdc_classifier1k"
FLAGS = (
    DIGITS,
    "--config.steps=40",
    "--config.steps_per_dispatch=10",
    "--config.report_every=40",
    "--config.checkpoint_every=40",
    "--config.sample_every=0",
    "--config.width=8",
    f"--config.metrics={METRICS}",
    "--config.evaluate_every=40",
    "--config.best_metric=eval/fcd1k",
)


def lines(workdir):
    return [json.loads(line) for line in (workdir / "eval.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_two_processes_evaluate_as_one(tmp_path):
    home, workdir = {"XDG_CACHE_HOME": str(tmp_path / "home")}, tmp_path / "run"
    run_together(f"--workdir={workdir}", *FLAGS, "--step_timeout=100", **home)
    asked = (f"--workdir={workdir}", f"--metrics={METRICS}", "--step=all")
    outputs = run_together(*asked, "--step_timeout=100", command="evaluate", **home)
    assert "step 40" in outputs[0] and not [line for line in outputs[1].splitlines() if line.startswith("step")]
    together = lines(workdir)
    assert [line["step"] for line in together] == [40]

    (workdir / "eval.jsonl").unlink()
    run("evaluate", *asked, **home)
    logged = [line for line in metrics(workdir) if "eval/fcd1k" in line]
    for alone, both, log in zip(lines(workdir), together, logged, strict=True):
        assert alone["protocol"] == both["protocol"] and alone["state_sha256"] == both["state_sha256"]
        assert alone["metrics"] == pytest.approx(both["metrics"], rel=1e-6)
        for name, value in both["metrics"].items():
            assert log[f"eval/{name}"] == pytest.approx(value, rel=1e-6)
