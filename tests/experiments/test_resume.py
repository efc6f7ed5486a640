"""A run that is killed at any moment and continued ends as if it had not been killed."""

import re
import signal
import time

import pytest

from tests.processes import CONFORMANCE, finish, metrics, result, run, start, when


def flags(workdir, game, steps=500):
    return (f"--workdir={workdir}", f"--config={CONFORMANCE}", f"--config.game={game}", f"--config.steps={steps}")


def saved_and_logged(workdir):
    """Returns the steps of the newest finished checkpoint and of a late, complete line of the log; 0 without one."""
    saved = [int(path.name) for path in (workdir / "checkpoints").glob("*") if path.name.isdigit()]
    log = workdir / "metrics.jsonl"
    lines = log.read_text().splitlines() if log.exists() else []
    return max(saved, default=0), max((int(re.match(r'{"step": (\d+)', line)[1]) for line in lines[:-1]), default=0)


@pytest.mark.slow
# they carry all that the others do
@pytest.mark.parametrize(
    "game",
    [
        "adversarial",
        "cyclegan",
        *(
            pytest.param(name, marks=pytest.mark.long)
            for name in ("cut", "mocogan", "pix2pix", "tokenizer", "vae", "vae_gan", "wgan_gp")
        ),
    ],
)
def test_kill_and_terminate_and_resume_bit_for_bit(game, tmp_path):
    steps = 300  # enough that the run does not end before the signals come
    run("train", *flags(tmp_path / "whole", game, steps))
    broken = flags(tmp_path / "broken", game, steps)

    first = start("train", *broken)
    when(first, lambda line: line.startswith("step 80/"))
    while not 0 < saved_and_logged(tmp_path / "broken")[0] < saved_and_logged(tmp_path / "broken")[1]:
        assert first.poll() is None, "ended before a log line was newer than a checkpoint"
    first.kill()
    assert finish(first)[0] == -signal.SIGKILL
    newest, logged = saved_and_logged(tmp_path / "broken")
    assert 0 < newest < steps and logged > 0

    second = start("train", *broken)
    seen = when(second, lambda line: line.startswith("step "))
    assert f"continuing from the checkpoint of step {newest:,}\n" in seen
    second.send_signal(signal.SIGTERM)
    code, output = finish(second)
    assert code == 75 and "stopped by SIGTERM after saving step" in output, output
    stopped = result(tmp_path / "broken")
    assert stopped["status"] == "stopped" and stopped["checkpoint"] == stopped["step"]

    third = run("train", *broken)
    assert f"continuing from the checkpoint of step {stopped['step']:,}" in third
    assert result(tmp_path / "broken")["state_sha256"] == result(tmp_path / "whole")["state_sha256"]
    assert metrics(tmp_path / "broken") == metrics(tmp_path / "whole")


@pytest.mark.slow
def test_eight_devices_resume_bit_for_bit(tmp_path):
    """Runs without the compilation cache, so that each process runs what it compiled itself, as a user's may."""
    alone = {"devices": 8, "fresh": True, "JAX_ENABLE_COMPILATION_CACHE": "false"}
    run("train", *flags(tmp_path / "whole", "vanilla", 300), **alone)
    broken = flags(tmp_path / "broken", "vanilla", 300)
    process = start("train", *broken, **alone)
    when(process, lambda line: line.startswith("step 80/"))
    while not saved_and_logged(tmp_path / "broken")[0]:
        assert process.poll() is None
    process.kill()
    finish(process)
    output = run("train", *broken, **alone)
    assert "compiling for 8 cpu devices" in output and "continuing from the checkpoint of step" in output
    assert result(tmp_path / "broken")["state_sha256"] == result(tmp_path / "whole")["state_sha256"]


@pytest.mark.slow
def test_a_second_signal_ends_at_once(tmp_path):
    process = start(
        "train", *flags(tmp_path / "run", "wgan_gp")[:-1], "--config.steps=1000000", "--config.steps_per_dispatch=20"
    )
    when(process, lambda line: line.startswith("step 40/"))
    for _ in range(2):
        process.send_signal(signal.SIGINT)
        time.sleep(0.01)
    assert finish(process)[0] in (-signal.SIGINT, 75, 130)


@pytest.mark.slow
def test_the_number_of_iterations_in_a_dispatch_does_not_matter(tmp_path):
    """Otherwise other intervals on resume would change results. XLA optimises as for users, which affects rounding."""
    hashes = set()
    for length in (1, 5):
        workdir = tmp_path / str(length)
        run("train", *flags(workdir, "dcgan")[:-1], "--config.steps=10", f"--config.steps_per_dispatch={length}",
            "--config.report_every=10", "--config.checkpoint_every=10", quick=False)  # fmt: skip
        hashes.add(result(workdir)["state_sha256"])
    assert len(hashes) == 1
