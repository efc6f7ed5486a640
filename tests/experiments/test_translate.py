"""The command that translates a folder of pictures."""

import re
import shutil

import jax
import numpy as np
import pytest
from PIL import Image

import gan_jax
from gan_jax import host, runs, runtime
from gan_jax.runs import pictures
from gan_jax.types import InvalidInputError
from tests.processes import ROOT, run

SHORT = ("steps=2", "steps_per_dispatch=2", "report_every=2", "checkpoint_every=2", "sample_every=0", "batch_size=8")
FLAGS = [f"--config.{value}" for value in (*SHORT, "metrics=", "evaluate_every=0", "best_metric=")]


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """A pix2pix of grey pictures that was hardly trained."""
    where = tmp_path_factory.mktemp("translate") / "run"
    run("train", f"--config={ROOT / 'docs' / 'examples' / 'pix2pix.py'}", f"--workdir={where}", *FLAGS)
    return where


def grey(seed, height, width):
    return np.random.default_rng(seed).integers(0, 256, (height, width), np.uint8)


@pytest.fixture
def inputs(tmp_path):
    root = tmp_path / "in"
    (root / "deep").mkdir(parents=True)
    Image.fromarray(grey(0, 20, 31)).save(root / "a.png")
    Image.fromarray(grey(1, 9, 8)).save(root / "deep" / "b[1].bmp")
    Image.fromarray(np.stack([grey(2, 40, 12)] * 3, -1)).save(root / "c.png")  # grey, in three channels
    (root / "notes.txt").write_text("no picture")
    return root


def command(workdir, inputs, *flags, code=0, out="out"):
    return run(
        "translate", f"--workdir={workdir}", f"--inputs={inputs}", f"--out={inputs.parent / out}", *flags, code=code
    )


@pytest.mark.slow
def test_a_folder_of_pictures(workdir, inputs):
    (inputs / "broken.png").write_bytes(b"nothing")
    grid = inputs.parent / "grid.png"
    printed = command(workdir, inputs, f"--grid={grid}", f"--targets={inputs}", code=2)
    out = inputs.parent / "out"
    assert "skipped broken.png: " in printed and "error: 1 of 4 pictures were skipped" in printed
    assert "3 pictures translated by step 2" in printed and "3 of them in" in printed
    made = {str(path.relative_to(out)) for path in out.rglob("*.*")}
    assert made == {"a.png", "c.png", "deep/b[1].png"}
    trained = gan_jax.load(workdir)
    for name, image in (("a", grey(0, 20, 31)), ("c", grey(2, 40, 12)), ("deep/b[1]", grey(1, 9, 8))):
        expected = host.to_uint8(trained.translate([image[..., None]])[0][..., 0])
        with Image.open(out / f"{name}.png") as picture:
            assert np.abs(np.asarray(picture).astype(int) - expected).max() <= 1
    with Image.open(grid) as picture:  # three rows of source, output, target
        assert picture.size == (3 * 260 + 4, 165 + 256 + 256 + 4 * 4)
        cells = np.asarray(picture)
        np.testing.assert_array_equal(cells[:, 4:260], cells[:, 524:780])  # here, the targets are the sources
    # what is there is kept; the rest is made
    (inputs / "broken.png").unlink()
    before = (out / "a.png").stat().st_mtime_ns
    (out / "c.png").unlink()
    printed = command(workdir, inputs)
    assert "2 of 3 pictures are in" in printed and "1 pictures translated" in printed
    assert (out / "a.png").stat().st_mtime_ns == before
    assert "3 pictures translated" in command(workdir, inputs, "--overwrite", "--tile=16", "--overlap=4")
    assert (out / "a.png").stat().st_mtime_ns != before


@pytest.mark.slow
def test_what_is_refused_before_anything_is_written(workdir, inputs):
    for flags, message in (
        (["--direction=BtoA"], "this game translates in one direction alone"),
        (["--tile=16", "--overlap=9"], "--overlap=9: expected at most half of --tile=16"),
        ([f"--targets={inputs}"], "expected a directory, and --grid=FILE"),
        (["--grid=grid.xyz"], "expected a name that ends in .png"),
        ([f"--grid={inputs / 'a.png'}"], "a.png exists: choose another name, or pass --overwrite"),
    ):
        assert message in command(workdir, inputs, *flags, code=2)
    assert "is in --inputs" in command(workdir, inputs, out="in/out", code=2)
    shutil.copy(inputs / "a.png", inputs / "a.jpg")
    assert "'a.jpg' and 'a.png' would both become" in command(workdir, inputs, code=2)
    empty = inputs / "empty"
    empty.mkdir()
    out = inputs.parent / "out"
    assert "has no image" in run("translate", f"--workdir={workdir}", f"--inputs={empty}", f"--out={out}", code=2)
    assert not list(out.rglob("*.png"))


