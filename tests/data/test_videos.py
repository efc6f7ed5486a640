"""Clips: what is read from arrays, TFDS and folders, which frames a batch gets, and what is refused."""

import os
import pathlib
import sys

import jax
import numpy as np
import pytest
from PIL import Image

from gan_jax import data
from gan_jax.types import InvalidInputError

# frame f of video v is grey 40 v + f, so that a pixel tells both
LENGTHS = (9, 12, 7, 10)
VIDEOS = [
    np.full((n, 8, 8, 1), 40 * v, np.uint8) + np.arange(n, dtype=np.uint8)[:, None, None, None]
    for v, n in enumerate(LENGTHS)
]


def arrays(**options):
    return data.video_arrays("toy", VIDEOS, **({"clip_frames": 3, "every": 2} | options))


class Stored:
    """The same videos, as a source that streams reads them; it counts the frames that are decoded."""

    def __init__(self):
        self.lengths, self.labels, self.decoded = np.array(LENGTHS), np.arange(4, dtype=np.int32), 0

    def frames(self, video, numbers):
        self.decoded += len(numbers)
        return VIDEOS[video][numbers]


def batches(source, start, count, seed=3, local=range(4)):
    feed = source.feed(seed, 2, 4, local)
    stream = feed.stream(start, 1)
    parts = [jax.tree.map(lambda x: x[0], next(stream)) for _ in range(count)]
    fetch = jax.jit(feed.fetch)
    return [jax.device_get(fetch(feed.data, part, np.int32(start + i))) for i, part in enumerate(parts)]


def pixels(batch):
    return np.round((batch["real"][..., 0, 0, 0] + 1) * 127.5).astype(int)  # [draws, b, t]


def test_clips_are_consecutive_frames_of_one_video_from_every_start():
    source = arrays(labels=np.arange(4), num_classes=4)
    assert len(source) == 4 and source.spec["real"].shape == (3, 8, 8, 1)
    seen = set()
    for batch in batches(source, 0, 40):
        video, frame = np.divmod(pixels(batch), 40)
        assert (video == batch["label"][..., None]).all() and (np.diff(frame, axis=-1) == 2).all()
        seen |= {(int(v), int(f)) for v, f in zip(video[..., 0].ravel(), frame[..., 0].ravel(), strict=True)}
        assert sorted(video[0, :, 0]) == [0, 1, 2, 3]  # an epoch has every video once
    assert seen == {(v, f) for v, n in enumerate(LENGTHS) for f in range(n - 4)}


def test_streamed_clips_are_those_in_memory_and_decode_no_other_frames():
    held = arrays(labels=np.arange(4), num_classes=4)
    reader = Stored()
    streamed = data.Clips("toy", reader, 3, 2, 4, prefetch=1, num_threads=1)
    for a, b in zip(batches(held, 5, 3), batches(streamed, 5, 3), strict=True):
        jax.tree.map(np.testing.assert_array_equal, a, b)
    assert "on the device" in held.summary() and "streamed" in streamed.summary()
    np.testing.assert_array_equal(held.read(np.arange(4))["real"], streamed.read(np.arange(4))["real"])
    feed = streamed.feed(0, 2, 4, range(4))
    shapes = jax.tree.map(lambda x: x.shape, feed.input_spec(1))
    assert jax.tree.map(np.shape, next(feed.stream(0, 1))) == shapes
    fresh = Stored()
    data.Clips("toy", fresh, 3, 2, 4).clips(np.array([1, 2]), np.array([0, 1]))
    assert fresh.decoded == 6


def test_batches_are_a_function_of_seed_and_step():
    """So a run that is killed in the middle of an epoch goes on with the clips that it would have had."""
    whole = batches(arrays(), 0, 6)
    for got, expected in zip(batches(arrays(), 3, 3), whole[3:], strict=True):
        np.testing.assert_array_equal(got["real"], expected["real"])
    halves = [batches(arrays(), 4, 1, local=np.array(local))[0]["real"] for local in ([0, 1], [2, 3])]
    np.testing.assert_array_equal(np.concatenate(halves, 1), whole[4]["real"])
    assert not np.array_equal(batches(arrays(), 0, 1, seed=4)[0]["real"], whole[0]["real"])
    assert arrays().fingerprint() == arrays().fingerprint() != arrays(every=1).fingerprint()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"clip_frames": 6}, "take 11 frames: video 2 has 7, and 3 of 4"),
        ({"every": 0}, "every=0"),
        ({"labels": np.arange(3), "num_classes": 3}, "3 labels of 4 videos"),
    ],
)
def test_arrays_that_are_refused(options, message):
    with pytest.raises(InvalidInputError, match=message):
        arrays(**options)


