"""Objects, leases and logs in a bucket, against emulators of both services."""

import json
import multiprocessing
import re
import threading
import time

import jax.numpy as jnp
import pytest

from gan_jax import buckets, runtime
from gan_jax.buckets import BucketPath, StorageError, lease, objects, path, tails


def test_paths(home):
    assert str(home / "a.json") == f"{home}/a.json" and f"{home}".count("://") == 1
    assert (home / "a" / "b").parent.name == "a" and BucketPath(str(home)) == home
    (home / "x" / "1" / "a.json").write_text("{}")
    (home / "x" / "20" / "b.json").write_text("ü")
    (home.parent / "one-more" / "c").write_bytes(b"not below")
    assert [x.name for x in home.glob("x/*")] == ["1", "20"]
    assert [x.name for x in home.glob("x/[0-9]/*.json")] == ["a.json"]
    assert home.is_dir() and not home.is_file() and (home / "x").exists()
    assert (home / "x/20/b.json").read_text() == "ü" and (home / "x/20/b.json").open("rb").read() == "ü".encode()
    with pytest.raises(ValueError, match="not with mode 'w'"):
        (home / "x/20/b.json").open("w")
    (home / "x/1/a.json").unlink()
    assert not (home / "x/1").exists()
    with pytest.raises(FileNotFoundError):
        (home / "x/1/a.json").unlink()
    (home / "x/1/a.json").unlink(missing_ok=True)
    (home / "x").remove_tree()
    assert not home.exists() and (home.parent / "one-more").exists()


@pytest.mark.parametrize("text", ["gs:/b/x", "s3://", "gs://b", "gs:///x", "az://b/x", "gs://b/x/../y", "http://h/x"])
def test_urls_that_name_no_directory_of_a_bucket(text):
    assert isinstance(path.parse(text), str)


def test_writes_depend_on_the_generation(home):
    at = home.at
    first = at.write("k", b"1", only_if=objects.absent())
    assert first and at.write("k", b"2", only_if=objects.absent()) is None
    second = at.write("k", b"2", only_if=first)
    assert second and at.write("k", b"3", only_if=first) is None
    assert at.read("k") == (b"2", second)
    at.delete_all({"k": first, "none": None})
    assert at.read("k") == (b"2", second), "it has another generation"
    at.delete_all({"k": second})
    assert at.read("k") == (None, objects.absent())


def test_of_many_takers_one_gets_the_lease(home):
    taken, start = [], threading.Barrier(8)

    def take():
        start.wait()
        made = lease.Lease(home.at, f"{home.key}/lock", objects.absent())
        try:
            made.renew()
            taken.append(made)
        except StorageError:
            pass

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(taken) == 1


def test_a_renewal_that_came_though_every_answer_was_lost(home):
    held = buckets.take(f"{home}/lock")
    write = held._bucket.write

    def unanswered(*arguments, **options):
        write(*arguments, **options)
        raise StorageError("no answer")

    held._bucket.write = unanswered
    with pytest.raises(StorageError, match="no answer"):
        held.renew()
    del held._bucket.write
    held.renew()
    held.release()


def elsewhere(url):
    """Pretends that a lease is held on another machine."""
    found = lease._held[url]
    found._bucket.write(found._key, json.dumps({"owner": "x", "pid": 7, "host": "other"}).encode())
    del lease._held[url]


def test_a_lease_that_is_renewed_is_refused_and_one_that_is_not_ends(home, monkeypatch):
    url = f"{home}/lock"
    first = buckets.take(url)
    assert buckets.holding(f"{home}/a/b") is first and buckets.holding(f"{home}-other/a") is None
    # The record says that the holder runs on another machine, so only time tells.
    monkeypatch.setattr(lease, "_machine", lambda: "")
    first.renew()
    began = time.monotonic()
    assert "process" in buckets.take(url)  # refused as soon as it is renewed
    assert time.monotonic() - began < 1.5
    elsewhere(url)
    assert isinstance(buckets.take(url), str)  # it has changed since it was last seen
    second = buckets.take(url)
    assert time.monotonic() - began > 2 and isinstance(second, buckets.Lease)
    with pytest.raises(StorageError, match="was lost"):
        first.check(surely=True)
    with pytest.raises(StorageError, match="was lost"):
        first.put(f"{home.key}/x", b"late")
    second.release()
    assert isinstance(buckets.take(url), buckets.Lease)  # at once


