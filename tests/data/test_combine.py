"""Data sources composed of other sources, and transformations of their examples."""

import dataclasses
import itertools

import jax
import numpy as np
import pytest

from gan_jax import data
from gan_jax.types import InvalidInputError

A = data.Arrays("a", {"real": np.arange(12, dtype=np.uint8)[:, None]})
B = data.Arrays("b", {"real": 100 + np.arange(12, dtype=np.uint8)[:, None]})
SHORT = data.Arrays("short", {"real": 200 + np.arange(5, dtype=np.uint8)[:, None], "label": np.arange(5)}, 5)


def batches(source, count, *, seed=0, start=0, draws=1, size=4):
    feed = source.feed(seed, draws, size, range(size))
    sent = itertools.islice(feed.stream(start, 1), count)
    fetched = [feed.fetch(feed.data, jax.tree.map(lambda x: x[0], one), start + i) for i, one in enumerate(sent)]
    return [jax.tree.map(lambda x: np.asarray(x)[0], one) for one in fetched]


def pixels(values):
    return np.rint((values + 1.0) * 127.5).astype(int)[:, 0]


class Reader:
    def __len__(self):
        return 12

    def read(self, indices):
        return {"real": B.arrays["real"][indices]}


@pytest.mark.parametrize("second", [B, data.Records("records", Reader())])
def test_pairs_stay_together_when_shuffled(second):
    both = data.zip_sources(a=A, b=second)
    seen = []
    for batch in batches(both, 3):
        np.testing.assert_array_equal(pixels(batch["a"]) + 100, pixels(batch["b"]))
        seen += list(pixels(batch["a"]))
    assert sorted(seen) == list(range(12)) and set(both.spec) == {"a", "b"} and len(both) == 12
    np.testing.assert_array_equal(both.read(np.array([3]))["b"], [[103]])


def test_domains_without_pairs_are_drawn_independently():
    both = data.unpaired(a=A, b=SHORT)
    found = batches(both, 15)
    a, b = (np.concatenate([pixels(batch[name]) for batch in found]) for name in "ab")
    assert len(both) == 12 and both.num_classes == 5 and set(found[0]) == {"a", "b", "label"}
    for values, size in ((a, 12), (b, 5)):
        for low in range(0, 60, size):
            assert len(set(values[low : low + size])) == size, "not every example once an epoch"
    assert len(set(zip(a % 12, b, strict=True))) > 30, "the second goes along with the first"
    again = batches(both, 2, start=3)
    np.testing.assert_array_equal(again[0]["b"], found[3]["b"])
    assert both.fingerprint() != data.unpaired(a=A, b=B).fingerprint()


def test_what_makes_no_pairs_is_told():
    for wrong, message in (
        (lambda: data.zip_sources(a=A, b=SHORT), r"12 \(a\), 5 \(b\).*use unpaired"),
        (lambda: data.zip_sources(a=data.ring(), b=data.ring()), "no examples to count"),
        (lambda: data.unpaired(a=SHORT, b=SHORT), "labels in one at most"),
        (lambda: data.unpaired(real=A, b=B), "other names than 'real'"),
    ):
        with pytest.raises(InvalidInputError, match=message):
            wrong()


