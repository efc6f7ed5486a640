"""Evaluation of folders of pictures: values, and what is refused."""

import json

import numpy as np
import pytest
from PIL import Image

from gan_jax import data, metrics, runs
from gan_jax.types import InvalidInputError
from tests.processes import run


def write(folder, images, names=None):
    folder.mkdir(parents=True, exist_ok=True)
    for index, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{names[index] if names else index}.png")
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Noisy images and their originals, 8x8 in colour, the latter in two sub-folders of classes."""
    home, random = tmp_path_factory.mktemp("folders"), np.random.default_rng(0)
    originals = random.integers(30, 220, (160, 8, 8, 3), np.uint8)
    originals[80:] //= 2
    noisy = (originals + random.integers(-20, 21, originals.shape)).astype(np.uint8)
    for index in range(2):
        part = slice(80 * index, 80 * index + 80)
        write(home / "real" / "ab"[index], originals[part])
        write(home / "made" / "ab"[index], noisy[part])
    return home, originals, noisy


def quiet(message):
    pass


def evaluated(folders, names, cache, **options):
    home = folders[0]
    return runs.evaluate_folders(home / "made", home / "real", names, cache=cache, batch_size=16, log=quiet, **options)


def test_metrics_of_pairs_compare_images_of_a_name(folders, tmp_path):
    line = evaluated(folders, ["psnr", "l1"], tmp_path)
    _, originals, noisy = folders
    made, real = (x.astype(np.float32) / 127.5 - 1 for x in (noisy, originals))
    np.testing.assert_allclose(line["metrics"]["psnr"], np.mean(metrics.psnr(made, real)), rtol=1e-5)
    np.testing.assert_allclose(line["metrics"]["l1"], np.abs(made - real).mean(), rtol=1e-5)
    about = line["protocol"]["metrics"]["psnr"]
    assert about["samples"] == 160 and line["protocol"]["image_size"] is None
    resized = evaluated(folders, ["psnr"], tmp_path, image_size=4)
    assert resized["metrics"]["psnr"] > line["metrics"]["psnr"] + 1 and resized["protocol"]["image_size"] == 4


@pytest.mark.long
def test_a_classifier_learns_from_sub_folders(folders, tmp_path):
    names = ["fcd", "prdc_classifier"]
    values = evaluated(folders, names, tmp_path)["metrics"]
    home = folders[0]
    same = runs.evaluate_folders(home / "real", home / "real", names, cache=tmp_path, log=quiet)["metrics"]
    assert same["fcd"] < 1e-3 < values["fcd"] and same["prdc_classifier_recall"] == 1.0


def test_refusals(folders, tmp_path):
    home, originals, _ = folders
    mixed = write(write(tmp_path / "mixed", originals[:3]), np.zeros((1, 16, 8, 3), np.uint8), "x")
    large = write(tmp_path / "large", np.zeros((2, 16, 16, 3), np.uint8))
    other = write(tmp_path / "other", originals, [f"n{i}" for i in range(160)])
    broken = write(tmp_path / "broken", originals[:3])
    (broken / "torn.png").write_bytes((broken / "0.png").read_bytes()[:60])
    (tmp_path / "empty").mkdir()
    real = home / "real"
    for images, names, said in (
        (mixed, ["l1"], r"images=.*2 sizes \(3 of 8 x 8, 1 of 8 x 16; such as .*x.png\)"),
        (large, ["l1"], "have images of 16 x 16 and 8 x 8 pixels"),
        (other, ["l1"], "160 and 160 images with other names, such as a/0"),
        (broken, ["l1"], r"torn.png is"),
        (tmp_path / "empty", ["l1"], "has no image"),
        (tmp_path / "nowhere", ["l1"], "images=.*does not exist"),
        (home / "made", ["l2"], "l2"),
        (home / "made", ["reconstruct:l1"], "leave the prefix out"),
        (home / "made", ["fcd1k"], "is of 1,000 outputs, but .* has 160"),
        (home / "made", ["mixture"], "mixture"),
    ):
        with pytest.raises(InvalidInputError, match=said):
            runs.evaluate_folders(images, real, names, cache=tmp_path, log=quiet)
    with pytest.raises(InvalidInputError, match=r"reference=.*class sub-folders"):
        runs.evaluate_folders(home / "made", large, ["fcd"], cache=tmp_path, log=quiet)
    assert data.image_folder(str(large), image_size=None, labels=False).spec["real"].shape == (16, 16, 3)


@pytest.mark.slow
def test_the_command(folders, tmp_path):
    home = folders[0]
    both, out = (f"--images={home / 'made'}", f"--reference={home / 'real'}"), tmp_path / "eval.jsonl"
    printed = run("evaluate", *both, "--metrics=psnr,l1", f"--out={out}", f"--cache={tmp_path}")
    assert "psnr 2" in printed and "l1 0." in printed
    (line,) = map(json.loads, out.read_text().splitlines())
    assert line["images"] == str(home / "made") and set(line["metrics"]) == {"psnr", "l1"}
    for flags, said in (
        ((both[0], "--metrics=l1"), "expected both --images and --reference"),
        (("--metrics=l1",), "--workdir is missing"),
        ((*both, "--metrics=l1", "--step=3"), "--step is of a run"),
        ((*both, "--metrics=l1", f"--workdir={tmp_path}"), "--workdir is of a run"),
    ):
        assert said in run("evaluate", *flags, code=2)
