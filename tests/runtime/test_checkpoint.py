"""Checkpoints in the wrong place, beside stray files, and under a reader's eyes; which one is the best."""

import itertools
import json
import shutil
import threading

import pytest

from gan_jax import runtime
from gan_jax.runtime import checkpoint, identity, manifest, retention
from gan_jax.types import InvalidInputError
from tests.runtime.test_runtime import abstract, saved, tree


def of_run(workdir, steps=(1, 2, 3), **options):
    workdir.mkdir(exist_ok=True)
    return saved(workdir, steps, identity=identity.begin(workdir, 1.0), **options)


def reopened(workdir, **options):
    options = {"keep_last": 5, "identity": identity.begin(workdir, 1.0)} | options
    return runtime.Checkpointer(workdir / "checkpoints", **options)


def value(restored):
    return restored[0], float(restored[1]["a"]["w"][0, 0])


def test_a_checkpoint_under_another_steps_name_or_from_another_run_is_put_aside(tmp_path):
    of_run(tmp_path / "one").close()
    of_run(tmp_path / "two", (4, 5)).close()
    one = tmp_path / "one" / "checkpoints"
    shutil.copytree(one / "1", one / "4")
    shutil.copytree(tmp_path / "two" / "checkpoints" / "5", one / "5")
    for read_only in (True, False):
        said = []
        checkpointer = reopened(tmp_path / "one", read_only=read_only)
        assert value(checkpointer.restore_latest(abstract(), said.append)) == (3, 3.0)
        assert "it is of another run" in said[0] and "init_from" in said[0] and "checkpoint 5 is damaged" in said[0]
        assert "it is the checkpoint of step 1, under another name" in said[1]
    assert (tmp_path / "one" / "damaged" / "4").is_dir() and (tmp_path / "one" / "damaged" / "5").is_dir()
    shutil.rmtree(one)
    shutil.copytree(tmp_path / "two" / "checkpoints", one)
    with pytest.raises(InvalidInputError, match="none of the checkpoints"):
        reopened(tmp_path / "one").restore_latest(abstract(), lambda message: None)


def unsealed(directory, *names):
    """Makes the manifest of a checkpoint one of version 0.1, and returns what was in the fields that it lacked."""
    path = directory / manifest.NAME
    body = json.loads(path.read_text())
    taken = {name: body.pop(name) for name in ("step", "run", "metrics", "sha256")}
    path.write_text(json.dumps(body | {"sha256": manifest._hash(body)}))
    return taken


def test_checkpoints_of_before_are_restored_and_named_from_now_on(tmp_path):
    saved(tmp_path, (1, 2)).close()
    for step in (1, 2):
        unsealed(tmp_path / "checkpoints" / str(step))
    checkpointer = reopened(tmp_path)
    assert value(checkpointer.restore_latest(abstract())) == (2, 2.0)
    checkpointer.save(3, tree(3.0))
    checkpointer.close()
    assert value(reopened(tmp_path).restore_latest(abstract())) == (3, 3.0)
    unsealed(tmp_path / "checkpoints" / "3")
    assert value(reopened(tmp_path).restore_latest(abstract(), lambda message: None)) == (2, 2.0), "not of before"


def test_a_run_whose_checkpoints_are_gone_does_not_begin_again(tmp_path):
    of_run(tmp_path, ()).close()
    identity.check_not_lost(tmp_path)  # it has saved none yet
    of_run(tmp_path, (1,)).close()
    (tmp_path / "checkpoints").rename(tmp_path / "moved")
    for read in (identity.check_not_lost, lambda workdir: identity.begin(workdir, 1.0)):
        with pytest.raises(
            InvalidInputError, match=r"checkpoints of .* are gone.*Move them back, or .*remove .*run.json"
        ):
            read(tmp_path)
    (tmp_path / "run.json").unlink()
    assert not identity.begin(tmp_path, 1.0).saved


BEST = {"best_metric": "m", "best_mode": "max", "every": 10, "keep_last": 1}


