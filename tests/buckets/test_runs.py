"""Runs in buckets, against emulators: the same state and log as on a disk, whatever is killed, hangs or fails."""

import json
import random
import re
import signal
import threading
import time

import pytest

import gan_jax
from gan_jax import buckets, runs, runtime
from gan_jax.buckets import BucketPath
from tests.processes import CONFORMANCE, finish, metrics, result, run, run_together, start, together, when

STEPS = ("--config.steps=60", "--config.checkpoint_every=20", "--config.report_every=10", "--config.keep_last=2")
RUN = (f"--config={CONFORMANCE}", *STEPS)


@pytest.fixture(scope="module")
def disk(tmp_path_factory):
    """The run on a disk that nothing disturbs."""
    workdir = tmp_path_factory.mktemp("disk") / "run"
    run("train", f"--workdir={workdir}", *RUN)
    return workdir


def same(home, disk):
    """Checks that a run in a bucket has the state, the log and the checkpoints of one on a disk."""
    assert result(home)["state_sha256"] == result(disk)["state_sha256"]
    assert metrics(home) == metrics(disk)
    assert runtime.identity.steps_in(home / "checkpoints") == runtime.identity.steps_in(disk / "checkpoints")
    assert not {path.parts[len(home.parts) + 1] for path in (home / "checkpoints").files()} - {"40", "60"}


def at_request(front, matches, number, act):
    """Calls `act` once, before the front answers the request of that number that matches; that one fails."""
    seen = []

    def fault(method, path):
        if re.search(matches, f"{method} {path.replace('%2F', '/')}"):
            seen.append(path)
            if len(seen) == number:
                act()
                return 503
        return None

    front.fault = fault


def passing(front):
    front.fault = lambda method, path: None


CUTS = {
    "a save cut in half": r"(PUT|POST) .*checkpoints/40/default",
    "a save cut before its manifest": r"(PUT|POST) .*checkpoints/40/gan_jax.json",
    "a deletion cut in half": r"DELETE .*checkpoints/20/default",
    "a line of the log": r"(PUT|POST) .*metrics.jsonl",
}


@pytest.mark.slow
@pytest.mark.parametrize(("service", "cut"), list(zip(["gs", "s3"] * 2, CUTS, strict=True)), indirect=["service"])
def test_killed_and_continued_as_on_a_disk(service, home, disk, cut):
    front = service[1]
    process = start("train", f"--workdir={home}", *RUN)
    at_request(front, CUTS[cut], 1 if "before" in cut else 3, process.kill)
    try:
        assert finish(process)[0] == -signal.SIGKILL
    finally:
        passing(front)
    if "save" in cut:
        assert runtime.identity.steps_in(home / "checkpoints") == [20]
    output = run("train", f"--workdir={home}", *RUN)
    assert ("continuing from the checkpoint of step" in output) or cut == "a line of the log"
    assert "damaged" not in output  # what is incomplete does not exist
    same(home, disk)


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("service", ["gs"], indirect=True)
def test_a_signal_and_what_can_be_done_with_the_run(service, home, disk, tmp_path):
    process = start("train", f"--workdir={home}", *RUN)
    when(process, lambda line: line.startswith("step 20/"))
    process.send_signal(signal.SIGTERM)
    code, output = finish(process)
    assert code == 75, output
    assert f"the run that {home}" not in run("train", f"--workdir={home}")  # --workdir alone continues it
    same(home, disk)
    run("sample", f"--workdir={home}", "--num=4", f"--out={tmp_path / 'a.npy'}")
    run("sample", f"--workdir={disk}", "--num=4", f"--out={tmp_path / 'b.npy'}")
    run("sample", f"--workdir={home}", "--num=4", f"--out={home / 'c.npy'}")
    written = {(tmp_path / "a.npy").read_bytes(), (tmp_path / "b.npy").read_bytes(), (home / "c.npy").read_bytes()}
    assert len(written) == 1
    again = home.parent / "again"
    run("train", f"--workdir={again}", *RUN, f"--init_from={home}", "--config.steps=20")
    assert json.loads((again / "init_from.json").read_text())["checkpoints"] == f"{home}/checkpoints"
    board = [path.name for path in (home / "tensorboard").iterdir()]
    assert len(board) == 2 and (home / "tensorboard" / board[0]).read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("service", ["s3"], indirect=True)
