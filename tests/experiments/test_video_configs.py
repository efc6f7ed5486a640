"""The configs of clips: every choice of critic, labels and augmentation gives a game that fits its data."""

import os

import jax
import numpy as np
import pytest
from PIL import Image

from gan_jax import core, runs
from gan_jax.types import InvalidInputError

SHAPES = {"data_dir": os.environ.get("TFDS_DATA_DIR", ""), "split": "train[:20]"}
NEEDS_TFDS = [pytest.mark.slow, pytest.mark.skipif(not SHAPES["data_dir"], reason="TFDS_DATA_DIR is not set")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root, random = tmp_path_factory.mktemp("clips"), np.random.default_rng(0)
    for name in ("left/0.gif", "left/1.gif", "right/0.gif"):
        frames = [Image.fromarray(x) for x in random.integers(0, 256, (14, 16, 16, 3), np.uint8)]
        (root / name).parent.mkdir(exist_ok=True)
        frames[0].save(root / name, save_all=True, append_images=frames[1:], duration=100)
    return str(root)


def traced(name, **values):
    """Traces one iteration on shapes alone; returns the names of what is logged."""
    run = runs.build(name, **values)
    source = run.open_source()
    feed = source.feed(0, core.batches_per_iteration(run.game), 4, range(4))
    sent = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), feed.input_spec(1))
    batches = jax.eval_shape(lambda data, inputs: feed.fetch(data, inputs, np.int32(0)), feed.data, sent)
    first = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), batches)
    state = jax.eval_shape(run.game.init, jax.random.key(0), first)
    return set(jax.eval_shape(core.make_step(run.game), state, batches)[1])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("values", "logged"),
    [
        ({"clip_frames": 10, "categories": 3}, "generator/information"),
        ({"clip_frames": 4, "critic": "frames", "num_classes": 2, "augment": True}, "discriminator/classification"),
        ({"clip_frames": 4, "critic": "frames"}, "discriminator/r1"),
    ],
)
def test_folders(values, logged, folder):
    assert logged in traced("videos_folder", data_dir=folder, image_size=16, width=4, **values)


@pytest.mark.parametrize(
    "values",
    [
        pytest.param({"critic": "frames"}, marks=NEEDS_TFDS),
        pytest.param({"recurrent": False, "image_critic": False}, marks=NEEDS_TFDS),
    ],
)
def test_shapes(values):
    assert "discriminator/information" in traced("mocogan_shapes", width=4, video_width=4, **SHAPES, **values)


def test_what_is_refused(folder):
    for values, message in (({"critic": "clip"}, "critic='clip'"), ({"image_size": 12}, "image_size=12")):
        with pytest.raises(InvalidInputError, match=message):
            traced("videos_folder", data_dir=folder, **({"clip_frames": 4, "width": 4} | values))