def test_arrays_of_several_sizes_or_of_floats_are_refused():
    for bad in ([VIDEOS[0], VIDEOS[1][:, :4]], [VIDEOS[0].astype(np.float32)], [], [VIDEOS[0][0]]):
        with pytest.raises(InvalidInputError, match="expected uint8 arrays"):
            data.video_arrays("bad", bad, clip_frames=1)


def test_moving_digits_have_the_parameters_that_are_said():
    made, truth = data.moving_digits_truth(videos=60, seed=1)
    weight = made[..., 0].astype(float)
    middle = np.arange(32) + 0.5
    total = weight.sum((2, 3))
    centre = np.stack([(weight.sum(2) * middle).sum(-1) / total, (weight.sum(3) * middle).sum(-1) / total], -1)
    # a digit's ink is not centred in its 8x8 pixels, by an offset that is the same in all frames
    offset = centre - truth.path
    assert np.abs(offset - offset.mean(1, keepdims=True)).max() < 0.05
    assert np.abs(total / total.mean(1, keepdims=True) - 1).max() < 0.02  # the ink is constant
    assert np.linalg.norm(offset.mean(1), axis=-1).max() < 2.5
    turns = np.linalg.norm(np.diff(truth.path, n=2, axis=1), axis=-1)
    straight, bouncing, circling = (truth.motion == kind for kind in range(3))
    assert turns[straight].max() < 1e-9
    assert np.allclose(truth.path[circling, :16], truth.path[circling, 16:])
    assert np.ptp(turns[circling], axis=1).max() < 1e-9 and turns[circling].min() > 0.1
    for low in (0, 8, 16):  # every clip of 16 frames of a bouncing digit shows a bounce
        assert turns[bouncing, low : low + 14].max(1).min() > 0.1
    side = truth.size[:, None, None] * 9 / 16
    assert (truth.path >= side - 1e-9).all() and (truth.path <= 32 - side + 1e-9).all()
    source = data.moving_digits(labels="cell", videos=60, seed=1)
    np.testing.assert_array_equal(source.reader.labels, 3 * truth.digit + truth.motion)
    assert source.class_names[5] == "1 circling"
    with pytest.raises(InvalidInputError, match="labels='size'"):
        data.moving_digits(labels="size")


def frames_of(video, size=8):
    return [Image.fromarray(frame[..., 0]).convert("RGB").resize((size, size)) for frame in VIDEOS[video]]


def save(path: pathlib.Path, frames, duration=100, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=duration, **options)


def read(root, **options):
    return data.video_folder(
        str(root), **({"image_size": 8, "clip_frames": 3, "labels": False, "channels": 1} | options)
    )


@pytest.fixture
def clips(tmp_path):
    save(tmp_path / "up" / "a.gif", frames_of(0), loop=0)
    save(tmp_path / "up" / "b.webp", frames_of(1), lossless=True)
    save(tmp_path / "down" / "c.png", frames_of(2))
    for number, frame in enumerate(frames_of(3)):
        path = tmp_path / "down" / "d" / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        frame.save(path)
    (tmp_path / "notes.txt").write_text("x")
    return tmp_path


def test_folders_of_gif_webp_apng_and_frames(clips):
    source = read(clips, labels=True)
    assert source.class_names == ("down", "up") and list(source.reader.labels) == [0, 0, 1, 1]
    found = [source.reader.frames(v, np.arange(n))[:, 0, 0, 0] for v, n in enumerate(source.reader.lengths)]
    for values, video in zip(found, (2, 3, 0, 1), strict=True):
        np.testing.assert_array_equal(values, VIDEOS[video][:, 0, 0, 0])
    assert "1 .txt" in source.summary()
    streamed = read(clips, labels=True, resident_bytes=0)
    for a, b in zip(batches(source, 0, 2), batches(streamed, 0, 2), strict=True):
        jax.tree.map(np.testing.assert_array_equal, a, b)


