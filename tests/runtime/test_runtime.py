"""Checkpoints, logs, schedules, pictures."""

import dataclasses
import itertools
import json
import os
import pathlib
import shutil
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gan_jax import core, runtime
from gan_jax.distributed import mesh as meshes
from gan_jax.runtime import board
from gan_jax.runtime.logging import Logger, Pace
from gan_jax.types import InvalidInputError
from tests.conformance.games import GAMES, REAL
from tests.experiments import conformance


def tree(value=1.0):
    return {"a": {"w": jnp.full((3, 2), value), "n": jnp.int32(4)}, "key": jax.random.key(7), "empty": {}}


def abstract(of=None):
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), of or tree())


def saved(path: pathlib.Path, steps=(1, 2, 3), **options) -> runtime.Checkpointer:
    checkpointer = runtime.Checkpointer(path / "checkpoints", **({"keep_last": 5} | options))
    for step in steps:
        checkpointer.save(step, tree(float(step)))
    checkpointer.wait()
    return checkpointer


def test_restores_every_array_and_key_in_a_new_process_like_opening(tmp_path):
    saved(tmp_path).close()
    step, back = runtime.Checkpointer(tmp_path / "checkpoints", keep_last=5).restore_latest(abstract())
    assert step == 3 and runtime.state_sha256(back) == runtime.state_sha256(tree(3.0))
    assert jax.tree.structure(back) == jax.tree.structure(tree())
    assert float(jax.random.normal(back["key"])) == float(jax.random.normal(jax.random.key(7)))


def test_keeps_the_last_and_every_kth(tmp_path):
    assert saved(tmp_path, range(1, 8), keep_last=2, keep_every=3).steps() == [3, 6, 7]


def test_no_checkpoint_is_none(tmp_path):
    assert saved(tmp_path, ()).restore_latest(abstract()) is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t["a"].pop("w"), r"only in the checkpoint: a\.w"),
        (lambda t: t.update(extra=jnp.zeros(1)), "missing from the checkpoint: extra"),
        (lambda t: t["a"].update(w=jnp.zeros((3, 3))), r"a\.w: \(3, 2\) float32 in the checkpoint, \(3, 3\) float32"),
        (lambda t: t["a"].update(w=jnp.zeros((3, 2), jnp.bfloat16)), r"a\.w: \(3, 2\) float32 .* bfloat16 in the game"),
    ],
)
def test_a_checkpoint_of_something_else_is_refused_with_the_differences(tmp_path, change, message):
    checkpointer, other = saved(tmp_path), tree()
    change(other)
    with pytest.raises(InvalidInputError, match=message):
        checkpointer.restore_latest(abstract(other))
    assert checkpointer.steps() == [1, 2, 3]


def damage(path: pathlib.Path) -> None:
    """Cuts every file of a checkpoint in half."""
    for file in path.rglob("*"):
        if file.is_file():
            file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def test_a_truncated_checkpoint_is_named_kept_aside_and_the_one_before_restored(tmp_path):
    saved(tmp_path).close()
    damage(tmp_path / "checkpoints" / "3")
    said = []
    checkpointer = runtime.Checkpointer(tmp_path / "checkpoints", keep_last=5)
    step, back = checkpointer.restore_latest(abstract(), said.append)
    assert step == 2 and runtime.state_sha256(back) == runtime.state_sha256(tree(2.0))
    assert "checkpoint 3 is damaged" in said[0] and "checkpoint 3 is kept aside" in said[1]
    assert (tmp_path / "damaged" / "3").is_dir()
    checkpointer.save(3, tree(3.0))  # the run reaches the step again, and saves again
    checkpointer.wait()
    assert checkpointer.restore_latest(abstract())[0] == 3


def cut(content: bytes) -> bytes:
    return content[:-5]