def hold(url, pipe):
    pipe.send(isinstance(buckets.take(url), buckets.Lease))
    time.sleep(60)


def test_the_lease_of_a_process_that_was_killed_here_is_free_at_once(home):
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=hold, args=(f"{home}/lock", theirs))
    process.start()
    assert ours.recv()
    assert isinstance(buckets.take(f"{home}/lock"), str)
    process.kill()
    process.join()
    began = time.monotonic()
    assert isinstance(buckets.take(f"{home}/lock"), buckets.Lease)
    assert time.monotonic() - began < 1


def test_a_late_write_of_a_former_holder_is_refused_by_the_bucket(home):
    """The holder was stopped between its check and its write, and the next one has written the object meanwhile."""
    url, key = f"{home}/lock", f"{home.key}/result.json"
    first = buckets.take(url)
    first.put(key, b"first")
    elsewhere(url)
    record = home.at.read(f"{home.key}/lock")[1]
    second = lease._begun(lease.Lease(home.at, f"{home.key}/lock", record))
    second.put(key, b"second")
    assert first._bucket.write(key, b"late", only_if=first._known[key]) is None
    assert home.at.read(key)[0] == b"second"


@pytest.mark.parametrize("when", ["before it lists", "after it has checked its lease"])
def test_a_holder_that_hangs_deletes_nothing_of_the_next_one(home, monkeypatch, when):
    """It was about to remove what a save that was cut had left; the next holder has saved that checkpoint meanwhile."""
    held, at = buckets.take(f"{home}/lock"), home.at
    checkpoint = home / "checkpoints" / "100"
    (checkpoint / "manifest").write_bytes(b"cut")

    def others_save():
        monkeypatch.undo()
        at.write(held._key, json.dumps({"owner": "x", "pid": 7, "host": "other"}).encode())
        for name in ("manifest", "params"):
            at.write(f"{checkpoint.key}/{name}", b"of the next")

    keys, check = at.keys, held.check
    if when == "before it lists":
        monkeypatch.setattr(at, "keys", lambda prefix: [others_save(), *keys(prefix)][1:])
        with pytest.raises(StorageError, match="was lost"):
            checkpoint.remove_tree()
    else:
        monkeypatch.setattr(held, "check", lambda **options: [check(**options), others_save()][0])
        checkpoint.remove_tree()
    assert {path.name: path.read_bytes() for path in checkpoint.files()} == {
        "manifest": b"of the next", "params": b"of the next"
    }  # fmt: skip


def test_a_bucket_that_answers_nobody_ends_no_lease(home, monkeypatch):
    """Its holder could not renew it either: after the outage it has a whole term to do so."""
    url, at = f"{home}/lock", home.at
    monkeypatch.setattr(lease, "_machine", lambda: "")
    at.write(f"{home.key}/lock", json.dumps({"owner": "x", "beat": 1, "pid": 7, "host": "other"}).encode())
    looks, read = [], at.read

    def outage(key):
        looks.append(key)
        if len(looks) == 3:
            time.sleep(1.2 * objects.lease_seconds())
            threading.Timer(0.5 * objects.lease_seconds(), renewed).start()
        return read(key)

    def renewed():
        at.write(f"{home.key}/lock", json.dumps({"owner": "x", "beat": 2, "pid": 7, "host": "other"}).encode())

    monkeypatch.setattr(at, "read", outage)
    assert buckets.take(url) == "process 7 on other"


def lines(home, name="log.jsonl"):
    return buckets.read_log(home / name).decode().splitlines()


@pytest.mark.parametrize("leased", [True, False])
def test_logs_are_whole_in_parts(home, monkeypatch, leased):
    monkeypatch.setattr(tails, "_PART", 50)
    held = buckets.take(f"{home}/lock") if leased else None
    for number in range(12):
        buckets.append_line(home / "log.jsonl", b"line %09d\n" % number)
        buckets.append_line(home / "other.jsonl", b"x\n")
    buckets.settle()
    assert lines(home) == [f"line {number:09d}" for number in range(12)]
    assert len(tails.part_keys(home.at, f"{home.key}/log.jsonl")) > 1
    buckets.write_log(home / "log.jsonl", b"".join(b"line %09d\n" % number for number in range(5)))
    assert lines(home) == [f"line {number:09d}" for number in range(5)]
    buckets.append_line(home / "log.jsonl", b"next\n")
    buckets.settle()
    assert lines(home)[-2:] == ["line 000000004", "next"] and len(lines(home)) == 6
    assert lines(home, "other.jsonl") == ["x"] * 12
    if held:
        held.release()


