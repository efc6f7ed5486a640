"""Failures around a run: they end in the documented way, and nothing is lost."""

import functools
import json
import re
import resource
import shutil
import signal
import subprocess

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gan_jax import runtime
from gan_jax.runtime import identity
from gan_jax.types import InvalidInputError
from tests.experiments import conformance
from tests.processes import CONFORMANCE, finish, metrics, result, run, start, when

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group(name="faults")]
STEPS = 200
RUN = (f"--config={CONFORMANCE}", f"--config.steps={STEPS}")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The workdir of an undisturbed run."""
    workdir = tmp_path_factory.mktemp("whole") / "run"
    run("train", f"--workdir={workdir}", *RUN)
    return workdir


def same(workdir, whole):
    assert result(workdir)["state_sha256"] == result(whole)["state_sha256"]
    assert metrics(workdir) == metrics(whole)


@pytest.fixture(scope="module")
def half(tmp_path_factory):
    """Returns a function that copies the first half of that run, which is trained once, to a path."""
    trained = tmp_path_factory.mktemp("half") / "run"
    run("train", f"--workdir={trained}", RUN[0], "--config.steps=100")
    return functools.partial(shutil.copytree, trained)


def refused(workdir, *flags, **env):
    output = run("train", f"--workdir={workdir}", *RUN, *flags, code=2, **env)
    assert "Traceback" not in output and output.count("error:") == 1, output
    return output


def test_no_room_for_a_checkpoint(whole, half, tmp_path):
    """Files can no longer grow, so writing fails as on a full disk. What was saved before is kept."""
    workdir = half(tmp_path / "run")
    process = start("train", f"--workdir={workdir}", *RUN, "--config.checkpoint_every=10", "--config.report_every=100")
    when(process, lambda line: line.startswith("compiling"))
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (3000, 3000))
    code, output = finish(process)
    assert code == 2, output
    # TensorStore's threads may print before the message, and Orbax's coroutines after it.
    assert re.search("^error: .*could not be written.*free some space or fix the storage", output, re.MULTILINE), output
    run("train", f"--workdir={workdir}", *RUN)
    same(workdir, whole)


def test_a_full_disk(whole, tmp_path):
    """The workdir is a file system of its own, with little space."""
    workdir = tmp_path / "run"
    workdir.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(workdir)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a file system takes rights that this process has not; see the test above")
    try:
        flags = (*RUN, "--config.keep_last=100", "--config.checkpoint_every=10")
        output = run("train", f"--workdir={workdir}", *flags, code=2)
        # Orbax's threads may print at the same time, in the middle of a line.
        assert re.search("error: .*could not be written(.|\\n)*No space left", output), output
        saved = shutil.copytree(workdir, tmp_path / "roomy")
        for file in saved.rglob("*.tmp"):
            file.unlink()
        shutil.rmtree(workdir / "checkpoints")
        (workdir / "run.json").unlink()  # so that the run may begin again
        (workdir / "ballast").write_bytes(bytes(200_000))  # now there is no space for the log
        flags = (*RUN, "--config.report_every=1", "--config.steps_per_dispatch=1")
        output = run("train", f"--workdir={workdir}", *flags, code=2)  # TensorBoard's thread prints after the message
        assert re.search(r"^error: workdir .* could not be written: .*No space left", output, re.MULTILINE), output
    finally:
        subprocess.run(["umount", str(workdir)], check=True)
    run("train", f"--workdir={saved}", *RUN)
    same(saved, whole)


# Runs a command that must obey file modes, even as root: drops CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH from the
# capabilities that exec may give, and executes the command.
POWERLESS = (
    "import ctypes, os, sys; prctl = ctypes.CDLL(None).prctl; [prctl(24, c, 0, 0, 0) for c in (1, 2)]; "
    "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
)


def test_a_workdir_that_can_not_be_written(whole, half, tmp_path):
    workdir = half(tmp_path / "run")
    for path in (workdir, workdir / "checkpoints"):
        path.chmod(0o555)
    code, output = finish(start("train", f"--workdir={workdir}", *RUN, before=("-c", POWERLESS)))
    assert code == 2 and "cannot be written" in output and "Traceback" not in output, output
    for path in (workdir, workdir / "checkpoints"):
        path.chmod(0o755)
    run("train", f"--workdir={workdir}", *RUN)
    same(workdir, whole)
    assert "cannot be written" in refused("/proc/run")


def largest(checkpoint):
    return max((f for f in checkpoint.rglob("*") if f.is_file()), key=lambda f: f.stat().st_size)


def truncate(checkpoint):
    file = largest(checkpoint)
    file.write_bytes(file.read_bytes()[:-5])


def flip(checkpoint):
    file = largest(checkpoint)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def remove(checkpoint):
    largest(checkpoint).unlink()


def forget(checkpoint):
    (checkpoint / "gan_jax.json").unlink()


def forge(checkpoint):
    manifest = checkpoint / "gan_jax.json"
    manifest.write_text(manifest.read_text().replace('"seed": 0', '"seed": 1'))


@pytest.mark.parametrize("harm", [truncate, flip, remove, forget, forge])
def test_a_damaged_newest_checkpoint(harm, whole, half, tmp_path):
    workdir = half(tmp_path / "run")
    harm(workdir / "checkpoints" / "100")
    output = run("train", f"--workdir={workdir}", *RUN)
    assert "checkpoint 100 is damaged" in output and "continuing from the checkpoint of step 50" in output
    assert (workdir / "damaged" / "100").is_dir()
    same(workdir, whole)


def test_a_half_written_checkpoint(whole, half, tmp_path):
    """A kill during a save leaves Orbax's temporary directory, which is not a checkpoint yet."""
    workdir = half(tmp_path / "run")
    (workdir / "checkpoints" / "100").rename(workdir / "checkpoints" / "100.orbax-checkpoint-tmp")
    assert "continuing from the checkpoint of step 50" in run("train", f"--workdir={workdir}", *RUN)
    same(workdir, whole)


