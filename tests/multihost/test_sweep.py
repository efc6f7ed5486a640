"""A population over two processes: the same as over two devices of one, also if members are pruned or diverge."""

import json
import signal

import pytest

from tests.experiments.test_sweep import FLAGS, table, without_times
from tests.processes import finish, run, run_together, together, when


def hashes(workdir):
    paths = sorted(workdir.glob("members/*/result.json"))
    return [[json.loads(path.read_text())[name] for name in ("status", "step", "state_sha256")] for path in paths]


@pytest.mark.slow
def test_two_processes_train_a_population_as_one(tmp_path):
    flags = [flag.replace("steps=400", "steps=240") for flag in FLAGS]
    flags += [
        "--space=learning_rate=5e-4,2e-3,1e30",
        "--search=halving",
        "--eta=2",
        f"--first_rung={80 * 256}",
    ]
    shorter = [flag.replace("steps=240", "steps=120") for flag in flags]
    run_together(f"--workdir={tmp_path / 'two'}", *shorter, "--step_timeout=100", "--export=none", command="sweep")
    outputs = run_together(f"--workdir={tmp_path / 'two'}", *flags, "--step_timeout=100", command="sweep")
    assert "continuing from the checkpoint of step 120" in outputs[0]
    run("sweep", f"--workdir={tmp_path / 'one'}", *flags, devices=2)
    assert "1 done, 1 pruned" in outputs[0] and not [
        line for line in outputs[1].splitlines() if line.startswith("step")
    ]
    found, alone = hashes(tmp_path / "two"), hashes(tmp_path / "one")
    # One process packs the last member into a program for one device; two keep a device each, and round differently.
    assert [x[: 2 if x[0] == "done" else 3] for x in found] == [x[: 2 if x[0] == "done" else 3] for x in alone]
    assert sorted(status for status, *_ in found) == ["diverged", "done", "pruned"]
    for two, one in zip(*(without_times(table(tmp_path / x)) for x in ("two", "one")), strict=True):
        assert two == one or two["status"] == one["status"] == "done"
    [best] = (tmp_path / "two" / "trials").iterdir()
    run("sample", f"--workdir={best}", f"--out={tmp_path / 'samples.png'}")


STUDY = (
    *(flag.replace("steps=400", "steps=120") for flag in FLAGS),
    "--engine=study",
    "--sampler=grid",
    "--pruner=asha",
    "--step_timeout=100",
)


@pytest.mark.long
def test_two_processes_are_one_worker_of_a_study_of_populations(tmp_path):
    """If a trial is pruned or diverges, all processes learn of it, and none waits for ever."""
    space = ("--space=learning_rate=2e-3,1e-7,1e30", "--population=4")
    outputs = run_together(f"--workdir={tmp_path}", *STUDY, *space, command="sweep")
    assert [row["status"] for row in table(tmp_path)] == ["done", "pruned", "diverged"]
    assert "no more trials" in outputs[0] and "trial" not in outputs[1]
    pruned = tmp_path / "populations" / "00000" / "members" / "00001" / "result.json"
    assert json.loads(pruned.read_text())["status"] == "pruned"


@pytest.mark.long
def test_two_processes_are_one_worker_of_a_study_until_a_signal_to_one(tmp_path):
    """Trials run one after the other; no process may begin one that the other does not."""
    space = "--space=learning_rate=2e-3,1e-7,1e30,1e-3"
    processes = together(f"--workdir={tmp_path}", *STUDY, space, command="sweep")
    try:
        when(processes[0], lambda line: line.startswith("trial 2 "))
        processes[1].send_signal(signal.SIGTERM)
        ends = [finish(process) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [code for code, _ in ends] == [75, 75], ends
    assert [row["status"] for row in table(tmp_path)][:3] == ["done", "pruned", "diverged"]
    assert json.loads((tmp_path / "trials" / "00001" / "result.json").read_text())["status"] == "pruned"