def test_pairs_are_flipped_and_cut_alike_and_by_the_step():
    images = np.random.default_rng(0).integers(0, 256, (12, 8, 8, 1), np.uint8)
    pair = data.zip_sources(a=data.Arrays("a", {"real": images}), b=data.Arrays("b", {"real": 255 - images}))
    made = data.transformed(pair, data.flip(), data.crop(5, "a", "b"))
    assert made.spec["a"].shape == (5, 5, 1) and "to a (5, 5, 1)" in made.summary()
    found = batches(made, 6)
    for batch in found:
        np.testing.assert_allclose(batch["a"], -batch["b"], atol=1e-6)
    plain = batches(pair, 6)
    local_indices = set()
    for cut, whole in zip(found, plain, strict=True):
        for small, large in zip(cut["a"], whole["a"], strict=True):
            matches = [
                (turned, top, left)
                for turned, view in ((False, large), (True, large[:, ::-1]))
                for top in range(4)
                for left in range(4)
                if np.array_equal(view[top : top + 5, left : left + 5], small)
            ]
            assert len(matches) == 1
            local_indices.add(matches[0])
    assert {turned for turned, *_ in local_indices} == {False, True} and len({place[1:] for place in local_indices}) > 6
    np.testing.assert_array_equal(batches(made, 1, start=4)[0]["a"], found[4]["a"])
    assert not np.array_equal(batches(made, 1, seed=1)[0]["a"], found[0]["a"])
    with pytest.raises(InvalidInputError, match=r"crop\(9\)"):
        data.transformed(pair, data.crop(9)).spec  # noqa: B018
    with pytest.raises(InvalidInputError, match="c: not in the batch, which has a, b"):
        data.transformed(pair, data.flip("c")).spec  # noqa: B018


def test_clips_of_videos():
    videos = np.arange(12, dtype=np.float32)[:, None] * 100 + np.arange(10, dtype=np.float32)
    source = data.Arrays("videos", {"real": (videos[..., None, None, None] / 2000).astype(np.float32)})
    made = data.transformed(source, data.clip(3, every=2))
    frames = np.rint(np.concatenate([batch["real"][..., 0, 0, 0] for batch in batches(made, 6)]) * 2000) % 100
    np.testing.assert_array_equal(np.diff(frames, axis=1), np.full((24, 2), 2.0))
    assert set(frames[:, 0]) <= set(range(6)) and len(set(frames[:, 0])) > 3
    with pytest.raises(InvalidInputError, match="takes 21 frames: the videos have 10"):
        data.transformed(source, data.clip(11, every=2)).spec  # noqa: B018


def test_examples_changed_on_the_host_depend_on_seed_and_place_alone():
    def change(example, rng):
        return {"real": example["real"][:1] // 2 + rng.integers(0, 50, 1).astype(np.uint8)}

    made = dataclasses.replace(data.Records("records", Reader()), change=change)
    first, again, other = batches(made, 4), batches(made, 1, start=2), batches(made, 1, seed=1)
    np.testing.assert_array_equal(first[2]["real"], again[0]["real"])
    assert not np.array_equal(first[0]["real"], other[0]["real"]) and made.spec["real"].shape == (1,)
    noise = np.concatenate([pixels(batch["real"]) for batch in first])
    assert len(set(noise)) > 8


@pytest.mark.parametrize("depth", [1, 2])
def test_sources_of_a_pair_draw_for_themselves(depth):
    """Two noises from one key would be the same noise; also in a pair of pairs, and under other names."""
    zeros = data.Arrays("zeros", {"real": np.zeros((64, 2), np.float32)})

    def noise(key, batch):
        return {name: x + jax.random.uniform(key, x.shape) for name, x in batch.items()}

    one = zeros
    for _ in range(depth):
        one = data.transformed(one, noise)
    inner = data.zip_sources(a=one, b=one)
    pair = data.zip_sources(x=data.renamed(inner, a="a", b="b"), y=data.renamed(inner, c="a", d="b"))
    [batch], [again] = (batches(pair, 1, size=64) for _ in range(2))
    drawn = np.stack([batch[name].ravel() for name in "abcd"])
    assert np.abs(np.corrcoef(drawn) - np.eye(4)).max() < 0.5
    assert all(np.array_equal(batch[name], again[name]) for name in "abcd")


def test_each_level_of_changes_draws_for_itself():
    """If two flips shared one draw, they would cancel each other, and nothing would be flipped."""
    row = np.tile(np.array([0, 255], np.uint8).reshape(1, 1, 2, 1), (64, 1, 1, 1))
    once = data.transformed(data.Arrays("rows", {"real": row}), data.flip())
    for twice in (data.transformed(once, data.flip()), data.transformed(data.renamed(once, real="real"), data.flip())):
        [batch] = batches(twice, 1, size=64)
        flipped = (batch["real"][:, 0, 0, 0] > 0).mean()
        assert 0.2 < flipped < 0.8
