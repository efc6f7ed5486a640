"""Metrics of clips through the evaluation: reals against themselves, and matrices of contents and motions."""

import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gan_jax import core, data, runtime
from gan_jax import eval as evals
from gan_jax.types import Game, InvalidInputError

MESH = runtime.make_mesh(jax.devices()[:1])


def evaluator(names, source, cache, **options):
    return runtime.Evaluator(names, source, MESH, cache, log=lambda message: None, **options)


def as_samples(source):
    return source.read(np.arange(len(source)))["real"] / np.float32(127.5) - 1


def test_moving_digits_against_themselves_and_frames_in_another_order(tmp_path):
    source = data.moving_digits(labels="cell", videos=1000, frames=20)
    judge = evaluator(["fd_attributes1k", "moving_digits1k"], source, tmp_path)
    found = judge([as_samples(source)])
    assert found["fd_attributes1k"] < 1e-3 and found["moving_digits1k_kl"] < 1e-9
    assert 0.25 < found["moving_digits1k_circling"] < 0.42 and found["moving_digits1k_ink"] < 0.02
    mixed = as_samples(source)[:, np.random.default_rng(0).permutation(16)]
    other = judge([mixed])
    assert other["fd_attributes1k"] > 5 and other["moving_digits1k_bouncing"] > 0.9
    assert other["moving_digits1k_smoothness"] > 5 * found["moving_digits1k_smoothness"]
    real = as_samples(source)
    frozen = judge([np.repeat(real[:, :1], 16, 1)])["fd_attributes1k"]
    flickering = np.where(np.arange(16)[:, None, None, None] % 2, real, (real + 1) * 0.95 - 1)
    assert 0 < judge([flickering])["fd_attributes1k"] < 0.1 * frozen, "a little of what the data never do"
    record = judge.records["fd_attributes1k"]
    assert record["network"]["name"] == "attributes" and record["reference_count"] == 1000


@pytest.mark.skipif(not os.environ.get("TFDS_DATA_DIR"), reason="TFDS_DATA_DIR is not set")
@pytest.mark.long
def test_the_figures_of_moving_shapes(tmp_path):
    source = data.tfds_videos(
        "mocogan_shapes", data_dir=os.environ["TFDS_DATA_DIR"], labels=False, clip_frames=32, split="train[:1000]"
    )
    found = evaluator(["shapes1k"], source, tmp_path)([as_samples(source)])
    assert found["shapes1k_compact"] == 1 and found["shapes1k_color"] < 1e-3 and found["shapes1k_closure"] < 1e-3
    assert 45 < found["shapes1k_path"] < 55 and 0.45 < found["shapes1k_vertical"] < 0.55
    assert found["shapes1k_modes"] == 16 and found["shapes1k_kl"] == 0


def drawn_game():
    """A game without training whose clips are drawn: the content is size and grey, the motion a straight path."""

    def clips(content, motion):
        time = jnp.arange(5)[:, None]
        middle = 16 + motion[:, None] * time / 2  # [n, t, 2]
        pixel = jnp.arange(32) + 0.5
        inside = [jnp.abs(pixel - middle[..., i : i + 1]) < content[:, :1, None] for i in range(2)]
        cover = inside[1][..., None] * inside[0][..., None, :]
        return 2 * (cover * content[:, 1, None, None, None])[..., None] - 1.0

    def draw(key, n):
        sizes = jax.random.uniform(key, (n, 2), minval=jnp.array([3.0, 0.3]), maxval=jnp.array([7.0, 1.0]))
        return sizes, jax.random.uniform(jax.random.fold_in(key, 1), (n, 2), minval=-4, maxval=4)

    def sample(state, key, n, label=None, *, inputs=None, truncation=None):
        return clips(*draw(key, n))

    def matrix(state, key, n, *, truncation=None):
        content, motion = draw(key, 16)
        return clips(jnp.repeat(content, 16, axis=0), jnp.tile(motion, (16, 1)))

    def init(key, batch):
        return core.create_state(key, {})

    return Game(init, (), (), {"sample": sample, "matrix": matrix}, core.normal(2))


def experiment(game):
    source = data.video_arrays("black", np.zeros((300, 5, 32, 32, 1), np.uint8), clip_frames=5)
    return runtime.Experiment(
        game=game, source=lambda: source, preview=runtime.clip_grid, seed=0, batch_size=1, steps=1, sample_every=0
    )


def test_disentanglement_is_of_matrices_which_the_game_makes(tmp_path):
    run = experiment(drawn_game())
    state = run.game.init(jax.random.key(0), {})
    with jax.set_mesh(MESH):
        judge = evaluator(["disentanglement"], run.opened, tmp_path, functions=run.outputs)
        found = judge(lambda function: runtime.stream_samples(run, state, 0, function))
    assert found["disentanglement_size"] > 0.98 and found["disentanglement_color"] > 0.98
    assert found["disentanglement_path"] < 0.02
    plain = experiment(run.game._replace(functions={"sample": run.game.functions["sample"]}))
    with pytest.raises(InvalidInputError, match="no function 'matrix'"):
        evaluator(["disentanglement"], run.opened, tmp_path, functions=plain.outputs)


@pytest.mark.long
def test_a_classifier_of_clips_tells_the_motion_and_shuffled_frames_are_far(tmp_path):
    source = data.moving_digits(labels="motion", videos=1000, image_size=16)
    judge = evaluator(["fcd_video1k", "fcd1k"], source, tmp_path)
    record = judge.records["fcd_video1k"]["network"]
    assert record["over_time"] and record["accuracy"] > 0.9
    clips = as_samples(source)
    same = judge([clips])
    shuffled = judge([clips[:, np.random.default_rng(0).permutation(16)]])
    assert abs(same["fcd_video1k"]) < 1e-2 and shuffled["fcd_video1k"] > 1
    assert abs(shuffled["fcd1k"]) < 0.01 * shuffled["fcd_video1k"]  # single frames are the same


def test_a_classifier_of_clips_needs_clips_and_labels(tmp_path):
    with pytest.raises(InvalidInputError, match="without labels"):
        evaluator(["fcd_video1k"], data.moving_digits(labels=None, videos=20), tmp_path)
    with pytest.raises(InvalidInputError, match="fcd_video compares clips"):
        evaluator(["fcd_video1k"], data.digits(labels=True), tmp_path)


def test_clips_are_folded_to_channels():
    clips = np.arange(2 * 3 * 4 * 4 * 2).reshape(2, 3, 4, 4, 2)
    for made in (evals.folded(clips), evals.folded(jnp.asarray(clips))):
        assert made.shape == (2, 4, 4, 6)
        np.testing.assert_array_equal(made[..., 2:4], clips[:, 1])
