"""The evaluate command, as a user runs it on a run of the default config."""

import json
import shutil

import pytest
from PIL import Image

from tests.processes import ROOT, result, run

DIGITS = f"--config={ROOT / 'tests' / 'experiments' / 'digits.py'}"
SMALL = (
    DIGITS,
    "--config.steps=400",
    "--config.steps_per_dispatch=10",
    "--config.report_every=200",
    "--config.sample_every=0",
    "--config.checkpoint_every=200",
    "--config.width=8",
)
METRICS = "--metrics=fcd1k,prdc_classifier1k"


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return {"XDG_CACHE_HOME": str(tmp_path_factory.mktemp("home"))}


@pytest.fixture(scope="module")
def trained(tmp_path_factory, home):
    workdir = tmp_path_factory.mktemp("default") / "run"
    run("train", f"--workdir={workdir}", *SMALL, **home)
    return workdir


def lines(workdir):
    return [json.loads(line) for line in (workdir / "eval.jsonl").read_text().splitlines()]


@pytest.mark.slow
@pytest.mark.xdist_group("evaluate")
def test_every_checkpoint_and_then_none_again(trained, home):
    output = run("evaluate", f"--workdir={trained}", METRICS, "--step=all", "--neighbours=5", fresh=True, **home)
    assert "held out are right" in output and "features of digits, 1,797 examples" in output
    found = lines(trained)
    assert [line["step"] for line in found] == [200, 400] and [line["images"] for line in found] == [12800, 25600]
    protocol = found[0]["protocol"]
    assert protocol["weights"] == "ema" and protocol["metrics"]["fcd1k"]["network"]["accuracy"] > 0.6
    assert found[1]["state_sha256"] == result(trained)["state_sha256"]
    with Image.open(trained / "eval.png") as picture, Image.open(trained / "neighbours_00000400.png") as rows:
        assert picture.width > 400 and rows.size == (152 + 7 * 104 + 12, 26 + 5 * 118 + 4)

    again = run("evaluate", f"--workdir={trained}", METRICS, "--step=all", **home)
    assert again.count("not evaluated again") == 2 and "held out" not in again and lines(trained) == found
    run("evaluate", f"--workdir={trained}", METRICS, "--raw", **home)
    raw = lines(trained)[2:]
    assert [line["protocol"]["weights"] for line in raw] == ["raw"]
    assert raw[0]["metrics"]["fcd1k"] != found[1]["metrics"]["fcd1k"]


@pytest.mark.slow
@pytest.mark.xdist_group("evaluate")
def test_chosen_samples(trained, home, tmp_path):
    workdir = shutil.copytree(trained, tmp_path / "run")
    for choice in ("top:0.25", "reject:50", "mh:4"):
        run("evaluate", f"--workdir={workdir}", METRICS, f"--choose={choice}", **home)
        assert lines(workdir)[-1]["protocol"]["choose"] == choice
    run("evaluate", f"--workdir={workdir}", METRICS, "--truncation=0.5", **home)
    assert lines(workdir)[-1]["protocol"]["truncation"] == 0.5 and not lines(workdir)[-1]["protocol"]["choose"]
    values = [line["metrics"]["fcd1k"] for line in lines(workdir)]
    assert len(set(values)) == len(values)


@pytest.mark.slow
@pytest.mark.xdist_group("evaluate")
def test_what_can_not_be_done_is_said(trained, home, tmp_path):
    def refused(*flags):
        output = run("evaluate", f"--workdir={trained}", *flags, code=2, **home)
        assert "Traceback" not in output and output.count("error:") == 1, output
        return output

    assert "expected one of fid, " in refused("--metrics=nonsense")
    assert "--step=last: expected a number, newest, best or all" in refused(METRICS, "--step=last")
    assert "no checkpoint of step 7: it has [200, 400]" in refused(METRICS, "--step=7")
    assert "has no best checkpoint" in refused(METRICS, "--step=best")
    assert "choice 'worst': expected top:SHARE" in refused(METRICS, "--choose=worst")
    assert "6726825d" in refused("--metrics=fid1k", f"--feature_weights={tmp_path}")
    missing = run("evaluate", f"--workdir={tmp_path}", METRICS, code=2, **home)
    assert "is" in missing and "the workdir of a run?" in missing