def test_frames_that_stand_still_are_repeated(tmp_path):
    """GIF stores a frame that does not change once, with a longer duration."""
    frames = frames_of(0)
    still = [frames[0], frames[0], frames[0], frames[1], frames[2], frames[2]]
    save(tmp_path / "a.gif", still)
    with Image.open(tmp_path / "a.gif") as picture:
        assert picture.n_frames == 3
    source = read(tmp_path)
    np.testing.assert_array_equal(source.reader.frames(0, np.arange(6))[:, 0, 0, 0], [0, 0, 0, 1, 2, 2])
    assert "3 frames repeated, as their durations say" in source.summary()


def test_rates(tmp_path):
    save(tmp_path / "a.gif", frames_of(0), duration=[100, 140, 100, 250, 100, 100, 100, 100, 100])
    with pytest.raises(InvalidInputError, match=r"a\.gif has frames of 100 to 250 ms: the rate varies; set frame_rate"):
        read(tmp_path)
    assert read(tmp_path, frame_rate=0).reader.lengths == [9]
    made = read(tmp_path, frame_rate=10)  # at 0, 100, ..., 1000 ms; the stored frames start at 0, 100, 240, 340, 590
    np.testing.assert_array_equal(made.reader.frames(0, np.arange(11))[:, 0, 0, 0], [0, 1, 1, 2, 3, 3, 4, 5, 6, 7, 8])
    save(tmp_path / "a.gif", frames_of(0), duration=[100] * 8 + [3000])
    with pytest.raises(InvalidInputError, match=r"a\.gif has 9 frames of 100 to 3000 ms, which would become 38 by"):
        read(tmp_path)
    assert read(tmp_path, frame_rate=0).reader.lengths == [9] and read(tmp_path, frame_rate=10).reader.lengths == [38]
    save(tmp_path / "a.gif", frames_of(0), duration=[0, 100] + [100] * 7)
    with pytest.raises(InvalidInputError, match=r"a\.gif has frames of 0 to 100 ms: the rate varies"):
        read(tmp_path)
    assert read(tmp_path, frame_rate=10).reader.lengths == [8]
    save(tmp_path / "a.gif", frames_of(0), duration=100)
    save(tmp_path / "b.gif", frames_of(1), duration=50)
    with pytest.raises(InvalidInputError, match="clips of 10 to 20 frames per second"):
        read(tmp_path)
    assert list(read(tmp_path, frame_rate=10).reader.lengths) == [9, 6]


def test_what_is_refused_names_the_file(clips, tmp_path):
    with pytest.raises(InvalidInputError, match=r"c\.png has 7 frames; a clip of 8 frames"):
        read(clips, clip_frames=8)
    kept = read(clips, clip_frames=8, skip_short=True)
    assert len(kept) == 3 and "1 clip(s) that are too short" in kept.summary()
    frames_of(0)[0].save(clips / "up" / "still.png")
    with pytest.raises(InvalidInputError, match=r"still\.png is a still image among clips"):
        read(clips)
    os.remove(clips / "up" / "still.png")
    (clips / "up" / "a.gif").write_bytes((clips / "up" / "a.gif").read_bytes()[:-60])
    for resident in (2**20, 0):
        with pytest.raises(InvalidInputError, match=r"a\.gif is corrupt"):
            read(clips, resident_bytes=resident)
    os.remove(clips / "up" / "a.gif")
    frames_of(0, 12)[0].save(clips / "down" / "d" / "3.png")
    with pytest.raises(InvalidInputError, match=r"d: the frames of one clip have the sizes \[\(8, 8\), \(12, 12\)\]"):
        read(clips)
    with pytest.raises(InvalidInputError, match="no clip: expected animated pictures"):
        read(clips / "down" / "d")
    with pytest.raises(InvalidInputError, match=r"1 clips outside of them, b\.webp\. .*CLASS/CLIP/FRAME"):
        read(clips / "up", labels=True)
    with pytest.raises(InvalidInputError, match="frame_rate=-1"):
        read(clips, frame_rate=-1)


