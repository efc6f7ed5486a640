"""Trees of folders: what is read, in which order, and what is passed over and said to be."""

import collections
import io
import itertools
import os
import pathlib
import tempfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from gan_jax import data, runtime
from gan_jax.types import InvalidInputError

PNG = io.BytesIO()
Image.new("RGB", (8, 8)).save(PNG, "PNG")


def tree(root, *paths):
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(PNG.getvalue())
    return root


def read(root, *, labels=False, **options):
    return data.image_folder(str(root), image_size=8, labels=labels, **options)


NAMES = st.sampled_from(["1", "2", "10", "cat", ".ipynb_checkpoints", "@eaDir", "Ünï", "a.png", "b c"])
FILES = st.sampled_from(["0.png", "b.JPG", "c.jfif", "._a.png", "d.txt", "e", ".DS_Store", "f.tga"])


@settings(max_examples=60, deadline=None)
@given(st.sets(st.tuples(st.lists(NAMES, max_size=2).map(tuple), FILES), min_size=1, max_size=12))
def test_any_tree(found):
    """Hidden parts and other endings are passed over and counted, all else is read, and labels are in natural order."""
    shown = [path for path in found if not any(part[0] in ".@" for part in (*path[0], path[1]))]
    taken = [path for path in shown if path[1] in ("0.png", "b.JPG", "c.jfif", "f.tga")]
    classes = {path[0][0] for path in taken if path[0]}
    with tempfile.TemporaryDirectory() as name:
        root = tree(pathlib.Path(name), *("/".join([*folders, file]) for folders, file in found))
        if not taken:
            with pytest.raises(InvalidInputError, match="has no image"):
                read(root)
            return
        source = read(root)
        assert source.size == len(taken)
        others = collections.Counter({"d.txt": ".txt", "e": "without an ending"}.get(file) for _, file in shown)
        for kind in (".txt", "without an ending"):
            assert (f"{others[kind]} {kind}" in source.summary()) == bool(others[kind])
        assert ("hidden" in source.summary()) == (len(shown) < len(found))
        if len(classes) < 2 or any(not path[0] for path in taken):
            with pytest.raises(InvalidInputError, match="labels=True needs"):
                read(root, labels=True)
            return
        order = [name for name in ("1", "2", "10", "a.png", "b c", "cat", "Ünï") if name in classes]
        assert read(root, labels=True).class_names == tuple(order)


def test_natural_order(tmp_path):
    names = ["1", "2", "10", "a", "b2x", "b10", "b10x"]
    tree(tmp_path, *(f"{name}/0.png" for name in names))
    source = read(tmp_path, labels=True)
    assert source.class_names == tuple(names)
    labels = dict(zip(sorted(names), source.arrays["label"].tolist(), strict=True))  # the files are sorted as before
    assert labels == {name: index for index, name in enumerate(names)}
    assert "0 1:1, 1 2:1, 2 10:1" in source.summary()


def test_links_are_followed(tmp_path):
    tree(tmp_path, "root/cat/0.png", "elsewhere/dogs/0.png", "elsewhere/1.png")
    root = tmp_path / "root"
    (root / "dog").symlink_to(tmp_path / "elsewhere" / "dogs")
    (root / "cat" / "1.png").symlink_to(tmp_path / "elsewhere" / "1.png")
    (root / "cat" / "back").symlink_to(root)  # without end
    source = read(root, labels=True)
    assert source.class_names == ("cat", "dog") and source.arrays["label"].tolist() == [0, 0, 1]
    assert "1 link(s) to a folder that contains them" in source.summary()
    assert read(root / "dog").size == 1


