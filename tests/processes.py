"""Starts the commands as a user does, in processes of their own.

Importing the library and its dependencies takes most of the processor time of a short command. So a process is forked
from one that has imported everything and done nothing else (the fork server of the standard library). It is a real
process nevertheless, with its own process id, signals, exit code, devices and output. A process is started as
`python -m` if a test wants it `fresh`, or if its environment has variables that Python reads when it starts. Variables
that JAX reads are set in the forked process.
"""

import atexit
import contextlib
import ctypes
import json
import multiprocessing
import os
import pathlib
import runpy
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from multiprocessing import connection, forkserver, resource_tracker

import jax
import numpy as np
import psutil

from gan_jax.runtime.environment import processor
from tests import QUICK_XLA

ROOT = pathlib.Path(__file__).parents[1]
CONFORMANCE = str(ROOT / "tests" / "experiments" / "conformance.py")
# One directory per compiler version and kind of processor: a program with another one's instructions would crash.
CACHE = os.path.join(tempfile.gettempdir(), f"gan_jax_test_cache_{os.getuid()}_{jax.__version__}_{processor()}")
PATIENCE = 240.0  # seconds to wait for a process to end, or to print what a test waits for
READ_AT_START = "PYTHON"  # prefix of the variables that an interpreter reads when it starts
BOOLEANS = {"1": True, "true": True, "0": False, "false": False}

_FORK = multiprocessing.get_context("forkserver")
_FORK.set_forkserver_preload(["tests.preload"])


def environment(devices=0, *, quick=False, **changes):
    """Returns the environment of a process with `devices` simulated devices; `quick` makes XLA optimise less."""
    env = {key: value for key, value in os.environ.items() if key != "XLA_FLAGS"}
    flags = [f"--xla_force_host_platform_device_count={devices}"] if devices else []
    flags += [QUICK_XLA] if quick else []
    env |= {"XLA_FLAGS": " ".join(flags)} if flags else {}
    env |= {
        "JAX_COMPILATION_CACHE_DIR": CACHE,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PLATFORMS": "cpu",
    }
    return env | changes


class Process:
    """A process that a test has started: its exit code, signals to it, and its output."""

    recent: list["Process"] = []  # processes started since the last search for left-over ones

    def __init__(self, name, pid, poll, output):
        self.name, self.pid, self.poll = name, pid, poll
        self._lines, self._taken, self._closed = [], 0, False
        self._news = threading.Condition()
        threading.Thread(target=self._read, args=(output,), daemon=True).start()
        Process.recent.append(self)

    def _read(self, output):
        with output:
            for line in output:
                with self._news:
                    self._lines.append(line)
                    self._news.notify_all()
        with self._news:
            self._closed = True
            self._news.notify_all()

    def send_signal(self, number):
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self):
        self.send_signal(signal.SIGKILL)

    def lines(self, timeout=PATIENCE):
        """Yields each line that was not taken yet, as it comes, until the output ends."""
        deadline = time.monotonic() + timeout
        while True:
            with self._news:
                while self._taken == len(self._lines) and not self._closed:
                    if not self._news.wait(deadline - time.monotonic()):
                        raise TimeoutError(f"{self.name}: no end after {timeout:g} s:\n{''.join(self._lines)}")
                if self._taken == len(self._lines):
                    return
                line, self._taken = self._lines[self._taken], self._taken + 1
            yield line

    def output(self):
        """Returns all that the process has printed so far."""
        with self._news:
            return "".join(self._lines)

    def finish(self, timeout=PATIENCE):
        """Waits for the end, and returns the exit code and the rest of the output."""
        deadline, output = time.monotonic() + timeout, "".join(self.lines(timeout))
        return self.wait(max(0.0, deadline - time.monotonic())), output

    def wait(self, timeout=PATIENCE):
        """Waits for the end, without reading the output, and returns the exit code."""
        deadline = time.monotonic() + timeout
        while (code := self.poll()) is None:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self.name}: does not end within {timeout:g} s:\n{self.output()}")
            time.sleep(0.001)
        return code


def _configure(name, value):
    """Sets what JAX read from a variable when it was imported; raises for a value that JAX would refuse there."""
    before = getattr(jax.config, name.lower())
    if isinstance(before, bool):
        jax.config.update(name.lower(), BOOLEANS[value.lower()])
    else:
        jax.config.update(name.lower(), type(before)(value) if isinstance(before, int | float) else value)