def test_clips_of_several_sizes_are_cropped_and_said(tmp_path):
    save(tmp_path / "a.gif", frames_of(0, 12))
    wide = [frame.resize((16, 8)) for frame in frames_of(1)]
    save(tmp_path / "b.webp", wide, lossless=True)
    source = read(tmp_path)
    assert "1 not square, cropped" in source.summary() and source.spec["real"].shape == (3, 8, 8, 1)
    np.testing.assert_array_equal(source.reader.frames(0, np.arange(9))[:, 4, 4, 0], VIDEOS[0][:, 0, 0, 0])


def film(path, codec, frames, rate=10, times=None):
    av = pytest.importorskip("av", reason="films need the extra `video`")
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        stream.options = {"g": "4"}
        for number, frame in enumerate(frames):
            made = av.VideoFrame.from_image(frame.resize((64, 64)))
            made.pts = number if times is None else times[number]
            container.mux(stream.encode(made))
        container.mux(stream.encode(None))


@pytest.mark.parametrize(("name", "codec"), [("a.mp4", "mpeg4"), ("a.webm", "libvpx-vp9"), ("a.mkv", "libx264")])
def test_films(tmp_path, name, codec):
    film(tmp_path / name, codec, frames_of(1) + frames_of(3))
    source = read(tmp_path)
    found = source.reader.frames(0, np.arange(22))[:, 4, 4, 0].astype(int)
    expected = np.concatenate([VIDEOS[1], VIDEOS[3]])[:, 0, 0, 0]
    assert np.abs(found - expected).max() <= 6  # compressed
    streamed = read(tmp_path, resident_bytes=0)
    middle = streamed.reader.frames(0, np.array([13, 17, 15]))[:, 4, 4, 0]
    np.testing.assert_array_equal(middle, source.reader.frames(0, np.array([13, 17, 15]))[:, 4, 4, 0])


def test_films_that_are_refused(tmp_path, monkeypatch):
    film(tmp_path / "a.mkv", "mpeg4", frames_of(1), times=[0, 1, 2, 3, 7, 8, 10, 13, 14, 15, 16, 17])
    assert read(tmp_path).reader.lengths == [18]  # multiples of the shortest: frames that stand still
    (tmp_path / "b.mp4").write_bytes(b"no film" * 100)
    with pytest.raises(InvalidInputError, match=r"b\.mp4 is not a film that can be opened"):
        read(tmp_path)
    monkeypatch.setitem(sys.modules, "av", None)
    data.movies._av.cache_clear()
    try:
        with pytest.raises(InvalidInputError, match=r"pip install 'gan_jax\[video\]'"):
            read(tmp_path)
    finally:
        data.movies._av.cache_clear()


TFDS = os.environ.get("TFDS_DATA_DIR")


@pytest.mark.skipif(not TFDS, reason="TFDS_DATA_DIR is not set")
def test_tfds_videos():
    options = {"data_dir": TFDS, "labels": True, "clip_frames": 16, "every": 2, "split": "train[:40]"}
    source = data.tfds_videos("mocogan_shapes", **options)
    clip = source.read(np.arange(40))
    assert clip["real"].shape == (40, 16, 64, 64, 3) and source.num_classes == 2
    moves = clip["real"].max(-1).astype(float)
    rows = (moves.sum(3) * np.arange(64)).sum(2) / moves.sum((2, 3))
    assert ((rows[:, 0] - rows[:, -1] > 25) == (clip["label"] == 0)).all()  # label 0 moves up
    streamed = data.tfds_videos("mocogan_shapes", **options, resident_bytes=0)
    np.testing.assert_array_equal(streamed.read(np.arange(40))["real"], clip["real"])
    with pytest.raises(InvalidInputError, match="expected a Sequence of Image"):
        data.tfds_videos("mnist", data_dir=TFDS, labels=False, clip_frames=2, video_key="image")