def rewritten(workdir, change):
    """Writes the checkpoint of step 100 again, complete and with a manifest, but with other arrays."""
    experiment = conformance.build(conformance.get_config())
    mesh = runtime.make_mesh(jax.devices()[:1])
    with jax.set_mesh(mesh):
        abstract = runtime.build_start(experiment, experiment.open_source().spec, mesh).abstract
        options = {"keep_last": 3, "about": experiment.about(), "identity": identity.begin(workdir, 1.0)}
        with runtime.Checkpointer(workdir / "checkpoints", **options) as saved:
            carried = saved.restore(100, abstract)
        shutil.rmtree(workdir / "checkpoints" / "100")
        with runtime.Checkpointer(workdir / "checkpoints", **options) as saved:
            saved.save(100, change(carried))


def without_window(carried):
    return {name: tree for name, tree in carried.items() if name != "window"}


def with_more(carried):
    return carried | {"more": jnp.zeros(3)}


def in_half_precision(carried):
    return carried | {"window": jax.tree.map(lambda x: x.astype(jnp.float16), carried["window"])}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without_window, "missing from the checkpoint: window.discriminator/loss"),
        (with_more, "only in the checkpoint: more"),
        (in_half_precision, "window.discriminator/loss: (2,) float16 in the checkpoint, (2,) float32 in the game"),
    ],
)
def test_a_checkpoint_with_other_arrays(change, message, half, tmp_path):
    workdir = half(tmp_path / "run")
    rewritten(workdir, change)
    output = refused(workdir)
    assert "is of another game or configuration" in output and message in output
    assert (workdir / "checkpoints" / "100").is_dir(), "it is whole, and stays"


def test_a_checkpoint_of_another_game(half, tmp_path):
    """Also tested with the library alone, because the command refuses the other config earlier."""
    workdir = half(tmp_path / "run")
    output = refused(workdir, "--config.game=wgan_gp")
    assert "config.game: 'vanilla' there, 'wgan_gp' now" in output
    experiment = conformance.build(conformance.get_config())
    about = experiment.about() | {"phase discriminator": "of discriminator, every 1, repeat 5"}
    mesh = runtime.make_mesh(jax.devices()[:1])
    with jax.set_mesh(mesh):
        abstract = runtime.build_start(experiment, experiment.open_source().spec, mesh).abstract
        saved = runtime.Checkpointer(workdir / "checkpoints", keep_last=3, about=about, read_only=True)
        with pytest.raises(InvalidInputError, match=r"phase discriminator: .* repeat 1 .* repeat 5"):
            saved.restore(100, abstract)