def with_metrics(workdir, values, **options):
    """Saves a checkpoint for each step, with its value of the metric; None where it was not measured."""
    workdir.mkdir(exist_ok=True)
    checkpointer = reopened(workdir, **(BEST | options))
    for step, one in values.items():
        checkpointer.save(step, tree(float(step)), None if one is None else {"m": one, "step": step})
    checkpointer.wait()
    return checkpointer


def test_metrics_are_sealed_and_a_changed_one_moves_nothing_in_silence(tmp_path):
    checkpointer = with_metrics(tmp_path, {10: 5.0, 20: 9.0, 30: 1.0, 40: float("nan")}, keep_last=9)
    assert checkpointer.best_step() == 20
    checkpointer.close()
    path = tmp_path / "checkpoints" / "30" / manifest.NAME
    path.write_text(path.read_text().replace('"m": 1.0', '"m": 11.0'))
    said = []
    assert reopened(tmp_path, **BEST, read_only=True).best_step(said.append) == 20
    assert len(said) == 1 and "checkpoint 30 is damaged" in said[0] and "has changed" in said[0]


def test_metrics_of_before_count_unless_they_have_changed(tmp_path):
    with_metrics(tmp_path, {10: 5.0, 20: 9.0}, keep_last=9).close()
    for step, kept in ((10, '{"m": 5.0}'), (20, '{"m": 4.0}')):
        directory = tmp_path / "checkpoints" / str(step)
        (directory / "metrics").mkdir()
        (directory / "metrics" / "metrics").write_text(kept)
        body = json.loads((directory / manifest.NAME).read_text())
        body = {"about": body["about"], "files": manifest._files(directory)}
        (directory / manifest.NAME).write_text(json.dumps(body | {"sha256": manifest._hash(body)}))
    (tmp_path / "run.json").unlink()
    assert reopened(tmp_path, **BEST, read_only=True).best_step() == 10
    assert value(reopened(tmp_path, **BEST).restore_latest(abstract())) == (20, 20.0)
    (tmp_path / "checkpoints" / "10" / "metrics" / "metrics").write_text('{"m": 3.0}')
    said = []
    assert reopened(tmp_path, **BEST, read_only=True).best_step(said.append) == 20
    assert "metrics/metrics has changed" in said[0]


def test_the_best_is_kept_whatever_a_signal_saves_between(tmp_path):
    """A checkpoint off schedule has no metrics, and is not kept for good either."""
    measured = {10: 5.0, 20: 9.0, 30: 1.0, 40: 2.0}
    kept = with_metrics(tmp_path / "whole", measured, keep_every=15).steps()
    assert kept == [20, 30, 40]
    for stop in (15, 35):
        steps = dict(sorted({**measured, stop: None}.items()))
        checkpointer = with_metrics(tmp_path / str(stop), steps, keep_every=15)
        assert (checkpointer.steps(), checkpointer.best_step()) == (kept, 20), stop


def test_stray_files_named_like_temporary_ones_are_ignored(tmp_path):
    home = tmp_path / "checkpoints"
    home.mkdir()
    names = ["2.orbax-checkpoint-tmp", "x.orbax-checkpoint-tmp", "3.orbax-checkpoint-tmp-9", "7", "notes", "2.tmp"]
    for name in names:
        (home / name).write_text("stray")
    of_run(tmp_path, (1, 2, 3)).close()
    assert reopened(tmp_path).steps() == [1, 2, 3]
    (home / "2.orbax-checkpoint-tmp.1").mkdir()
    (home / "5.orbax-checkpoint-tmp.1").mkdir()
    checkpointer = reopened(tmp_path)
    (home / "4.orbax-checkpoint-tmp.1").mkdir()  # while the run goes on
    for step in (4, 5):
        checkpointer.save(step, tree(float(step)))
    checkpointer.close()
    assert value(reopened(tmp_path).restore_latest(abstract())) == (5, 5.0)


