"""A run that is killed again and again ends as if it had not been: the proof of exact resume.

Trains `digits`, small, once without interruption, and once under a storm: each process of the run is ended at a random
moment (SIGKILL while starting, while running, while a checkpoint is being written; SIGTERM; of two processes one alone
or both) and the same command is started again, as one process with two devices or as two with one each, by chance. At
the end the states' hashes and the logs must be equal, line by line.

python -m benchmarks.storm --kills=100     about 15 minutes on two cores; appends a line to results/storm.jsonl
"""

import collections
import json
import os
import pathlib
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from absl import app, flags

from gan_jax.runtime.environment import versions

HERE = pathlib.Path(__file__).parent
RESULTS = HERE / "results" / "storm.jsonl"
EVERY = 50  # iterations between checkpoints
PER_KILL = 50  # iterations of the run for each kill: enough that it does not end before the storm does
STARTING, RUNNING, SAVING, TERMINATED, ONE_OF_TWO = "starting", "running", "saving", "terminated", "one of two"
PATIENCE = 120.0  # seconds for anything to happen

_KILLS = flags.DEFINE_integer("kills", 100, "how often the run is ended", lower_bound=1)
_SEED = flags.DEFINE_integer("seed", 0, "of the moments")


class Processes:
    """One start of the command: one process, or two that make one run."""

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
        flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={2 // count}"
        environment = os.environ | {
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": flags.strip(),  # of two such numbers the last one counts
            "JAX_COMPILATION_CACHE_DIR": str(workdir.parent / "cache"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        }
        self.all = [
            subprocess.Popen(
                [*command, *joined, *([f"--process_id={index}"] if count > 1 else [])],
                cwd=HERE.parent, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
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
        """Whether it happened before the processes ended."""
        deadline = time.monotonic() + PATIENCE
        while not happened():
            if any(process.poll() is not None for process in self.all):
                return False
            assert time.monotonic() < deadline, "nothing happens:\n" + "".join(self.printed)
            time.sleep(0.001)
        return True

    def send(self, number: int, indices: Sequence[int]) -> None:
        """A signal to some of them."""
        for index in indices:
            self.all[index].send_signal(number)

    def end(self) -> list[int]:
        """Waits until all have ended, by themselves; their exit codes."""
        codes = [process.wait(PATIENCE) for process in self.all]
        for thread in self._threads:
            thread.join()
        return codes

    def steps(self) -> list[int]:
        """The steps that were reported so far."""
        lines = [line for line in list(self.printed) if line.startswith("step ")]
        return [int(line.split("/")[0][5:].replace(",", "")) for line in lines]


def strike(processes: Processes, kind: str, workdir: pathlib.Path, dice: random.Random) -> list[int]:
    """Ends one start of the command in a way, and returns the exit codes."""
    everyone = range(len(processes.all))
    if kind == STARTING:
        time.sleep(dice.uniform(0.1, 4.0))
    else:
        wanted = dice.randrange(1, 5)  # so many reports, 20 iterations each, after the start
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
    """What each way to end must lead to."""
    killed = -signal.SIGKILL
    if kind == TERMINATED:
        assert codes in ([75], [75, 75], [0], [0, 0]), f"{codes}\n{printed}"
    elif kind == ONE_OF_TWO:
        assert killed in codes and all(code not in (0, 1, 2, 3) for code in codes), f"{codes}\n{printed}"
    else:
        assert set(codes) == {killed}, f"{codes}\n{printed}"


def log(workdir: pathlib.Path) -> list[dict[str, Any]]:
    """The lines of a run's log, without what depends on the clock."""
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k != "images_per_second"} for line in lines]


def storm(root: pathlib.Path, kills: int, seed: int) -> Iterator[dict[str, Any]]:
    """Makes both runs, and compares them.

    Args:
      root: an empty directory.
      kills: how often the second run is ended.
      seed: of the moments.

    Yields:
      For each kill what it was and led to, and at last what both runs ended with.

    Raises:
      AssertionError: as soon as anything is not as it must be.
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


def main(argv: Sequence[str]) -> None:
    """See the module."""
    del argv
    began, kinds, final = time.monotonic(), collections.Counter[str](), {}
    with tempfile.TemporaryDirectory() as root:
        for event in storm(pathlib.Path(root), _KILLS.value, _SEED.value):
            print(json.dumps(event), flush=True)
            if "kill" in event:
                kinds[f"{event['kind']}, {event['processes']} processes"] += 1
            final = event
    record = {
        "command": " ".join(["python -m benchmarks.storm", *sys.argv[1:]]),
        "kills": _KILLS.value, "kinds": dict(sorted(kinds.items())), **final,
        "equal": True, "seconds": round(time.monotonic() - began), "versions": versions(),
    }  # fmt: skip
    with RESULTS.open("a") as file:
        file.write(json.dumps(record) + "\n")


if __name__ == "__main__":
    app.run(main)