def test_a_clock_that_goes_back(whole, half, tmp_path):
    """The clock of the second process is a day behind that of the first."""
    workdir = half(tmp_path / "run")
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(
        "import time\nnow, ns = time.time, time.time_ns\n"
        "time.time = lambda: now() - 86400.0\ntime.time_ns = lambda: ns() - 86400 * 10**9\n"
    )
    run("train", f"--workdir={workdir}", *RUN, PYTHONPATH=str(site))
    same(workdir, whole)
    earlier, later = sorted((workdir / "tensorboard").iterdir())  # the order in which TensorBoard reads them
    assert earlier.stat().st_mtime < later.stat().st_mtime


def test_data_that_fail_in_the_middle_of_an_epoch(whole, tmp_path):
    flags = ("--config.stream=True", "--config.fail_at=7")
    output = refused(tmp_path / "run", *flags)
    assert "image 7 cannot be read" in output
    run("train", f"--workdir={tmp_path / 'run'}", *RUN, flags[0], *(["--config.fail_at=-1"]))
    same(tmp_path / "run", whole)


def test_other_data_are_refused(whole, half, tmp_path):
    workdir = half(tmp_path / "run")
    record = workdir / "data.json"
    record.write_text(record.read_text().replace(json.loads(record.read_text())["fingerprint"], "of others"))
    assert "the data are not those that" in refused(workdir)


def test_nan_stops_the_run(tmp_path):
    flags = (f"--workdir={tmp_path}", *RUN, "--config.poison_from=130")
    output = run("train", *flags, code=3)
    assert re.search("step 140: not finite: .*generator/gradient_norm, generator/loss", output)
    assert "the last good checkpoint, of step 100, is kept" in output
    assert result(tmp_path)["status"] == "diverged" and result(tmp_path)["checkpoint"] == 100
    assert [record["step"] for record in metrics(tmp_path)] == [20, 40, 60, 80, 100, 120]
    assert run("train", *flags, code=3).count("not finite") == 1  # diverges again, from the same checkpoint


def test_nan_rolls_back_with_other_noise_and_a_kill_changes_nothing(tmp_path):
    flags = (*RUN, "--config.poison_from=130", "--config.poison_all=False", "--config.on_divergence=rollback")
    output = run("train", f"--workdir={tmp_path / 'whole'}", *flags)
    assert "rollback 1 of at most 3: going on from step 100 with other noise" in output
    ended = result(tmp_path / "whole")
    assert ended["status"] == "done" and ended["rollbacks"] == 1
    [entry] = json.loads((tmp_path / "whole" / "rollbacks.json").read_text())
    assert (entry["number"], entry["diverged_at"], entry["back_to"]) == (1, 140, 100)
    assert [record["step"] for record in metrics(tmp_path / "whole")] == list(range(20, STEPS + 1, 20))

    for kind, line in ((signal.SIGKILL, "rollback 1"), (signal.SIGTERM, "step 100/")):
        broken = tmp_path / kind.name
        process = start("train", f"--workdir={broken}", *flags, "--config.keep_last=1")
        when(process, lambda said, line=line: said.startswith(line))
        process.send_signal(kind)
        finish(process)
        run("train", f"--workdir={broken}", *flags)
        same(broken, tmp_path / "whole")
        assert (broken / "rollbacks.json").read_text() == (tmp_path / "whole" / "rollbacks.json").read_text()


def test_rollbacks_end(tmp_path):
    flags = ("--config.poison_from=130", "--config.on_divergence=rollback", "--config.max_rollbacks=2")
    output = run("train", f"--workdir={tmp_path}", *RUN, *flags, code=3)
    assert output.count("not finite") == 3 and "max_rollbacks=2 rollbacks were made already" in output
    assert [entry["number"] for entry in json.loads((tmp_path / "rollbacks.json").read_text())] == [1, 2]


def test_a_workdir_in_use(tmp_path):
    process = start("train", f"--workdir={tmp_path}", RUN[0], "--config.steps=1000000")
    when(process, lambda line: line.startswith("step "))
    assert f"is in use by another run (process {process.pid} on " in refused(tmp_path)
    process.kill()
    finish(process)
    run("train", f"--workdir={tmp_path}", *RUN)  # the lock is free again


