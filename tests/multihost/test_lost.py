"""No process is left hanging if another one is killed, stopped, missing, different, or has failed."""

import signal

import pytest

from gan_jax.distributed.hosts import LOST
from tests.processes import CONFORMANCE, finish, free_port, result, run, start, start_module, together, when

pytestmark = pytest.mark.slow
LONG = (
    f"--config={CONFORMANCE}", "--config.steps=1000000", "--config.report_every=100", "--config.checkpoint_every=100",
    "--config.steps_per_dispatch=20",
)  # fmt: skip
ABORTED = -signal.SIGABRT  # how JAX ends a process when the coordinator is gone


def ends(processes):
    """Returns exit code and output of each process."""
    return [finish(process) for process in processes]


def training(*flags, **options):
    """Starts two processes, and returns them in the middle of their run."""
    processes = together(*LONG, *flags, **options)
    when(processes[0], lambda line: line.startswith("step 200/"))
    return processes


@pytest.mark.parametrize("victim", [0, 1])
def test_one_of_two_killed(tmp_path, victim):
    """In a collective the survivor notices at once; while it waits for the other's part of a checkpoint, JAX does."""
    processes = training(f"--workdir={tmp_path}", "--heartbeat_timeout=20")
    processes[victim].kill()
    code, output = processes[1 - victim].finish(timeout=90)
    finish(processes[victim])
    assert code in (LOST, ABORTED), output
    assert f"process {1 - victim} of 2" in output or "JAX distributed service detected fatal errors" in output


@pytest.mark.long
def test_one_of_two_stopped(tmp_path):
    """The survivor ends in time, with stacks, and names the missing process. One pair waits while the other starts."""
    timeout = 12  # compilation must end within it, while the rest of the suite runs
    pairs = {}
    for victim in (0, 1):
        pairs[victim] = training(f"--workdir={tmp_path / str(victim)}", f"--step_timeout={timeout}")
        pairs[victim][victim].send_signal(signal.SIGSTOP)
    for victim, processes in pairs.items():
        code, output = processes[1 - victim].finish(timeout + 15)  # time to tell the others, and for a slow machine
        processes[victim].kill()
        finish(processes[victim])
        assert code == LOST, output
        assert f"no progress for {timeout} s while running up to step" in output
        assert f"process {victim}" in output.split("no progress")[1] and "is missing" in output
        assert "Thread 0x" in output and "loop.py" in output, "no stacks"


def test_a_signal_to_one_stops_all_at_the_same_step(tmp_path):
    processes = training(f"--workdir={tmp_path}")
    processes[1].send_signal(signal.SIGTERM)
    for code, output in ends(processes):
        assert code == 75, output
    stopped = result(tmp_path)
    assert stopped["status"] == "stopped" and stopped["checkpoint"] == stopped["step"] >= 200


def test_the_preemption_notice_of_jax_stops_all(tmp_path):
    processes = together(*LONG, f"--workdir={tmp_path}", "--config.stream=True", "--config.notice_at=300")
    for code, output in ends(processes):
        assert code == 75, output
    stopped = result(tmp_path)
    assert stopped["status"] == "stopped" and stopped["checkpoint"] == stopped["step"] >= 200


def test_data_that_fail_in_one_process_end_all(tmp_path):
    processes = together(
        *LONG, f"--workdir={tmp_path}", "--config.stream=True", "--config.fail_at=7", "--config.fail_on=1"
    )
    (first, said), (second, reason) = ends(processes)
    assert first == second == 2
    assert "process 1 of 2: image 7 cannot be read" in reason
    assert "ending, since process 1 has left: image 7 cannot be read" in said


@pytest.mark.parametrize(
    ("each", "message"),
    [
        (((), ("--config.seed=1",)), "config.seed: '1' on process 1, '0' on process 0"),
        ((("--init_from=runs/a",), ()), "--init_from: None on process 1, 'runs/a' on process 0"),
    ],
)
def test_processes_that_differ_are_refused_before_they_compile(tmp_path, each, message):
    for code, output in ends(together(f"--config={CONFORMANCE}", f"--workdir={tmp_path / 'run'}", each=each)):
        assert code == 2 and "the processes do not have the same code and config" in output and message in output
        assert "compiling" not in output
    assert not (tmp_path / "run").exists()


def test_a_workdir_that_is_not_shared(tmp_path):
    here, there = tmp_path / "here", tmp_path / "there"
    processes = together(f"--config={CONFORMANCE}", each=((f"--workdir={here}",), (f"--workdir={there}",)))
    (first, _), (second, output) = ends(processes)
    assert first == second == 2
    assert "is not the directory that process 0 sees under this name" in output


def test_a_process_that_does_not_come(tmp_path):
    messages = "of processes 1 to 1 at least one has not joined", "nothing answers at localhost"
    waiting = [
        start("train", f"--workdir={tmp_path}", "--connect_timeout=3", f"--coordinator=localhost:{free_port()}",
              "--num_processes=2", f"--process_id={index}")
        for index in (0, 1)
    ]  # fmt: skip
    for index, (code, output) in enumerate(ends(waiting)):
        assert code == LOST and messages[index] in output and f"process {index} of 2: waiting for" in output


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--coordinator=localhost:1",), "give the last three together"),
        (("--multihost=off", "--num_processes=2"), "give the last three together"),
        (("--multihost=on",), "JAX finds no cluster here"),
        (("--coordinator=here", "--num_processes=2", "--process_id=0"), "expected HOST:PORT"),
        (("--coordinator=here:1", "--num_processes=2", "--process_id=2"), "process ids from 0 to num_processes - 1"),
        (("--require_platform=gpu",), "but JAX runs on cpu"),
    ],
)
def test_flags_that_make_no_sense(tmp_path, flags, message):
    assert message in run("train", f"--workdir={tmp_path / 'run'}", *flags, code=2)
    assert not (tmp_path / "run").exists()


def test_a_step_that_does_not_end_in_a_process_alone(tmp_path):
    """The data stop coming; without a watchdog the process would wait for ever."""
    config = (f"--config={CONFORMANCE}", "--config.stream=True", "--config.hang_at=7")
    code, output = finish(start("train", f"--workdir={tmp_path}", *config, "--step_timeout=4"))
    assert code == LOST and "no progress for 4 s while" in output and "conformance.py" in output


def in_slurm(*arguments):
    """Starts two processes with SLURM's variables, as `srun` sets them, and returns exit code and output of each."""
    port = free_port()
    slurm = {
        "SLURM_JOB_ID": str(port), "SLURM_STEP_NODELIST": "localhost", "SLURM_NTASKS": "2",
        "SLURM_STEP_NUM_TASKS": "2", "SLURM_LOCALID": "0",
    }  # fmt: skip
    return ends(
        [start_module("tests.multihost.cluster", *arguments, **slurm, SLURM_PROCID=str(index)) for index in range(2)]
    )


def test_a_cluster_found_by_jax():
    """With SLURM's variables --multihost=on is enough."""
    for index, (code, output) in enumerate(in_slurm()):
        assert code == 0 and f"({index}, 2) 2" in output, output


def test_an_abort_of_jax_dumps_no_thread_that_runs():
    """Dumping it may crash, and the exit code would be 139."""
    for code, output in in_slurm("abort"):
        assert code == ABORTED and "Fatal Python error: Aborted" in output and "hread 0x" not in output, output
