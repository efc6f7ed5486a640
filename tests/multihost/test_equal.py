"""Two processes of four devices, one process of eight, and one of one device give the same run."""

import json
import re
import shutil

import jax
import numpy as np
import pytest

from gan_jax import runtime
from gan_jax.runtime import identity
from tests.experiments import conformance
from tests.processes import (
    CONFORMANCE,
    finish,
    free_port,
    metrics,
    result,
    run,
    run_together,
    start_module,
)

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group(name="pod")]
RUN = (f"--config={CONFORMANCE}", "--config.sgd=True", "--config.steps=40", "--config.checkpoint_every=20")

# Gloo's output for each device. Its threads mix the pieces of their lines, so a line may begin in the middle.
GLOO = re.compile(r"\[Gloo\] Rank|is connected to|peer ranks\.|Expected number of connected peer ranks is :|\d")


@pytest.fixture(scope="module")
def pod(tmp_path_factory):
    """The uninterrupted run of two fresh processes of four devices each, whose sets are ordered differently."""
    workdir = tmp_path_factory.mktemp("pod") / "run"
    return workdir, run_together(f"--workdir={workdir}", *RUN, devices=4, fresh=True, quick=True)


def test_only_the_first_process_prints_and_writes(pod):
    workdir, (first, second) = pod
    assert "process 0 of 2: waiting for 1 more" in first and "process 1 of 2: waiting for the coordinator" in second
    assert "compiling for 8 cpu devices of 2 processes" in first and "step 40/40" in first
    own = "\n".join(line for line in second.splitlines() if not line.startswith("process 1"))
    assert not GLOO.sub("", own).strip()
    assert [record["step"] for record in metrics(workdir)] == [20, 40]
    assert len(list((workdir / "tensorboard").iterdir())) == 1


@pytest.mark.parametrize(("devices", "fsdp"), [(1, 1), (8, 4)])
def test_losses_do_not_depend_on_devices_and_processes(pod, tmp_path, devices, fsdp):
    run("train", f"--workdir={tmp_path}", *RUN, f"--config.fsdp={fsdp}", devices=devices)
    for ours, theirs in zip(metrics(tmp_path), metrics(pod[0]), strict=True):
        assert ours.keys() == theirs.keys()
        for name, value in theirs.items():
            assert ours[name] == pytest.approx(value, rel=1e-5, abs=1e-5), name


def test_players_split_over_processes(pod, tmp_path):
    run_together(f"--workdir={tmp_path}", *RUN, "--config.fsdp=8", devices=4)
    for ours, theirs in zip(metrics(tmp_path), metrics(pod[0]), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-5, abs=1e-5)
    run("train", f"--workdir={tmp_path}", *RUN, devices=1)  # restores the split state on one device
    assert json.loads((tmp_path / "config.json").read_text())["history"][0]["processes"] == 2


@pytest.mark.long
@pytest.mark.parametrize("game", ["cut", "cyclegan", "pix2pix"])
def test_what_a_game_carries_along_the_batch(game, tmp_path):
    """CycleGAN's image pools, CUT's places, pix2pix's dropout: one process with two devices gives the same bits."""
    flags = (f"--config={CONFORMANCE}", f"--config.game={game}", "--config.checkpoint_every=20")
    run("train", f"--workdir={tmp_path / 'one'}", *flags, "--config.steps=40", devices=2)
    for steps in (20, 40):
        run_together(f"--workdir={tmp_path / 'two'}", *flags, f"--config.steps={steps}")
    assert result(tmp_path / "two")["state_sha256"] == result(tmp_path / "one")["state_sha256"]
    assert metrics(tmp_path / "two") == metrics(tmp_path / "one")


