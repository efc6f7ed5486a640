"""The storm on the digits: a run that SIGKILL and SIGTERM end again and again, as one process or two.

Each time it goes on as one process with two devices, or as two processes with one device each.
"""

import json
import os
import pathlib
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

ROOT = pathlib.Path(__file__).parents[1]
EVERY = 50  # iterations between checkpoints
PER_KILL = 50  # iterations of the run for each kill: enough that the run does not end before the kills do
STARTING, RUNNING, SAVING, TERMINATED, ONE_OF_TWO = "starting", "running", "saving", "terminated", "one of two"
PATIENCE = 120.0  # time limit of every wait, in seconds


class Processes:
    """One start of the command: one process, or two processes of one distributed run."""

    def __init__(self, workdir: pathlib.Path, steps: int, count: int) -> None:
        command = [
            sys.executable, "-m", "experiments.train", f"--workdir={workdir}", f"--config.steps={steps}",
            "--config.width=4", "--config.batch_size=16", "--config.report_every=20", "--config.sample_every=0",
            f"--config.checkpoint_every={EVERY}", "--config.steps_per_dispatch=10",
        ]  # fmt: skip
        with socket.socket() as probe:
            probe.bind(("localhost", 0))
            port = probe.getsockname()[1]
        joined = [f"--coordinator=localhost:{port}", f"--num_processes={count}"] if count > 1 else []
        # Always two devices in total: a run is exactly reproducible only with the same number of devices.
        flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={2 // count}"
        environment = os.environ | {
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": flags.strip(),  # if a flag occurs twice, the last one counts
            "JAX_COMPILATION_CACHE_DIR": str(workdir.parent / "cache"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        }
        self.all = [
            subprocess.Popen(
                [*command, *joined, *([f"--process_id={index}"] if count > 1 else [])],
                cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            )
            for index in range(count)
        ]  # fmt: skip
        self.printed: list[str] = []
        self._threads = [threading.Thread(target=self._read, args=(p,), daemon=True) for p in self.all]
        for thread in self._threads:
            thread.start()

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            self.printed.append(line)
        process.stdout.close()

    def wait_for(self, happened: Callable[[], bool]) -> bool:
        """Waits until `happened()`; returns False if a process ends first."""
        deadline = time.monotonic() + PATIENCE
        while not happened():
            if any(process.poll() is not None for process in self.all):
                return False
            assert time.monotonic() < deadline, "no progress within the time limit:\n" + "".join(self.printed)
            time.sleep(0.001)
        return True

    def send(self, number: int, indices: Sequence[int]) -> None:
        """Sends a signal to some of the processes."""
        for index in indices:
            self.all[index].send_signal(number)

    def end(self) -> list[int]:
        """Waits until all processes have ended by themselves, and returns their exit codes."""
        codes = [process.wait(PATIENCE) for process in self.all]
        for thread in self._threads:
            thread.join()
        return codes

    def steps(self) -> list[int]:
        """Returns the steps that have been reported so far."""
        lines = [line for line in list(self.printed) if line.startswith("step ")]
        return [int(line.split("/")[0][5:].replace(",", "")) for line in lines]


def strike(processes: Processes, kind: str, workdir: pathlib.Path, dice: random.Random) -> list[int]:
    """Ends one start of the command in the given way at a random moment, and returns the exit codes."""
    everyone = range(len(processes.all))
    if kind == STARTING:
        time.sleep(dice.uniform(0.1, 4.0))
    else:
        wanted = dice.randrange(1, 5)  # number of reports, each of 20 iterations, to wait for
        processes.wait_for(lambda: len(processes.steps()) >= wanted)
        if kind == SAVING:
            processes.wait_for(lambda: any((workdir / "checkpoints").glob("*orbax-checkpoint-tmp*")))
        time.sleep(dice.uniform(0.0, 0.02 if kind == SAVING else 0.2))
    if kind == TERMINATED:
        processes.send(signal.SIGTERM, [dice.choice(everyone)])
    else:
        processes.send(signal.SIGKILL, [dice.choice(everyone)] if kind == ONE_OF_TWO else everyone)
    return processes.end()


def check(kind: str, codes: list[int], printed: str) -> None:
    """Checks the exit codes that each way of ending must lead to."""
    killed = -signal.SIGKILL
    if kind == TERMINATED:
        assert codes in ([75], [75, 75], [0], [0, 0]), f"{codes}\n{printed}"
    elif kind == ONE_OF_TWO:
        assert killed in codes and all(code not in (0, 1, 2, 3) for code in codes), f"{codes}\n{printed}"
    else:
        assert set(codes) == {killed}, f"{codes}\n{printed}"


def log(workdir: pathlib.Path) -> list[dict[str, Any]]:
    """Returns the lines of a run's log, without the values that depend on the clock."""
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k != "images_per_second"} for line in lines]


def storm(root: pathlib.Path, kills: int, seed: int) -> Iterator[dict[str, Any]]:
    """Makes both runs and compares them.

    Args:
      root: empty directory for the runs.
      kills: number of times that the second run is ended.
      seed: seed of the random moments.

    Yields:
      For each kill, its kind and its outcome; at the end, the final state that both runs share.

    Raises:
      AssertionError: as soon as an exit code, a checkpoint, a log or the final state is wrong.
    """
    dice, steps = random.Random(seed), kills * PER_KILL
    whole, broken = root / "whole", root / "broken"
    calm = Processes(whole, steps, 1)
    assert calm.end() == [0], "".join(calm.printed)
    for number in range(kills):
        count = dice.choice((1, 1, 2))
        kinds = (STARTING, RUNNING, RUNNING, SAVING, SAVING, TERMINATED) + (ONE_OF_TWO,) * (3 * (count - 1))
        kind, began = dice.choice(kinds), time.monotonic()
        processes = Processes(broken, steps, count)
        codes = strike(processes, kind, broken, dice)
        check(kind, codes, "".join(processes.printed))
        saved = [int(path.name) for path in (broken / "checkpoints").glob("*") if path.name.isdigit()]
        yield {
            "kill": number + 1, "kind": kind, "processes": count, "codes": codes, "saved": max(saved, default=0),
            "seconds": round(time.monotonic() - began, 1),
        }  # fmt: skip
    last = Processes(broken, steps, 1)
    assert last.end() == [0], "".join(last.printed)
    ends = [json.loads((workdir / "result.json").read_text()) for workdir in (whole, broken)]
    assert ends[0]["state_sha256"] == ends[1]["state_sha256"], "the states differ"
    assert log(whole) == log(broken), "the logs differ"
    assert not (broken / "damaged").exists(), "a checkpoint was damaged"
    yield {"steps": steps, "state_sha256": ends[1]["state_sha256"], "lines": len(log(broken))}