def test_two_trainers_on_one_workdir(home, disk):
    first = start("train", f"--workdir={home}", *RUN, "--config.steps=100000")
    when(first, lambda line: line.startswith("step 20/"))
    output = run("train", f"--workdir={home}", *RUN, code=2)
    assert f"workdir '{home}' is in use by another run (process {first.pid} on " in output
    first.kill()
    finish(first)
    run("train", f"--workdir={home}", *RUN, "--config.steps=60")  # free at once: the process was killed on this machine
    assert result(home)["state_sha256"] == result(disk)["state_sha256"]


@pytest.mark.long
@pytest.mark.parametrize("service", ["s3"], indirect=True)
def test_a_holder_that_hangs_and_comes_back_writes_nothing(home, disk):
    first = start("train", f"--workdir={home}", *RUN, "--config.steps=100000")
    when(first, lambda line: line.startswith("step 20/"))
    first.send_signal(signal.SIGSTOP)
    output = run("train", f"--workdir={home}", *RUN)
    assert re.search(r"waiting for at most 2 s to see whether process \d+ on .* still lives", output)
    before = {str(path): path.read_bytes() for path in home.files()}
    first.send_signal(signal.SIGCONT)
    code, output = finish(first)
    assert code == 2 and "was lost" in output and "Nothing is written any more" in output, output
    assert {str(path): path.read_bytes() for path in home.files()} == before
    same(home, disk)


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("service", ["gs"], indirect=True)
def test_a_bucket_that_fails_for_a_while(service, home, disk):
    front = service[1]
    process = start("train", f"--workdir={home}", *RUN)
    at_request(front, CUTS["a save cut in half"], 1, lambda: setattr(front, "fault", lambda method, path: 503))
    threading.Timer(8, passing, [front]).start()
    try:
        code, output = finish(process)
    finally:
        passing(front)
    assert code == 0, output
    same(home, disk)


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize(
    ("service", "place"), [("gs", CUTS["a save cut in half"]), ("s3", CUTS["a line of the log"])], indirect=["service"]
)
def test_a_bucket_that_fails_for_good(service, home, disk, place):
    front = service[1]
    process = start("train", f"--workdir={home}", *RUN, GAN_JAX_BUCKET_PATIENCE="2")
    at_request(front, place, 1, lambda: setattr(front, "fault", lambda method, path: 0))
    try:
        code, output = finish(process)
    finally:
        passing(front)
    assert code == 2, output
    assert "does not answer" in output and "run the same command again" in output and str(home) in output
    run("train", f"--workdir={home}", *RUN)
    same(home, disk)


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("service", ["s3"], indirect=True)
def test_two_processes_one_of_which_is_killed(home, tmp_path):
    two = (*RUN, "--config.sgd=True", "--config.fsdp=8")
    run_together(f"--workdir={tmp_path / 'disk'}", *two, devices=4)
    first, second = together(f"--workdir={home}", *two, "--step_timeout=20", devices=4)
    when(first, lambda line: line.startswith("step 30/"))
    second.kill()
    assert finish(first)[0] in (69, 134)
    outputs = run_together(f"--workdir={home}", *two, devices=4)
    assert "continuing from the checkpoint of step" in outputs[0]
    assert result(home)["state_sha256"] == result(tmp_path / "disk")["state_sha256"]
    assert metrics(home) == metrics(tmp_path / "disk")
    one = gan_jax.load(home).sample(4)  # with one process, what two have saved
    assert (one == gan_jax.load(tmp_path / "disk").sample(4)).all()


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("service", ["gs"], indirect=True)
def test_from_python_and_back_from_a_copy(home, tmp_path):
    """A notebook's run; its objects, copied to a disk, are a workdir there."""
    experiment = runs.build("digits", steps=4, report_every=2, checkpoint_every=2, width=2, sample_every=4)
    there, here = (runtime.train(experiment, place, log=lambda text: None) for place in (str(home), tmp_path / "disk"))
    assert there.state_sha256 == here.state_sha256
    assert (gan_jax.load(str(home)).sample(2) == there.sample(2)).all()
    with pytest.raises(buckets.StorageError, match="was lost"):
        lease = buckets.take(f"{home}/lock")
        lease.release()
        lease.check()
    for path in home.files():
        copy = tmp_path.joinpath("copy", *path.parts[len(home.parts) :])
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    longer = runs.build("digits", steps=6, report_every=2, checkpoint_every=2, width=2, sample_every=4)
    ends = [runtime.train(longer, place, log=lambda text: None) for place in (tmp_path / "copy", home)]
    assert ends[0].step == 6 and ends[0].state_sha256 == ends[1].state_sha256


