"""The comparison of GANs and VAEs: what is chosen and shown, from records; and one small run of each kind."""

import math

import pytest

from benchmarks import measure, vae_gan, vae_gan_cases
from benchmarks.vae_gan_cases import METHODS, POINTS, SETTINGS


@pytest.fixture(autouse=True)
def results(tmp_path, monkeypatch):
    monkeypatch.setattr(measure, "RESULTS", tmp_path)
    return tmp_path


def write(method, point, seed, **values):
    line = {"data": "digits", "method": method, "point": point, "seed": seed, "settings": vae_gan.settings("digits")}
    measure.record("vae_gan", line | {"values": values, "seconds": 7.0, "cpu_seconds": None})


def test_every_method_has_equally_many_points():
    assert set(POINTS) == set(SETTINGS)
    for points in POINTS.values():
        assert set(points) == set(METHODS) and len({len(found) for found in points.values()}) == 1
        assert all(len({str(point) for point in found}) == len(found) for found in points.values())


def test_the_least_distance_is_chosen_when_the_sweep_is_complete():
    points = POINTS["digits"]["VAE"]
    for seed, values in ((100, (math.inf, 2.0, 1.0)), (101, (1.0, 2.0, 4.0))):  # the last is best with one seed only
        for point, value in zip(points[1:], values, strict=True):
            write("VAE", point, seed, fcd_prior=value)
        assert vae_gan.chosen("digits", "VAE") is None
        write("VAE", points[0], seed, fcd_prior=9.0)
    assert vae_gan.chosen("digits", "VAE") == points[2]
    write("VAE", points[1], 0, fcd_prior=1.0)
    write("VAE", points[2], 0, fcd_prior=2.5, recall=0.5)
    write("VAE", points[2], 1, fcd_prior=3.5, recall=0.7)
    assert [line["seed"] for line in vae_gan.finals("digits", "VAE")] == [0, 1]
    row = next(line for line in vae_gan.page().splitlines() if line.startswith("| VAE |"))
    assert row.startswith("| VAE | 3 [2.5, 3.5] | — |") and "| 0.6 [0.5, 0.7] |" in row
    assert "4 points per method; 2 seeds" in vae_gan.page()


@pytest.mark.long
def test_a_small_run_of_each_kind_is_recorded_once(tmp_path, monkeypatch):
    monkeypatch.setattr(vae_gan, "METHODS", {name: METHODS[name] for name in ("VAE-GAN", "GAN, R1")})
    monkeypatch.setattr(vae_gan, "_SWEEP", (100,))
    setting = SETTINGS["digits"]._replace(steps=2, samples=64, batch_size=8)
    monkeypatch.setitem(SETTINGS, "digits", setting)
    monkeypatch.setitem(POINTS, "digits", {method: found[:1] for method, found in POINTS["digits"].items()})
    monkeypatch.setattr(vae_gan, "_INVERTED", 2)
    monkeypatch.setattr(vae_gan._FLAGS, "seeds", 1)
    monkeypatch.setattr(vae_gan._FLAGS, "workdir", str(tmp_path / "runs"))
    vae_gan.train("digits")
    found = measure.recorded("vae_gan")
    vae_gan.train("digits")
    assert measure.recorded("vae_gan") == found and len(found) == 4
    whole = {line["method"]: line["values"] for line in found if line["seed"] == 0}
    assert all(math.isfinite(value) for values in whole.values() for value in values.values())
    assert {method for method, values in whole.items() if "mse" in values} == {"VAE-GAN"}
    assert all("inversion_mse" in values and "fcd_midpoints" in values for values in whole.values())
    assert vae_gan_cases.opened("digits", "").held_out.shape == (297, 8, 8, 1)
