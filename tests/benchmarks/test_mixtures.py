"""The benchmark of mode coverage, with settings too small to learn anything: what it records, skips and prints."""

import json

import numpy as np
import pytest

from benchmarks import measure, mixture_games, mixtures, mixtures_report

TINY = ["--iterations=4", "--seeds=2", "--width=8", "--layers=2", "--only=ring,relativistic_pairing,r1+r2,alternating"]


@pytest.fixture(autouse=True)
def results(tmp_path, monkeypatch):
    monkeypatch.setattr(measure, "RESULTS", tmp_path)
    return tmp_path / "mixtures.jsonl"


def lines(results):
    return [json.loads(line) for line in results.read_text().splitlines()]


def test_a_setting_is_recorded_once_and_printed(results, capsys, tmp_path, monkeypatch):
    mixtures.main(TINY)
    [line] = lines(results)
    assert [line[name] for name in ("data", "loss", "regularizer", "rule")] == [
        "ring", "relativistic_pairing", "r1+r2", "alternating",
    ]  # fmt: skip
    for found in (line, line["raw"]):
        assert [len(found[name]) for name in ("modes", "high_quality", "kl")] == [2, 2, 2]
    assert line["failed"] == 0 and line["failed_by"] == [None, None]
    assert line["setup"]["iterations"] == 4 and line["setup"]["gamma"] == mixture_games.GAMMA["ring"]
    assert {"versions", "machine", "command", "hash", "interval", "seconds"} <= set(line)
    assert np.shape(line["samples"]) == (mixture_games.SHOWN, 2)
    assert "| VEEGAN, published | 8 | 52.9% |" in capsys.readouterr().out

    mixtures.main(TINY)  # all settings are recorded already
    assert len(lines(results)) == 1
    printed = capsys.readouterr().out
    assert "1 settings, 1 recorded before" in printed and "| `relativistic_pairing`, R1 + R2 |" in printed
    mixtures.main(["--table", *TINY])
    assert printed.endswith(capsys.readouterr().out)

    monkeypatch.setattr(mixtures_report, "DOCS", tmp_path)
    (tmp_path / "images").mkdir()
    page = tmp_path / "mixtures.md"
    begin, end = "<!-- written by python -m benchmarks.mixtures --write -->", "<!-- end of what is written -->"
    page.write_text(f"Before.\n{begin}\nold\n{end}\nAfter.\n")
    mixtures.main(["--write", *TINY])
    text = page.read_text()
    assert text.startswith("Before.\n") and text.endswith("After.\n") and "old" not in text and "VEEGAN" in text
    assert (tmp_path / "images" / "mixtures.png").stat().st_size > 10_000
    [long] = measure.recorded("mixtures")
    assert "**On the longer budget:**" in mixtures_report.table({}, {mixture_games.long_settings()[0]: long})
    mixtures.main(["--table", *TINY, "--seeds=1"])  # other settings have another hash
    assert "Nothing is recorded" in capsys.readouterr().out


def test_a_seed_that_fails_is_counted_and_leaves_the_others_alone(results):
    setting, setup = (
        mixture_games.Setting("ring", "non_saturating", "none"),
        mixture_games.Setup(iterations=8, width=8, layers=2),
    )
    fine = mixture_games.train(setting, setup, [1, 0], {"learning_rate": [1e-3, 1e-3]})
    mixed = mixture_games.train(setting, setup, [1, 0], {"learning_rate": [1e38, 1e-3]})
    assert fine.failed_by == [None, None] and mixed.failed_by[1] is None and mixed.failed_by[0] <= 8
    np.testing.assert_array_equal(mixed.samples[1], fine.samples[1])
    found = mixture_games.scores(mixed.samples, mixture_games.DATA["ring"])
    assert (found["modes"][0], found["high_quality"][0], found["kl"][0]) == (0, 0.0, None)

    mixtures.main(
        [
            "--iterations=8",
            "--seeds=2",
            "--width=8",
            "--layers=2",
            "--learning_rate=1e38",
            "--only=ring,non_saturating,none,alternating",
        ]
    )
    [line] = lines(results)
    assert line["failed"] == 2 and line["modes"] == [0, 0] and line["interval"]["high_quality"] == [0.0, 0.0]
    assert "0.0, 0%, 2 failed" in mixtures_report.table({setting: line}, {})


def test_the_table_has_every_loss_under_every_regularizer_and_the_rules():
    settings = mixture_games.all_settings()
    assert len(set(settings)) == len(settings)
    assert mixtures.select(["grid", "hinge"], settings) == [
        mixture_games.Setting("grid", "hinge", name)
        for name in ("r1+r2", "r1", "none", "gradient_penalty", "spectral_norm", "r2")
    ]
    assert {setting.rule for setting in settings if setting.loss == "minimax"} == set(mixture_games.RULES)
    with pytest.raises(SystemExit, match="hing: expected some of"):
        mixtures.select(["hing"], settings)


def test_bootstrap():
    assert measure.bootstrap([3.0] * 5) == (3.0, 3.0)
    low, high = measure.bootstrap([0.0, 1.0, 2.0, 3.0, 4.0])
    assert 0.5 < low < 1.2 and 2.8 < high < 3.5