def test_what_cannot_be_read_is_an_error(tmp_path, monkeypatch):
    tree(tmp_path, "cat/0.png", "dog/0.png")
    (tmp_path / "cat" / "1.png").symlink_to(tmp_path / "nothing.png")
    with pytest.raises(InvalidInputError, match=r"1\.png is no file \(a link to nothing, or a pipe\)"):
        read(tmp_path)
    (tmp_path / "cat" / "1.png").rename(tmp_path / "bird")  # as of a class on a disk that is not mounted
    with pytest.raises(InvalidInputError, match=r"bird is no file \(a link to nothing, or a pipe\)"):
        read(tmp_path)
    (tmp_path / "bird").unlink()
    os.mkfifo(tmp_path / "cat" / "2.png")
    with pytest.raises(InvalidInputError, match=r"2\.png is no file"):
        read(tmp_path)
    (tmp_path / "cat" / "2.png").unlink()
    (tmp_path / "cat" / "round").symlink_to(tmp_path / "cat" / "round")
    with pytest.raises(InvalidInputError, match="round cannot be read"):
        read(tmp_path)
    (tmp_path / "cat" / "round").unlink()
    scandir = os.scandir

    def locked(path):
        if str(path).endswith("dog"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", locked)
    with pytest.raises(InvalidInputError, match=r"dog cannot be read \(Permission denied\)"):
        read(tmp_path, labels=True)


def test_folders_without_an_image_are_counted(tmp_path):
    tree(tmp_path, "cat/0.png", "dog/0.png")
    (tmp_path / "bird").mkdir()
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "read me.txt").touch()
    source = read(tmp_path, labels=True)
    assert source.class_names == ("cat", "dog")
    assert "passed over: 1 .txt; 2 folder(s) without an image" in source.summary()
    (tmp_path / "cat" / "0.png").unlink()
    with pytest.raises(InvalidInputError, match=r"found 1 sub-folders.*; passed over: 1 \.txt; 3 folder\(s\) without"):
        read(tmp_path, labels=True)


@pytest.mark.parametrize("resident_bytes", [0, 2**30])
def test_changed_images_are_counted(tmp_path, resident_bytes):
    frames = [Image.new("L", (8, 8), value) for value in (10, 200)]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    frames[0].save(tmp_path / "pages.tif", save_all=True, append_images=frames[1:])
    Image.new("RGB", (8, 20)).save(tmp_path / "tall.png")
    Image.new("RGB", (7, 7)).save(tmp_path / "small.png")
    Image.new("RGBA", (8, 8)).save(tmp_path / "clear.webp", lossless=True)
    source = read(tmp_path, background="#010203", resident_bytes=resident_bytes)
    for kind in (
        "2 with further frames, of which the first is read",
        "1 not square, cropped to the central square",
        "1 smaller than 8 pixels, enlarged",
        "1 transparent, blended on #010203",
    ):
        assert kind in source.summary()
    assert "images:" not in read(tree(tmp_path / "plain", "0.png")).summary()
    both = source.read(np.arange(len(source)))["real"]
    assert {tuple(image[0, 0]) for image in both} >= {(1, 2, 3), (10, 10, 10)}


def test_broken_images_of_a_streamed_folder_are_found_at_the_start(tmp_path):
    rng = np.random.default_rng(0)
    for index in range(30):
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8)).save(tmp_path / f"{index:02}.jpg")
    for index in range(5, 30):
        content = (tmp_path / f"{index:02}.jpg").read_bytes()
        (tmp_path / f"{index:02}.jpg").write_bytes(content[:-200])
    with pytest.raises(InvalidInputError, match=r"05\.jpg is corrupt") as caught:
        read(tmp_path, resident_bytes=0)
    assert str(caught.value).count("is corrupt") == 20 and str(caught.value).endswith("and 5 more")
    source = read(tmp_path, resident_bytes=0, check=False)  # found at its batch, and named
    with pytest.raises(InvalidInputError, match="is corrupt"):
        list(itertools.islice(source.feed(0, 1, 8, range(8)).stream(0, 1), 4))


def test_files_that_are_no_images_are_all_named(tmp_path):
    tree(tmp_path, "0.png")
    for index in (1, 2):
        (tmp_path / f"{index}.png").write_bytes(b"no image")
    with pytest.raises(InvalidInputError, match=r"1\.png is not an image.*\n.*2\.png is not an image"):
        read(tmp_path, resident_bytes=0, check=False)


def test_progress_is_shown(tmp_path, capsys, monkeypatch):
    tree(tmp_path, *(f"{index}.png" for index in range(70)))
    monkeypatch.setattr("time.monotonic", itertools.count(0, 10).__next__)
    read(tmp_path, resident_bytes=0)
    said = capsys.readouterr().err
    assert "opening folder" in said and "checking folder" in said and ": 64 of 70, ETA " in said


def test_a_class_is_meant_by_its_name_and_by_number_where_none_has_it():
    trained = runtime.Trained(None, None, 0, None, ("1", "2", "10"))
    assert [trained.class_number(label) for label in ("1", "2", "10", "0")] == [0, 1, 2, 0]
    with pytest.raises(InvalidInputError, match=r"^label=cat: expected a number, or one of 1, 2, 10$"):
        trained.class_number("cat")