MAPS = """
from gan_jax import data, gans, nets
from gan_jax.runs import run_config, run_settings
from gan_jax.runtime import Experiment, image_grid, side_by_side


def get_config():
    every = {name: 2 for name in ("steps", "report_every", "sample_every", "evaluate_every")}
    return run_config(data_dir="", batch_size=2, metrics="l1", **every)


def build(config):
    generator = nets.TranslationResNet(3, 4, 1, 1)
    game = gans.pix2pix(nets.from_linen(generator), nets.from_linen(nets.PatchDiscriminator(4, 1)), classes=4)
    pairs = lambda: data.paired_folder(config.data_dir, direction="BtoA", image_size=8, classes=4)
    return Experiment(
        game=game, source=pairs, conditions=lambda: data.renamed(pairs(), inputs="a", target="b"),
        previews={"translations": side_by_side(game)}, preview=image_grid, **run_settings(config),
    )
"""


@pytest.mark.slow
def test_maps_of_classes(tmp_path):
    """A file with a class that the game does not have is named, with its value; the others are translated."""
    rng = np.random.default_rng(0)
    for name in ("A/train", "B/train", "in"):
        (tmp_path / name).mkdir(parents=True)
    for index in range(4):
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).save(tmp_path / "A" / "train" / f"{index}.png")
        Image.fromarray(rng.integers(0, 4, (8, 8), np.uint8)).save(tmp_path / "B" / "train" / f"{index}.png")
    (tmp_path / "maps.py").write_text(MAPS)
    workdir = tmp_path / "run"
    run("train", f"--config={tmp_path / 'maps.py'}", f"--workdir={workdir}", f"--config.data_dir={tmp_path}")
    good, bad = rng.integers(0, 4, (10, 8), np.uint8), rng.integers(0, 4, (10, 8), np.uint8)
    good[0, :2], bad[3, 3] = (0, 3), 4
    for name, values in (("bad", bad), ("good", good)):
        Image.fromarray(values).save(tmp_path / "in" / f"{name}.png")
    coloured = Image.fromarray(good)
    coloured.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0, 0, 0, 255])
    coloured.save(tmp_path / "in" / "palette.png")
    printed = command(workdir, tmp_path / "in", f"--grid={tmp_path / 'grid.png'}", code=2)
    assert re.search(r"skipped bad.png: \S*bad.png has values from 0 to 4: expected classes from 0 to 3", printed)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"good.png", "palette.png"}
    with Image.open(tmp_path / "grid.png") as grid:
        cells = np.asarray(grid)  # sources of 8x10 pixels, enlarged to 205x256
    grey, coloured = ({tuple(x) for x in cells[top : top + 240, 40:200].reshape(-1, 3)} for top in (10, 270))
    assert grey == {(0, 0, 0), (85, 85, 85), (170, 170, 170), (255, 255, 255)}
    assert coloured == {(0, 0, 0), (255, 0, 0), (0, 255, 0), (0, 0, 255)}


def test_rows_of_pictures_keep_their_ratios():
    wide, tall = np.full((10, 40, 3), 255, np.uint8), np.full((300, 100, 1), 255, np.uint8)
    found = np.asarray(pictures.rows([[wide, tall], [wide]], cell=60))
    assert found.shape == (60 + 15 + 3 * 4, 2 * 64 + 4, 3)  # rows as high as their highest picture
    white = (found == 255).all(-1)
    assert white[:66, :66].sum() == white[66:, :66].sum() == 60 * 15 and white[:66, 66:].sum() == 60 * 20
    assert not white[66:, 66:].any()


@pytest.mark.parametrize("task", ["colour", "edges", "inpainting", "super_resolution", "denoising"])
def test_every_task_of_the_photographs_makes_pairs_for_the_networks(task):
    made = runs.build("pix2pix_photos", task=task, width=2, batch_size=2)
    shape = made.opened.spec["a"].shape
    assert made.examples.has_target and shape == (64, 64, 1 if task in ("colour", "edges") else 3)
    batch = {name: jax.ShapeDtypeStruct((2, *x.shape), x.dtype) for name, x in made.opened.spec.items()}
    jax.eval_shape(made.game.init, jax.random.key(0), batch)
    with pytest.raises(InvalidInputError, match="task='colors': expected one of colour"):
        runs.build("pix2pix_photos", task="colors")


@pytest.mark.long
def test_photographs_are_coloured_by_the_game_of_the_paper(tmp_path):
    """The U-Net takes multiples of 64; outputs of training and of the loaded run are equal."""
    options = {"steps": 2, "steps_per_dispatch": 2, "report_every": 2, "checkpoint_every": 2, "sample_every": 0}
    made = runs.build("pix2pix_photos", width=2, batch_size=8, metrics="", evaluate_every=0, **options)
    ended = runtime.train(made, tmp_path / "run", log=lambda message: None)
    loaded = gan_jax.load(tmp_path / "run")
    assert loaded.translator().fit == (64, 1, (64, 64)) and loaded.translator().channels == 1
    image = grey(0, 70, 100)[..., None]
    found = loaded.translate([image])[0]
    assert found.shape == (70, 100, 3) and np.abs(found).max() <= 1
    np.testing.assert_allclose(ended.trained.translate([image])[0], found, atol=1e-5)
    tiled = loaded.translate([image], tile=64)[0]
    assert tiled.shape == found.shape and np.abs(tiled - found).mean() < 0.5
