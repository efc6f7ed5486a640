"""Stacked-MNIST: independent channels, every image equally often, and modes that match the digits."""

import itertools

import numpy as np
import pytest

from gan_jax import data
from gan_jax.types import InvalidInputError

# Image i is filled with i, and shows i modulo 10.
IMAGES = np.broadcast_to(np.arange(40, dtype=np.uint8)[:, None, None, None], (40, 4, 4, 1))
SINGLE = data.Arrays("numbers", {"real": IMAGES, "label": np.arange(40) % 10}, 10)


def batches(source, count, seed=0, start=0, local_indices=range(8)):
    feed = source.feed(seed, 1, 8, local_indices)
    stream = feed.stream(start, 1)
    return [np.asarray(feed.fetch(feed.data, sent[0], 0)["real"])[0] for sent in itertools.islice(stream, count)]


def test_channels_go_through_all_images_each_in_its_own_order():
    source = data.stacked(SINGLE)
    assert source.spec["real"].shape == (4, 4, 3) and source.num_classes is None
    epoch = np.concatenate(batches(source, 5))
    assert epoch.shape == (40, 4, 4, 3) and epoch.dtype == np.float32
    shown = np.rint((epoch[:, 0, 0] + 1) * 127.5).astype(int)
    assert all(sorted(channel) == list(range(40)) for channel in shown.T)
    assert len({tuple(channel) for channel in shown.T}) == 3
    assert (epoch == epoch[:, :1, :1]).all()


def test_a_batch_is_a_function_of_seed_and_step_on_any_number_of_hosts():
    source = data.stacked(SINGLE)
    whole = batches(source, 9)
    np.testing.assert_array_equal(batches(source, 4, start=5), whole[5:])
    parts = [batches(source, 9, local_indices=local_indices) for local_indices in (range(4), range(4, 8))]
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), whole)
    assert not np.array_equal(batches(source, 1, seed=1), whole[:1])


def test_modes_are_those_of_what_is_read():
    source = data.stacked(SINGLE, image_size=6)
    read = source.read(np.arange(30))["real"]
    assert read.shape == (30, 6, 6, 3) and read.dtype == np.uint8
    assert (read[:, 0] == 0).all() and (read[:, :, -1] == 0).all()
    digits = read[:, 2, 2] % 10
    assert (source.modes(np.arange(30)) == digits @ [100, 10, 1]).all()
    assert source.fingerprint() != data.stacked(SINGLE).fingerprint()
    assert "stacked by 3" in source.summary() and len(source) == 40


def test_what_is_no_digits_is_refused():
    for wrong, match in (
        (data.Arrays("float", {"real": IMAGES / 255, "label": np.arange(40) % 10}, 10), "expected uint8"),
        (data.Arrays("unlabelled", {"real": IMAGES}), "with labels"),
        (data.Arrays("few", {"real": IMAGES, "label": np.arange(40) % 5}, 5), "the ten digits"),
    ):
        with pytest.raises(InvalidInputError, match=match):
            data.stacked(wrong)
    with pytest.raises(InvalidInputError, match="expected 4 or more"):
        data.stacked(SINGLE, image_size=3)