def test_the_order_of_the_data_is_the_same_exactly():
    """The data are held on the device or read as if from storage, by one process or two."""
    found = []
    for count, devices in ((1, 1), (2, 4)):
        port = free_port()
        processes = [
            start_module(
                "tests.multihost.order",
                *((f"localhost:{port}", str(count), str(index)) if count > 1 else ()),
                devices=devices,
            )
            for index in range(count)
        ]
        (code, output), *others = [finish(process) for process in processes]
        assert {code, *(other for other, _ in others)} == {0}, output
        [line] = [line for line in output.splitlines() if line.startswith("{")]
        found.append(json.loads(line))
    assert found[0] == found[1]
    assert len({digest for batch in found[0]["resident"] for digest in batch}) == 2


def test_restore_on_other_devices_and_back(pod, tmp_path):
    """One process restores a checkpoint of two, on 1 or 4 devices; the two can continue from what it saves."""
    config = conformance.get_config()
    config.update({"sgd": True})
    experiment = conformance.build(config)
    hashes = set()
    for devices in (1, 4):
        mesh = runtime.make_mesh(jax.devices()[:devices])
        with jax.set_mesh(mesh):
            start = runtime.build_start(experiment, experiment.open_source().spec, mesh)
            saved = runtime.Checkpointer(pod[0] / "checkpoints", keep_last=1, about=experiment.about(), read_only=True)
            ended = saved.restore(40, start.abstract)
            assert runtime.state_sha256(ended["state"]) == result(pod[0])["state_sha256"]
            carried = saved.restore(20, start.abstract)
            assert {len(x.sharding.device_set) for x in jax.tree.leaves(carried)} == {devices}
            back = tmp_path / str(devices)
            shutil.copytree(pod[0], back, ignore=shutil.ignore_patterns("checkpoints"))
            options = {"keep_last": 2, "about": experiment.about(), "identity": identity.read(back)}
            with runtime.Checkpointer(back / "checkpoints", **options) as again:
                again.save(20, carried)
            hashes.add(runtime.state_sha256(carried["state"]))
    assert len(hashes) == 1
    outputs = run_together(f"--workdir={back}", *RUN, devices=4)
    assert "continuing from the checkpoint of step 20" in outputs[0]
    assert result(back)["state_sha256"] == result(pod[0])["state_sha256"]
    assert metrics(back) == metrics(pod[0])


def test_the_restored_state_is_that_which_was_saved(pod, tmp_path):
    """With no steps left, `train` hashes what it restores: on one device, the final state of the two processes."""
    workdir = shutil.copytree(pod[0], tmp_path / "run")
    run("train", f"--workdir={workdir}", *RUN, devices=1)
    assert result(workdir)["state_sha256"] == result(pod[0])["state_sha256"]
    assert np.isfinite(result(workdir)["metrics"]["generator/loss"])


def test_a_divergence_fine_tuning_damage_and_the_best_on_two_processes(tmp_path):
    """One run with every decision that one process makes for both; it equals that of one process bit for bit."""
    base = tmp_path / "base"
    common = (f"--config={CONFORMANCE}", "--config.checkpoint_every=20")
    run("train", f"--workdir={base}", *common, "--config.steps=20")
    flags = (
        *common, f"--init_from={base}", "--config.seed=1", "--config.best_metric=samples/diversity",
        "--config.poison_from=50", "--config.poison_all=False", "--config.on_divergence=rollback",
    )  # fmt: skip
    run("train", f"--workdir={tmp_path / 'one'}", *flags, "--config.steps=80", devices=2)
    two = tmp_path / "two"
    outputs = run_together(f"--workdir={two}", *flags, "--config.steps=40")
    assert "beginning with the networks of" in outputs[0]
    [file] = (two / "checkpoints" / "40" / "default" / "d").iterdir()
    file.write_bytes(file.read_bytes()[:-1])
    outputs = run_together(f"--workdir={two}", *flags, "--config.steps=80")
    assert "checkpoint 40 is damaged" in outputs[0] and "continuing from the checkpoint of step 20" in outputs[0]
    assert "rollback 1 of at most 3: going on from step 40" in outputs[0]
    assert result(two) | {"metrics": 0} == result(tmp_path / "one") | {"metrics": 0}
    assert metrics(two) == metrics(tmp_path / "one") and result(two)["rollbacks"] == 1
