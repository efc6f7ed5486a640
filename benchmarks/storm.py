"""Tests of exact resume: runs that signals end again and again must end as uninterrupted ones do.

Each scenario of `benchmarks.storm_scenarios` runs a small command once without interruption, and then again and again
with signals at random moments: SIGKILL, SIGTERM, SIGINT, two of these, or SIGSTOP and later SIGCONT; while it starts,
compiles, trains, evaluates, saves, goes back after a divergence, prunes or copies members, or ends. A command that has
ended is started again, as a user would. At its end everything that it has left must be equal to what the uninterrupted
one has left: the hash of the state, every line of the logs, tables, pictures and kept checkpoints. All exit codes must
be the documented ones, and no process may go on beyond a time limit.

The scenario `digits` is another one: `storm` ends a run of the digits by SIGKILL or SIGTERM, and each time continues it
as one process with two devices or as two processes with one device each.

python -m benchmarks.storm                             all scenarios; appends a line for each to results/storm.jsonl
python -m benchmarks.storm --scenarios=lecam,halving   some of them
python -m benchmarks.storm --skip_done                 those without a line of this commit, seed and number of events
python -m benchmarks.storm --table                     runs nothing: prints the last result of each scenario
python -m benchmarks.storm --write                     runs nothing: writes that table into docs/testing.md
"""

import collections
import functools
import json
import os
import pathlib
import random
import shutil
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

from benchmarks.measure import put, record, recorded, table
from benchmarks.storm_events import KINDS
from benchmarks.storm_scenarios import SCENARIOS, Storm
from gan_jax.runtime import duration
from gan_jax.runtime.environment import versions
from tests import processes as started

ROOT = pathlib.Path(__file__).parents[1]
EVERY = 50  # iterations between checkpoints
PER_KILL = 50  # iterations of the run for each kill: enough that the run does not end before the kills do
STARTING, RUNNING, SAVING, TERMINATED, ONE_OF_TWO = "starting", "running", "saving", "terminated", "one of two"
PATIENCE = 120.0  # time limit of every wait, in seconds

DIGITS = "digits"
_SCENARIOS = flags.DEFINE_list("scenarios", [*SCENARIOS, DIGITS], "names of the scenarios to run")
_EVENTS = flags.DEFINE_integer("events", 20, "number of events in each scenario", lower_bound=1)
_SEED = flags.DEFINE_integer("seed", 0, "seed of the random moments")
_SKIP_DONE = flags.DEFINE_bool("skip_done", False, "skip scenarios that this commit has passed with this seed")
_TABLE = flags.DEFINE_bool("table", False, "run nothing: print the last result of each scenario")
_WRITE = flags.DEFINE_bool("write", False, "run nothing: write that table into docs/testing.md")


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


def play(name: str, root: pathlib.Path, say: Callable[[str], None]) -> dict[str, Any]:
    """Plays a scenario until its end or its first failure.

    Args:
      name: name of the scenario.
      root: empty directory for its runs.
      say: is called with a description of each event.

    Returns:
      The line to record: events by kind and phase, exit codes by kind, and the outcome, `equal` or what is wrong.
    """
    events, codes, facts, began = collections.Counter[str](), collections.Counter[str](), {}, time.monotonic()
    outcome = "equal"
    try:
        if name == DIGITS:
            for one in storm(root, _EVENTS.value, _SEED.value):
                facts = {"state_sha256": one.get("state_sha256"), "lines": one.get("lines")}
                if "kill" in one:
                    events[f"{one['kind']}, {one['processes']} processes"] += 1
                    codes[f"{one['kind']}: {' and '.join(map(str, one['codes']))}"] += 1
                    say(f"{one['kind']}, {one['processes']} processes: {one['codes']}")
        else:
            whole = Storm(name, root, _EVENTS.value, _SEED.value)
            for event, ended in whole.run():
                events[f"{event.kind}: {event.phase}"] += 1
                codes[f"{event.kind}: {' and '.join(map(str, ended)) or 'goes on'}"] += 1
                say(f"{event.kind} in {event.phase}: {ended or 'goes on'}")
                facts = {"laps": whole.laps, "starts": whole.starts}
            if "log" in whole.undisturbed:
                facts |= {"state_sha256": whole.undisturbed["result"]["state_sha256"]}
                facts |= {"lines": len(whole.undisturbed["log"])}
    except (AssertionError, TimeoutError) as error:
        outcome = str(error).split("\n")[0]
        say(f"failed; its files stay in {root}: {error}")
    return {
        "scenario": name, "seed": _SEED.value, "wanted": _EVENTS.value, "events": sum(events.values()),
        "kinds": dict(sorted(events.items())), "codes": dict(sorted(codes.items())), **facts, "outcome": outcome,
        "seconds": round(time.monotonic() - began),
    }  # fmt: skip