@pytest.mark.parametrize("text", ["{", "[]", '{"item_handlers": 3}'])
def test_orbaxs_own_record_may_be_damaged(text, tmp_path):
    """Orbax does without it, or its reader says that it can be removed."""
    of_run(tmp_path, (1, 2)).close()
    path = tmp_path / "checkpoints" / "1" / "_CHECKPOINT_METADATA"
    path.write_text(text)
    try:
        reader = reopened(tmp_path)
    except InvalidInputError as error:
        assert str(path) in str(error) and "remove it" in str(error)
        path.unlink()
        reader = reopened(tmp_path)
    assert value(reader.restore_latest(abstract())) == (2, 2.0)
    assert float(reader.restore(1, abstract())["a"]["w"][0, 0]) == 1.0


def test_a_checkpoint_that_is_deleted_while_a_reader_opens_the_directory(tmp_path, monkeypatch):
    of_run(tmp_path, (1,)).close()
    left, listed = [2], checkpoint._Manager._load_checkpoint_infos

    def gone(manager, *arguments, **options):
        left[0] -= 1
        if left[0] >= 0:
            raise FileNotFoundError("checkpoints/0")
        return listed(manager, *arguments, **options)

    monkeypatch.setattr(checkpoint._Manager, "_load_checkpoint_infos", gone)
    assert value(reopened(tmp_path, read_only=True).restore_latest(abstract())) == (1, 1.0)
    left[0] = 10**6
    with pytest.raises(InvalidInputError, match=r"deleted faster than they can be read.*keep_last"):
        reopened(tmp_path, read_only=True)
    with pytest.raises(FileNotFoundError):
        reopened(tmp_path)  # to write there


def test_a_reader_beside_a_writer_that_keeps_one_checkpoint(tmp_path):
    writer, ended = of_run(tmp_path, (1,), keep_last=1), threading.Event()

    def write():
        for step in itertools.count(2):
            if ended.is_set():
                return
            writer.save(step, tree(float(step)))
            writer.wait()

    thread = threading.Thread(target=write)
    thread.start()
    said = []
    try:
        for _ in range(8):
            with reopened(tmp_path, keep_last=1, read_only=True) as reader:
                step, found = value(reader.restore_latest(abstract(), said.append))
                assert found == step
    finally:
        ended.set()
        thread.join()
        writer.close()
    assert said == []


def test_a_checkpoint_that_is_deleted_is_never_half_there(tmp_path, monkeypatch):
    """It is moved away as a whole; so a process that is killed while it deletes leaves nothing under its name."""
    writer, halves, ended = of_run(tmp_path, (1,), keep_last=1), [], threading.Event()

    def watch():
        while not ended.is_set():
            for path in (tmp_path / "checkpoints").glob("[0-9]*"):
                if path.name.isdigit() and not manifest.is_there(path) and path.is_dir():
                    halves.append(path.name)

    watcher = threading.Thread(target=watch)
    watcher.start()
    for step in range(2, 20):
        writer.save(step, tree(float(step)))
        writer.wait()
    ended.set()
    watcher.join()
    assert not halves and identity.steps_in(tmp_path / "checkpoints") == [19]

    monkeypatch.setattr(retention.Bin, "_delete", lambda self: None)  # as if killed before
    writer.save(20, tree(20.0))
    writer.wait()
    assert (tmp_path / "checkpoints" / retention.BIN / "19").is_dir()
    assert value(reopened(tmp_path).restore_latest(abstract())) == (20, 20.0)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["20"]
    writer.close()


def test_what_a_killed_process_has_not_deleted_is_deleted_at_the_end(tmp_path):
    of_run(tmp_path).close()
    with pytest.raises(KeyError), reopened(tmp_path, keep_last=1):
        raise KeyError
    with reopened(tmp_path, keep_last=1) as checkpointer:
        assert checkpointer.steps() == [1, 2, 3], "not before the end, nor after an error"
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["3"]