@pytest.mark.long
@pytest.mark.parametrize("service", ["s3"], indirect=True)
def test_a_damaged_checkpoint_is_put_aside(home):
    experiment = runs.build("digits", steps=4, report_every=2, checkpoint_every=2, width=2, sample_every=0)
    whole = runtime.train(experiment, home, log=lambda text: None)
    [data, *_] = [path for path in (home / "checkpoints" / "4").files() if "/d/" in str(path)]
    data.write_bytes(data.read_bytes()[:-1])
    told = []
    again = runtime.train(experiment, home, log=told.append)
    assert (
        any("checkpoint 4 is damaged" in text for text in told) and (home / "damaged" / "4" / "gan_jax.json").is_file()
    )
    assert again.state_sha256 == whole.state_sha256
    assert [line["step"] for line in metrics(home)] == [2, 4]


def test_refusals(service, home):
    scheme, front = service
    flags = ("--config=digits", "--config.steps=2", "--config.width=2", "--config.report_every=2")
    patience = {"GAN_JAX_BUCKET_PATIENCE": "0.5"}
    output = run("train", f"--workdir={scheme}://no-such-bucket/run", *flags, code=2, **patience)
    assert "no-such-bucket" in output and "check its name" in output, output
    with front.failing(403):
        output = run("train", f"--workdir={home}", *flags, code=2, **patience)
    assert "permission denied" in output and "log in on this machine" in output and "Traceback" not in output
    with front.failing(0):
        output = run("sample", f"--workdir={home}", code=2, **patience)
    assert "does not answer" in output and "check the network" in output and "Traceback" not in output
    output = run("sample", f"--workdir={home}", code=2)
    assert "is the workdir of a run?" in output or "cannot be read" in output
    output = run("sweep", "--engine=study", f"--workdir={home}", *flags, "--config.best_metric=samples/diversity",
                 "--space=seed=0,1", code=2)  # fmt: skip
    assert "needs a database" in output and "--storage=URL" in output


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train", "--workdir=gs:/bucket/run"], "expected gs://BUCKET/DIRECTORY"),
        (["train", "--workdir=gs://bucket"], "a directory of its own in the bucket"),
        (["train", "--workdir=az://bucket/run"], "gs://BUCKET/DIRECTORY or s3://BUCKET/DIRECTORY"),
        (["train", "--workdir=run", "--compilation_cache=gs://bucket/cache"], "expected a path on this machine"),
        (["evaluate", "--workdir=run", "--metrics=fcd1k", "--cache=s3://bucket/x"], "expected a path on this machine"),
    ],
)
def test_urls_that_are_refused(words, message):
    output = run(*words, code=2)
    assert message in output