def flip(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


@pytest.mark.parametrize("harm", [cut, flip])
def test_a_damaged_file_never_restores_something_else(tmp_path, harm):
    """For every file, either it is not needed, or the checkpoint before is restored."""
    noise = {"w": jax.random.normal(jax.random.key(0), (64, 64)), "small": jnp.arange(3)}
    trees = {step: jax.tree.map(lambda x, n=step: x * n, noise) for step in (1, 2)}
    checkpointer = runtime.Checkpointer(tmp_path / "all", keep_last=5)
    for step, saved_tree in trees.items():
        checkpointer.save(step, saved_tree)
    checkpointer.close()
    noticed = 0
    files = [file for file in (tmp_path / "all" / "2").rglob("*") if file.is_file()]
    for number, file in enumerate(files):
        root = tmp_path / str(number) / "checkpoints"
        shutil.copytree(tmp_path / "all", root)
        victim = root / file.relative_to(tmp_path / "all")
        victim.write_bytes(harm(victim.read_bytes()))
        said = []
        step, back = runtime.Checkpointer(root, keep_last=5).restore_latest(abstract(noise), said.append)
        assert runtime.state_sha256(back) == runtime.state_sha256(trees[step]), file
        assert (step == 1) == any("checkpoint 2 is damaged" in message for message in said)
        noticed += step == 1
    assert noticed >= 2  # at least the metadata and the data


def test_all_damaged_is_an_error_and_reading_moves_nothing(tmp_path):
    saved(tmp_path, (1, 2)).close()
    for step in (1, 2):
        damage(tmp_path / "checkpoints" / str(step))
    for read_only in (True, False, False):
        checkpointer = runtime.Checkpointer(tmp_path / "checkpoints", keep_last=5, read_only=read_only)
        with pytest.raises(InvalidInputError, match="none of the checkpoints"):
            checkpointer.restore_latest(abstract(), lambda message: None)
        assert checkpointer.steps() == [1, 2]


def test_the_hash_sees_every_part():
    def digest(t):
        return runtime.state_sha256(t)

    base = digest(tree())
    assert digest(tree()) == base
    assert digest(tree(1.0000001)) != base
    assert digest(tree() | {"key": jax.random.key(8)}) != base
    assert digest({**tree(), "a": {"w": jnp.ones((2, 3)), "n": jnp.int32(4)}}) != base
    assert digest({**tree(), "a": {"v": jnp.ones((3, 2)), "n": jnp.int32(4)}}) != base


def test_all_finite():
    assert bool(runtime.all_finite(tree()))
    assert not bool(runtime.all_finite(tree(np.nan))) and not bool(runtime.all_finite(tree(np.inf)))


def lines(path):
    return [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]


def test_logs_append_and_take_back_what_runs_again(tmp_path):
    first = Logger(tmp_path, 0)
    for step in (10, 20, 30):
        first.report({"step": step, "g/loss": 1.0 / step})
    first.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 40, "g/lo')  # killed in the middle of a line
    again = Logger(tmp_path, 20)
    assert again.last["step"] == 20
    again.report({"step": 30, "g/loss": 3.0})
    again.close()
    assert [(x["step"], x["g/loss"]) for x in lines(tmp_path)] == [(10, 0.1), (20, 0.05), (30, 3.0)]


def test_a_line_of_the_log_is_on_disk_when_it_is_told(tmp_path, monkeypatch):
    """Otherwise a machine that fails could lose a line that a callback has already acted on."""
    happened, sync, path = [], os.fsync, tmp_path / "metrics.jsonl"

    def synced(descriptor):
        sync(descriptor)
        if os.path.samestat(os.fstat(descriptor), path.stat()):
            happened.append(("on disk", [line["step"] for line in lines(tmp_path)]))

    monkeypatch.setattr(os, "fsync", synced)
    logger = Logger(tmp_path, 0, watch=lambda record: happened.append(("told", record["step"])))
    for step in (10, 20):
        logger.report({"step": step})
    logger.close()
    assert happened == [("on disk", [10]), ("told", 10), ("on disk", [10, 20]), ("told", 20)]


def test_without_tensorboard_the_other_logs_are_complete(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    told = []
    logger = Logger(tmp_path, 0, log=told.append)
    logger.report({"step": 5, "g/loss": 0.25})
    picture = logger.picture(runtime.image_grid(np.zeros((4, 8, 8, 1), np.float32), 2), 5)
    logger.close()
    assert len(told) == 1 and "tensorboardX" in told[0]
    assert [x["step"] for x in lines(tmp_path)] == [5] and picture.exists()


def summaries(path):
    """The values of a file of TensorBoard by tag: step, number, and the whole."""
    from tensorboardX.proto import event_pb2

    content, found, offset = path.read_bytes(), {}, 0
    while offset < len(content):
        length = int.from_bytes(content[offset : offset + 8], "little")
        event = event_pb2.Event.FromString(content[offset + 12 : offset + 12 + length])
        found |= {value.tag: (event.step, value.simple_value, value) for value in event.summary.value}
        offset += 12 + length + 4
    return found


def test_evaluations_and_members_of_sweeps_have_boards(tmp_path):
    board.note(tmp_path, 40, {"evaluated/fid": 3.5}, print)
    board.note(tmp_path, 80, {"evaluated/fid": 2.5}, print)
    steps = [summaries(path)["evaluated/fid"][:2] for path in sorted((tmp_path / "tensorboard").iterdir())]
    assert steps == [(40, 3.5), (80, 2.5)]
    lines = [{"step": step, "loss": 1.0 / step} for step in (1, 2)]
    for _ in range(2):  # the second replaces the first
        board.write_run(tmp_path / "00003", "study", {"rate": 0.1}, lines, ["loss"])
    [path] = (tmp_path / "00003").iterdir()
    found = summaries(path)
    assert found["loss"][:2] == (2, 0.5)
    assert b"rate" in found["_hparams_/session_start_info"][2].metadata.plugin_data.content
    assert b"loss" in found["_hparams_/experiment"][2].metadata.plugin_data.content


def test_tensorboard_has_the_numbers(tmp_path):
    config = {"learning_rate": 1e-3, "loss": "hinge", "sizes": [1, 2], "best_metric": "eval/fcd2k"}
    logger = Logger(tmp_path, 0, config=config)
    logger.report({"step": 5, "images": 320, "g/loss": 0.25})
    logger.picture(runtime.image_grid(np.zeros((4, 8, 8, 1), np.float32), 2), 5)
    logger.close()
    [events] = (tmp_path / "tensorboard").iterdir()
    found = summaries(events)
    assert found["g/loss"][:2] == (5, 0.25) and found["images"][:2] == (5, 320.0) and "samples" in found
    assert b"`hinge`" in found["config/text_summary"][2].tensor.string_val[0]
    start = found["_hparams_/session_start_info"][2].metadata.plugin_data.content
    assert tmp_path.name.encode() in start and b"learning_rate" in start
    assert b"eval/fcd2k" in found["_hparams_/experiment"][2].metadata.plugin_data.content
    assert (tmp_path / "samples" / "step_00000005.png").is_file()


def test_pace():
    pace = Pace(step=100, steps=200, batch_size=64)
    pace.began = pace.time = pace.time - 10.0  # ten seconds ago
    images, rate, eta = pace.measure(150)
    assert images == 150 * 64 and rate == pytest.approx(320, rel=0.01) and eta == pytest.approx(10, rel=0.01)


def experiment(**options):
    settings = {"seed": 0, "batch_size": 16, "steps": 6000, "report_every": 200, "sample_every": 1000}
    build, source = GAMES["vanilla"]
    settings |= {"checkpoint_every": 1000} | options
    return runtime.Experiment(game=build(), source=lambda: source, preview=runtime.image_grid, **settings)


@pytest.mark.parametrize(
    ("start", "options", "length"),
    [
        (0, {"steps_per_dispatch": 50}, 50),
        (0, {"steps_per_dispatch": 64}, 50),
        (30, {"steps_per_dispatch": 50}, 10),
        (0, {"steps_per_dispatch": 50, "report_every": 7}, 1),
        (0, {"steps_per_dispatch": 50, "sample_every": 0}, 50),
    ],
)
def test_a_dispatch_meets_every_boundary(start, options, length):
    assert experiment(**options).dispatch_length(start) == length


@pytest.mark.parametrize(
    ("options", "message"),
    [({"batch_size": 0}, "batch_size=0"), ({"steps": -1}, "steps=-1"), ({"seed": -1}, "seed=-1")],
)
def test_schedules_that_are_refused(options, message):
    with pytest.raises(InvalidInputError, match=message):
        experiment(**options)


def test_a_game_without_prior_needs_pictures_to_translate():
    with pytest.raises(InvalidInputError, match="conditions is missing"):
        runtime.Experiment(
            game=GAMES["cyclegan"][0](), source=lambda: REAL, preview=runtime.image_grid, seed=0, batch_size=1, steps=1
        )


def test_what_keeps_dispatches_short_is_told():
    assert experiment(steps=6001, steps_per_dispatch=50).boundaries(0) == "    steps=6001 is not a multiple of it"


def test_columns_of_a_grid():
    assert [runtime.grid_columns(n, k) for n, k in ((64, None), (80, 10), (64, 1000), (10, 10), (200, 100))] == [
        8, 10, 8, 4, 15
    ]  # fmt: skip


def test_labels_that_the_game_does_not_have_are_refused():
    build, source = GAMES["cgan"]
    conditional = runtime.Experiment(
        game=build(), source=lambda: source, preview=runtime.image_grid, seed=0, batch_size=16, steps=1
    )
    first = {name: value[:1] for name, value in source.arrays.items()}
    state = jax.jit(conditional.game.init)(
        jax.random.key(0), {k: v.astype(np.float32 if k == "real" else np.int32) for k, v in first.items()}
    )
    with pytest.raises(InvalidInputError, match=r"label=\[-1, 3\]: this game has classes 0 to 2"):
        runtime.sample_grid(conditional, state, jax.random.key(0), 4, label=np.array([0, 3, 1, -1]))


def test_no_two_samples_of_a_stream_are_alike_and_it_is_the_same_every_time():
    run = experiment()
    state = jax.jit(run.game.init)(jax.random.key(0), {"real": jnp.zeros((16, 8, 8, 1))})

    def three(seed):
        return np.concatenate(list(itertools.islice(runtime.stream_samples(run, state, seed), 3))).reshape(3 * 256, -1)

    samples = three(5)
    assert len(np.unique(samples, axis=0)) == 3 * 256
    np.testing.assert_array_equal(three(5), samples)


def test_a_batch_that_the_devices_do_not_divide():
    mesh = runtime.make_mesh(jax.devices()[:8])
    meshes.check_batch_size(16, mesh)
    with pytest.raises(InvalidInputError, match=r"batch_size=20 .* 8 devices: .* 16 or 24"):
        meshes.check_batch_size(20, mesh)


def test_image_grid():
    images = np.stack([np.full((8, 8, 3), value, np.float32) for value in (-1, 0, 1)])
    grid = np.asarray(runtime.image_grid(images, 2))
    assert grid.shape == (2 * 42 + 2, 2 * 42 + 2, 3)  # 8 pixels enlarged five times, with a gap of 2
    assert (
        grid[20, 20].tolist() == [0] * 3 and grid[20, 60].tolist() == [128] * 3 and grid[60, 20].tolist() == [255] * 3
    )
    assert runtime.image_grid(images[..., :1], 3).mode == "L"
    two, four = images[..., :2], np.concatenate([images, images[..., :1]], -1)  # red and green; one more than shown
    assert np.asarray(runtime.image_grid(two, 2))[60, 20].tolist() == [255, 255, 0]
    np.testing.assert_array_equal(runtime.image_grid(four, 2), grid)


def test_scatter_is_a_picture_of_the_points():
    centers = np.array([[0.0, 0.0], [1.0, 1.0]])
    empty = np.asarray(runtime.scatter(np.zeros((1, 2)), 1, centers=centers).convert("RGB"))
    full = np.asarray(
        runtime.scatter(np.random.default_rng(0).normal(size=(500, 2)), 1, centers=centers).convert("RGB")
    )
    assert empty.shape == (500, 500, 3) and (empty != full).mean() > 0.02


def test_the_root_key_of_init_is_no_iterations_key():
    key = jax.random.key(0)
    seen = {tuple(jax.random.key_data(jax.random.fold_in(key, step)).tolist()) for step in range(100)}
    assert tuple(jax.random.key_data(core.init_key(key)).tolist()) not in seen


def test_a_step_is_traced_once_for_a_start_and_its_program(mesh):
    """Tracing takes most of the time of a second start, when the compiled program is cached."""
    config, traces = conformance.get_config(), []

    def run(*args):
        traces.append(args)
        return core.alternating.run(*args)

    experiment = dataclasses.replace(conformance.build(config), update_rule=core.alternating._replace(run=run))
    source, one = experiment.open_source(), mesh(1)
    runtime.build_program(experiment, source, one, runtime.build_start(experiment, source.spec, one))
    assert len(traces) == 1
