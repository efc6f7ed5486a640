"""Clips as pictures that move: grids, files, the log, and matrices of contents and motions."""

import base64
import io
import re

import jax
import numpy as np
import pytest
from PIL import Image, ImageSequence

from gan_jax import data, gans, nets, runtime
from gan_jax.runs import pictures
from gan_jax.runtime.logging import Logger
from gan_jax.types import InvalidInputError

# pixel (frame, clip) is a grey of its own; four clips of three frames
GREYS = np.arange(12, dtype=np.float32).reshape(3, 4).T * 20 / 127.5 - 1
CLIPS = np.broadcast_to(GREYS[..., None, None, None], (4, 3, 8, 8, 1))


def greys(picture):
    """The grey in the middle of each clip of a grid of 2x2 clips of 40 pixels."""
    values = np.asarray(picture.convert("L")).astype(int)
    return [values[22 + 42 * i, 22 + 42 * j] for i in range(2) for j in range(2)]


@pytest.mark.parametrize(("form", "name"), [("WEBP", "a.webp"), ("GIF", "a.gif")])
def test_every_frame_of_the_animation_is_that_of_the_clips(form, name, tmp_path):
    film = runtime.clip_grid(CLIPS, 2, rate=8)
    pictures.write(tmp_path / name, CLIPS, lambda: film, "--out")
    with Image.open(tmp_path / name) as picture:
        assert picture.format == form and picture.n_frames == 3 and picture.info["loop"] == 0
        frames = [(greys(frame), frame.info.get("duration")) for frame in ImageSequence.Iterator(picture)]
    for number, (found, _) in enumerate(frames):
        np.testing.assert_allclose(found, 20 * (4 * number + np.arange(4)), atol=1)
    assert frames[1][1] in (120, 125)  # GIF counts in hundredths of a second


def test_the_still_picture_has_a_row_for_each_clip():
    still = np.asarray(runtime.clip_grid(CLIPS, 2).still).astype(int)
    assert still.shape == (4 * 42 + 2, 3 * 42 + 2)
    for clip in range(4):
        np.testing.assert_allclose(still[22 + 42 * clip, 22::42], 20 * (clip + 4 * np.arange(3)), atol=1)
    for bad in (CLIPS[:, 0], CLIPS[:, :0]):
        with pytest.raises(InvalidInputError, match="clip_grid draws clips"):
            runtime.clip_grid(bad, 2)


def test_notebooks_show_the_animation():
    shown = re.fullmatch(
        r'<img alt="clips" src="data:image/webp;base64,(.*)">', runtime.clip_grid(CLIPS, 2)._repr_html_()
    )
    with Image.open(io.BytesIO(base64.b64decode(shown[1]))) as picture:
        assert picture.n_frames == 3
    assert repr(runtime.clip_grid(CLIPS, 2)) == "Film(rate=10.0)"


def test_films_and_arrays(tmp_path):
    av = pytest.importorskip("av", reason="films need the extra `video`")
    film = runtime.clip_grid(CLIPS, 2, rate=8)
    pictures.write(tmp_path / "a.mp4", CLIPS, lambda: film, "--out")
    with av.open(str(tmp_path / "a.mp4")) as container:
        assert container.streams.video[0].average_rate == 8
        found = [greys(frame.to_image()) for frame in container.decode(video=0)]
    np.testing.assert_allclose(found, 20 * np.arange(12).reshape(3, 4), atol=6)
    pictures.write(tmp_path / "a.npy", CLIPS, lambda: film, "--out")
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), CLIPS)
    pictures.write(tmp_path / "a.png", CLIPS, lambda: film, "--out")
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.size == film.still.size
    with pytest.raises(InvalidInputError, match="do not move"):
        pictures.write(tmp_path / "b.mp4", CLIPS, lambda: film.still, "--out")


def test_the_log_has_the_animation_and_its_still_picture(tmp_path):
    logger = Logger(tmp_path, 0)
    logger.picture(runtime.clip_grid(CLIPS, 2), 7)
    logger.close()
    assert sorted(path.name for path in (tmp_path / "samples").iterdir()) == ["step_00000007.png", "step_00000007.webp"]
    [events] = (tmp_path / "tensorboard").iterdir()
    assert b"samples" in events.read_bytes()


def test_matrices_of_a_trained_game():
    sizes = {"content": 3, "motion": 2}
    generator = nets.from_linen(nets.MoCoGANGenerator(8, 1, 4, **sizes))
    game = gans.mocogan(generator, nets.from_linen(nets.MoCoGANDiscriminator(4)), frames=7, **sizes)
    source = data.video_arrays("black", np.zeros((4, 7, 8, 8, 1), np.uint8), clip_frames=7)
    run = runtime.Experiment(game=game, source=lambda: source, preview=runtime.clip_grid, seed=0, batch_size=2, steps=1)
    state = jax.jit(game.init)(jax.random.key(0), {"real": np.zeros((2, 7, 8, 8, 1), np.float32)})
    trained = runtime.Trained(run, state, 0, runtime.make_mesh(jax.devices()[:1]))
    made = trained.clip_matrix(6, content_seed=1, motion_seed=2)
    assert made.shape == (2, 3, 7, 8, 8, 1)
    other = trained.clip_matrix(6, content_seed=1, motion_seed=3)
    again = trained.clip_matrix(6, content_seed=1, motion_seed=2)
    np.testing.assert_array_equal(made, again)
    assert not np.array_equal(made, other)
    longer = trained.clip_matrix(6, content_seed=1, motion_seed=2, frames=9)
    np.testing.assert_allclose(longer[:, :, :7], made, atol=1e-6)
    film = run.preview(made.reshape(-1, *made.shape[2:]), 3)
    file = io.BytesIO()
    film.save(file, "GIF")
    assert len(film.frames) == 7 and file.getvalue()[:3] == b"GIF"
    with pytest.raises(InvalidInputError, match="frames=0"):
        trained.clip_matrix(6, frames=0)