def test_a_signal_while_starting(whole, tmp_path):
    """A signal before the first step: the run saves after its first dispatch, and can be continued from there."""
    process = start("train", f"--workdir={tmp_path}", *RUN)
    when(process, lambda line: line.startswith("real: 48 examples"))
    process.send_signal(signal.SIGTERM)
    code, output = finish(process)
    assert code == 75 and "SIGTERM: saving and stopping at the next step" in output, output
    assert result(tmp_path)["step"] == 10
    run("train", f"--workdir={tmp_path}", *RUN)
    same(tmp_path, whole)


def parameters(workdir, step):
    from gan_jax import load

    trained = load(workdir, step)
    return trained, {name: jax.device_get(player.params) for name, player in trained.state.players.items()}


def test_fine_tuning_begins_with_the_networks_and_nothing_else(whole, tmp_path):
    flags = (RUN[0], f"--init_from={whole}", "--config.seed=5", "--config.checkpoint_every=10")
    output = run("train", f"--workdir={tmp_path / 'tuned'}", *flags, "--config.steps=10", "--config.report_every=10")
    assert f"beginning with the networks of {whole / 'checkpoints' / '200'}" in output
    record = json.loads((tmp_path / "tuned" / "config.json").read_text())
    assert record["init_from"] == {"workdir": str(whole), "step": None}
    assert json.loads((tmp_path / "tuned" / "init_from.json").read_text())["step"] == STEPS
    _, source = parameters(whole, 200)
    tuned, after = parameters(tmp_path / "tuned", 10)
    assert int(tuned.state.players["generator"].step) == 10  # Adam's state is new
    distance = max(np.max(np.abs(a - b)) for a, b in zip(*map(jax.tree.leaves, (source, after)), strict=True))
    assert 0 < distance <= 10 * 2.1e-3  # ten steps of Adam at most
    output = run("train", f"--workdir={tmp_path / 'tuned'}", *flags, "--config.steps=20", "--config.report_every=10")
    assert "continuing from the checkpoint of step 10" in output and "beginning with" not in output


def test_fine_tuning_that_can_not_be(whole, half, tmp_path):
    assert "no workdir of a run" in refused(tmp_path / "a", f"--init_from={tmp_path / 'nothing'}")
    output = refused(tmp_path / "b", f"--init_from={whole}", "--config.game=dcgan")
    assert "does not have the networks of this game" in output and "missing from the checkpoint" in output
    assert "no checkpoint of step 7" in refused(tmp_path / "c", f"--init_from={whole}", "--init_step=7")
    workdir = half(tmp_path / "run")
    assert "has checkpoints already, and did not begin from" in refused(workdir, f"--init_from={whole}")
    assert "--init_players needs --init_from" in refused(tmp_path / "d", "--init_players=generator=generator")
    output = refused(tmp_path / "e", f"--init_from={whole}", "--init_players=generator")
    assert "--init_players=generator: expected OURS=THEIRS" in output
    output = refused(tmp_path / "f", f"--init_from={whole}", "--init_players=judge=ema.generator,generator=generator")
    assert "expected players of this game (discriminator, generator)" in output and "'judge': 'ema.generator'" in output


def test_the_best_checkpoint_is_kept(tmp_path):
    from gan_jax import load

    flags = ("--config.best_metric=generator/loss", "--config.best_mode=min", "--config.keep_last=1")
    run("train", f"--workdir={tmp_path}", *RUN, *flags, "--config.checkpoint_every=20")
    best = min(metrics(tmp_path), key=lambda record: record["generator/loss"])["step"]
    assert result(tmp_path)["best_checkpoint"] == best
    kept = sorted(int(path.name) for path in (tmp_path / "checkpoints").iterdir())
    assert kept == sorted({best, STEPS}), "the best and the last"
    assert load(tmp_path, "best").step == best
    assert "must be a multiple of report_every" in refused(tmp_path / "other", flags[0])
    misspelt = refused(tmp_path / "typo", "--config.best_metric=generator/los", "--config.report_every=50")
    assert "best_metric='generator/los': expected one of discriminator/fake_logits" in misspelt


def test_sampling_has_no_best_without_a_metric(whole):
    assert "has no best checkpoint" in run("sample", f"--workdir={whole}", "--step=best", code=2)
    assert "--step=last: expected a number, or best" in run("sample", f"--workdir={whole}", "--step=last", code=2)
