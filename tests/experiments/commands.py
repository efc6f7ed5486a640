"""Starting the commands as a person does, in processes of their own."""

import contextlib
import json
import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import time

from experiments.launch import processor

ROOT = pathlib.Path(__file__).parents[2]
BATTERY = str(pathlib.Path(__file__).with_name("battery.py"))
# Apart for each kind of processor: a program for another's instructions would crash.
CACHE = os.path.join(tempfile.gettempdir(), f"gan_jax_test_cache_{os.getuid()}_{processor()}")


def environment(**changes):
    env = {key: value for key, value in os.environ.items() if key != "XLA_FLAGS"}
    env |= {
        "JAX_COMPILATION_CACHE_DIR": CACHE,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PLATFORMS": "cpu",
    }
    return env | changes


def start(command, *flags, before=(), **env):
    return subprocess.Popen(
        [sys.executable, *before, "-m", f"experiments.{command}", *flags],
        cwd=ROOT,
        env=environment(**env),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def free_port():
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


def together(*flags, count=2, devices=1, each=(), command="train", **env):
    """Starts a command in several processes of one run, each with so many simulated devices and flags of its own."""
    port = free_port()
    return [
        start(
            command,
            f"--coordinator=localhost:{port}",
            f"--num_processes={count}",
            f"--process_id={index}",
            *flags,
            *(each[index] if each else ()),
            **({"XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"} | env),
        )
        for index in range(count)
    ]


def run_together(*flags, code=0, **options):
    """Runs them to their ends, checks that all exit alike, and returns what each printed."""
    processes = together(*flags, **options)
    ends = [finish(process) for process in processes]
    assert [end[0] for end in ends] == [code] * len(ends), ends
    return [end[1] for end in ends]


def run(command, *flags, code=0, **env):
    """Runs a command to its end, checks the exit code, and returns what it printed."""
    process = start(command, *flags, **env)
    output, _ = process.communicate(timeout=200)
    assert process.returncode == code, f"exit {process.returncode}, expected {code}:\n{output}"
    return output


def when(process, seen, timeout=240):
    """Reads a process's output until a line for which `seen` is true, then returns everything so far."""
    deadline, output = time.monotonic() + timeout, ""
    for line in process.stdout:
        output += line
        if seen(line):
            return output
        assert time.monotonic() < deadline, output
    raise AssertionError(f"ended before the line came:\n{output}")


def finish(process):
    """Waits for the end, and returns the exit code and the rest of the output."""
    output, _ = process.communicate(timeout=200)
    return process.returncode, output


def result(workdir):
    return json.loads((workdir / "result.json").read_text())


def metrics(workdir):
    """The log without the times, which differ from run to run."""
    records = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    for record in records:
        with contextlib.suppress(KeyError):
            del record["images_per_second"]
    return records