def is_done(name: str) -> bool:
    """Whether this commit, perhaps with changes, has passed a scenario with this seed and number of events."""
    now = {"scenario": name, "seed": _SEED.value, "wanted": _EVENTS.value, "outcome": "equal"}
    known = [x["versions"].get("commit", "") for x in recorded("storm") if now.items() <= x.items()]
    commit = versions().get("commit", "").removesuffix("-dirty")  # the lines themselves are such a change
    return commit in [one.removesuffix("-dirty") for one in known]


def summary() -> str:
    """Makes the table of the last result of each scenario."""
    lines = {line["scenario"]: line for line in recorded("storm") if "scenario" in line}
    rows: list[list[Any]] = [["scenario", "events", *KINDS, "others", "starts", "exit codes", "outcome"]]
    for name in [*SCENARIOS, DIGITS]:
        if name in lines:
            kinds, codes = collections.Counter[str](), collections.Counter[str]()
            for kind, times in lines[name]["kinds"].items():
                kinds[kind.split(":")[0]] += times
            for code, times in lines[name]["codes"].items():
                codes[code.split(": ")[1]] += times
            others = sum(times for kind, times in kinds.items() if kind not in KINDS)
            ends = ", ".join(f"{code} ({times})" for code, times in sorted(codes.items()))
            shown = [kinds[kind] for kind in KINDS]
            starts = lines[name].get("starts", "")
            rows.append([name, lines[name]["events"], *shown, others, starts, ends, lines[name]["outcome"]])
    return table(rows)


def main(argv: Sequence[str]) -> None:
    """Runs the scenarios and records their outcomes, or prints or writes the table; exits with 1 after a failure."""
    del argv
    if unknown := set(_SCENARIOS.value) - {*SCENARIOS, DIGITS}:
        raise app.UsageError(f"--scenarios={','.join(sorted(unknown))}: expected {', '.join([*SCENARIOS, DIGITS])}")
    if _TABLE.value or _WRITE.value:
        print(summary())
        if _WRITE.value:
            put(ROOT / "docs" / "testing.md", "benchmarks.storm", summary())
        return
    # A shell that starts this in the background ignores SIGINT, which the commands would inherit.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    started.adopt()
    wanted = [name for name in _SCENARIOS.value if not (_SKIP_DONE.value and is_done(name))]
    began, done, failed = time.monotonic(), 0, 0

    def say(name: str, what: str) -> None:
        nonlocal done
        done += 1
        whole = len(wanted) * _EVENTS.value
        left = (time.monotonic() - began) / done * max(0, whole - done)
        print(f"{done}/{whole}, ETA {duration(left)}: {name}: {what}", flush=True)

    for name in wanted:
        root = pathlib.Path(tempfile.mkdtemp(prefix="storm_"))
        try:
            line = play(name, root, functools.partial(say, name))
        finally:
            started.kill_left_over()
        record("storm", line)
        failed += line["outcome"] != "equal"
        if line["outcome"] == "equal":
            shutil.rmtree(root)
        print(f"{name}: {line['outcome']}, {line['events']} events in {line['seconds']} s", flush=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    app.run(main)