def test_two_processes_append_to_one_log_without_a_lease(home):
    from gan_jax.buckets.tails import Tail

    one, other = (Tail(home.at, f"{home.key}/eval.jsonl", None) for _ in range(2))
    for number in range(4):
        for name, tail in ((b"one", one), (b"other", other)):
            tail.waiting = b"%s %d\n" % (name, number)
            tail.write()
    assert sorted(lines(home, "eval.jsonl")) == sorted(f"{name} {x}" for name in ("one", "other") for x in range(4))


def test_a_write_whose_answer_is_lost_is_not_repeated(home, service):
    """The connection breaks after the object is written; TensorStore repeats the request, and its condition fails."""
    front, broken = service[1], []
    passing = front.fault

    def fault(method, where):
        if method in ("PUT", "POST") and "log.jsonl" in where and not broken:
            broken.append(where)
            monkey()
        return passing(method, where)

    def monkey():
        kept = front.fetch

        def fetch(method, where, *arguments):
            answer = kept(method, where, *arguments)
            if method in ("PUT", "POST"):
                front.fetch = kept
                return 503, [], b""
            return answer

        front.fetch = fetch

    held = buckets.take(f"{home}/lock")
    front.fault = fault
    buckets.append_line(home / "log.jsonl", b"once\n")
    buckets.settle()
    buckets.append_line(home / "log.jsonl", b"twice\n")
    buckets.settle()
    assert broken and lines(home) == ["once", "twice"]
    held.release()


def test_failures_that_pass_and_failures_that_stay(home, service, monkeypatch):
    front = service[1]
    with front.failing(503):
        threading.Timer(2.0, lambda: setattr(front, "fault", lambda method, where: None)).start()
        (home / "a").write_bytes(b"1")  # repeated until the bucket answers
    assert (home / "a").read_bytes() == b"1"
    monkeypatch.setenv("GAN_JAX_BUCKET_PATIENCE", "0.5")
    objects.bucket.cache_clear()
    for status, word in ((503, "does not answer"), (0, "does not answer"), (403, "permission denied")):
        with front.failing(status), pytest.raises(StorageError, match=word):
            (home / "a").write_bytes(b"2")
    assert (home / "a").read_bytes() == b"1"
    with pytest.raises(StorageError, match="bucket"):
        BucketPath(f"{service[0]}://no-such-bucket/x").is_dir()


def test_the_error_of_a_log_is_raised_where_it_is_waited_for(home, service, monkeypatch):
    held = buckets.take(f"{home}/lock")
    buckets.append_line(home / "log.jsonl", b"1\n")
    buckets.settle()
    with service[1].failing(403):
        buckets.append_line(home / "log.jsonl", b"2\n")
        with pytest.raises(StorageError, match="permission denied"):
            buckets.settle()
        with pytest.raises(StorageError, match="permission denied"):
            buckets.append_line(home / "log.jsonl", b"3\n")
    held.release()


@pytest.mark.parametrize("name", ["GAN_JAX_BUCKET_PATIENCE", "GAN_JAX_LEASE_SECONDS"])
@pytest.mark.parametrize("value", ["-1", "0", "much", "inf", "nan"])
def test_seconds_that_are_none(name, value, monkeypatch):
    monkeypatch.setenv(name, value)
    with pytest.raises(StorageError, match=name):
        (objects.patience if "PATIENCE" in name else objects.lease_seconds)()


@pytest.mark.parametrize("service", ["s3"], indirect=True)
def test_a_checkpoint_is_never_ahead_of_its_log(home, service):
    held = buckets.take(f"{home}/lock")
    where = r"PUT .*metrics.jsonl"
    with (
        runtime.Checkpointer(home / "checkpoints", keep_last=1) as checkpointer,
        service[1].failing(only=lambda method, path: re.search(where, f"{method} {path}")),
    ):
        buckets.append_line(home / "metrics.jsonl", b"line\n")
        checkpointer.save(1, {"x": jnp.zeros(3)})
        deadline = time.monotonic() + 30
        while not any(path.parent.name == "1" for path in (home / "checkpoints").files()):
            assert time.monotonic() < deadline
        time.sleep(1)
        assert not checkpointer.steps()  # its files are there, and its manifest waits
        service[1].fault = lambda method, path: None
        checkpointer.wait()
        assert checkpointer.steps() == [1] and lines(home, "metrics.jsonl") == ["line"]
    held.release()