@pytest.mark.parametrize("service", ["s3"], indirect=True)
def test_paths_of_a_bucket_are_no_paths_of_a_disk(home):
    """What a bucket cannot do raises, instead of being done on the disk under a strange name."""
    assert isinstance(home, BucketPath)
    for name in ("rename", "replace", "touch", "chmod", "symlink_to", "stat", "rglob", "rmdir", "resolve"):
        assert not hasattr(home, name), name


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("service", ["gs"], indirect=True)
def test_a_population(home, tmp_path):
    flags = ("--config=ring", "--config.width=8", "--config.steps=80", "--config.report_every=40",
             "--config.checkpoint_every=40", "--config.sample_every=0", "--config.metrics=mixture",
             "--config.evaluate_every=40", "--config.best_metric=eval/mixture_kl", "--space=seed=0,1,2")  # fmt: skip
    run("sweep", f"--workdir={tmp_path / 'disk'}", *flags)
    process = start("sweep", f"--workdir={home}", *flags)
    when(process, lambda line: line.startswith("step 40/"))
    process.kill()
    finish(process)
    run("sweep", f"--workdir={home}", *flags)

    def rows(workdir):
        found = [json.loads(line) for line in (workdir / "results.jsonl").read_text().splitlines()]
        return [{name: value for name, value in row.items() if name != "images_per_second"} for row in found]

    assert rows(home) == rows(tmp_path / "disk")
    names = {path.parts[len(home.parts)] for path in home.files()}
    assert {"results.csv", "sweep.json", "curves.png", "trials", "members", "members.json"} <= names
    run("evaluate", f"--workdir={next((home / 'trials').iterdir())}", "--metrics=mixture")


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("service", ["s3"], indirect=True)
def test_a_study_with_a_database(home, tmp_path):
    """One worker is killed; the other one takes its trial, and continues it from its checkpoint."""
    flags = ("--engine=study", f"--workdir={home}", f"--storage=sqlite:///{tmp_path / 'study.db'}", "--config=ring",
             "--config.width=8", "--config.steps=120", "--config.report_every=20", "--config.checkpoint_every=20",
             "--config.sample_every=0", "--config.metrics=mixture", "--config.evaluate_every=20",
             "--config.best_metric=eval/mixture_kl", "--num_trials=3", "--space=seed=0,1,2")  # fmt: skip
    first = start("sweep", *flags)
    when(first, lambda line: line.startswith("step 40/"))
    second = start("sweep", *flags)
    when(second, lambda line: "trial 1" in line)
    first.kill()
    finish(first)
    code, output = finish(second)
    assert code == 0, output
    assert "abandoned by another worker" in output and "continuing from the checkpoint" in output
    rows = [json.loads(line) for line in (home / "results.jsonl").read_text().splitlines()]
    assert [row["status"] for row in rows] == ["done"] * 3
    assert [line["images"] for line in metrics(home / "trials" / "00000")] == sorted(
        {line["images"] for line in metrics(home / "trials" / "00000")}
    )


def disturb(process, front, rng):
    """Disturbs a run in a bucket at a random moment; returns how."""
    how = rng.choice(["killed", "killed", "killed at a request", "terminated", "stopped for a while", "failing"])
    if how == "killed at a request":
        at_request(front, "", rng.randrange(1, 120), process.kill)
        return how
    time.sleep(rng.uniform(0.5, 6.0))
    if how == "failing":
        front.fault = lambda method, path: rng.choice([503, 429, 0, None])
        time.sleep(rng.uniform(1.0, 5.0))
    else:
        process.send_signal({"killed": signal.SIGKILL, "terminated": signal.SIGTERM}.get(how, signal.SIGSTOP))
        time.sleep(rng.uniform(0.5, 4.0) if how == "stopped for a while" else 0.0)
        process.send_signal(signal.SIGCONT)
    return how


@pytest.mark.slow
@pytest.mark.long
def test_a_storm(service, home, tmp_path):
    """A run that is killed, stopped, starved and continued at random ends as one on a disk."""
    front, rng = service[1], random.Random(service[0])
    longer = (*RUN, "--config.steps=120", "--config.sample_every=40")
    run("train", f"--workdir={tmp_path}", *longer)
    for _ in range(30):
        process = start("train", f"--workdir={home}", *longer)
        how = disturb(process, front, rng)
        try:
            if how == "failing":
                passing(front)
            code, output = finish(process)
        finally:
            passing(front)
        assert code in (0, 75, 130, 143, -signal.SIGKILL, -signal.SIGTERM), (how, output)
        if code == 0:
            break
    assert result(home)["state_sha256"] == result(tmp_path)["state_sha256"]
    assert metrics(home) == metrics(tmp_path)
    assert runtime.identity.steps_in(home / "checkpoints") == runtime.identity.steps_in(tmp_path / "checkpoints")
    assert not (home / "damaged").exists()