def _run_module(output, module, arguments, env):
    """Runs `python -m module arguments` in a forked process, with its output into a pipe."""
    os.chdir(ROOT)
    os.dup2(output.fileno(), 1)
    os.dup2(output.fileno(), 2)
    output.close()
    for name, value in env.items():
        if name.startswith("JAX_") and value != os.environ.get(name):
            _configure(name, value)
    os.environ.clear()
    os.environ.update(env)
    np.random.seed()  # a random state of its own, as if the process had imported NumPy itself
    sys.argv, interrupted = [module, *arguments], False
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except KeyboardInterrupt:
        traceback.print_exc()
        interrupted = True
    finally:  # as at the end of an interpreter, which a forked process does not reach
        threading._shutdown()
        atexit._run_exitfuncs()
        sys.stdout.flush()
    if interrupted:  # ends by the signal, as Python does, so that the exit code is the same
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)


def _ensure_server():
    """Starts the fork server with one thread, as forking requires: OpenBLAS would start more as NumPy is imported."""
    before = dict(os.environ)
    try:
        os.environ.clear()
        os.environ.update(environment(OPENBLAS_NUM_THREADS="1"))
        forkserver.ensure_running()
    finally:
        os.environ.clear()
        os.environ.update(before)


def _forked(module, arguments, env):
    _ensure_server()
    read, write = os.pipe()
    with connection.Connection(write, readable=False) as output:
        process = _FORK.Process(target=_run_module, args=(output, module, arguments, env))
        process.start()
    return Process(module, process.pid, lambda: process.exitcode, os.fdopen(read))


def _fresh(before, module, arguments, env):
    process = subprocess.Popen(
        [sys.executable, *before, "-m", module, *arguments],
        cwd=ROOT,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    return Process(module, process.pid, process.poll, process.stdout)


def start_module(module, *arguments, before=(), fresh=False, quick=None, devices=0, **env):
    """Starts `python -m module arguments`.

    Args:
      module: name of the module.
      *arguments: arguments of the command line.
      before: words between `python` and `-m`.
      fresh: whether to start from nothing, as a user does, with a hash seed of its own, instead of forking.
      quick: whether to compile with few of XLA's optimisations; by default unless `fresh`.
      devices: number of simulated devices; 0 for JAX's default, which is one.
      **env: further variables of the environment.
    """
    whole = environment(devices, quick=not fresh if quick is None else quick, **env)
    if fresh or before or any(name.startswith(READ_AT_START) for name in env):
        return _fresh(before, module, arguments, whole)
    return _forked(module, arguments, whole)


def start(command, *flags, **options):
    return start_module(f"experiments.{command}", *flags, **options)


def finish(process):
    """Waits for the end, and returns the exit code and the rest of the output."""
    return process.finish()


def when(process, seen, timeout=PATIENCE):
    """Reads a process's output until a line for which `seen` is true, and returns all that it read."""
    output = ""
    for line in process.lines(timeout):
        output += line
        if seen(line):
            return output
    raise AssertionError(f"ended before the line came:\n{output}")


def run(command, *flags, code=0, **options):
    """Runs a command to its end, checks the exit code, and returns what it printed."""
    found, output = start(command, *flags, **options).finish()
    assert found == code, f"exit {found}, expected {code}:\n{output}"
    return output


def free_port():
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


def together(*flags, count=2, devices=1, each=(), command="train", **options):
    """Starts a command in `count` processes of one run, each with `devices` simulated devices and its own flags."""
    port = free_port()
    return [
        start(
            command,
            f"--coordinator=localhost:{port}",
            f"--num_processes={count}",
            f"--process_id={index}",
            *flags,
            *(each[index] if each else ()),
            devices=devices,
            **options,
        )
        for index in range(count)
    ]


def run_together(*flags, code=0, **options):
    """Runs the processes of `together` to their ends, checks all exit codes, and returns what each printed."""
    ends = [finish(process) for process in together(*flags, **options)]
    assert [end[0] for end in ends] == [code] * len(ends), ends
    return [end[1] for end in ends]


def result(workdir):
    return json.loads((workdir / "result.json").read_text())


def metrics(workdir):
    """Returns the log without the speed, which differs from run to run."""
    records = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    for record in records:
        with contextlib.suppress(KeyError):
            del record["images_per_second"]
    return records


def adopt():
    """Makes this process the parent of descendants whose own parent has ended, so that `kill_left_over` finds them."""
    if sys.platform == "linux":
        set_child_subreaper = 36
        ctypes.CDLL(None).prctl(set_child_subreaper, 1, 0, 0, 0)


def kill_left_over():
    """Kills the processes that tests have started and that still run; returns their names."""
    if not Process.recent:
        return []
    own = {forkserver._forkserver._forkserver_pid, resource_tracker._resource_tracker._pid}
    names = {process.pid: process.name for process in Process.recent if process.poll() is None}
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.pid not in own and process.status() != psutil.STATUS_ZOMBIE:
                names.setdefault(process.pid, shlex.join(process.cmdline()))
                process.kill()
    for process in Process.recent:
        process.finish()
    Process.recent.clear()
    return list(names.values())
