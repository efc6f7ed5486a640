"""A program that does what its argument says, for the tests of how processes are started and ended."""

import json
import os
import signal
import subprocess
import sys
import time

import jax
from jax._src import xla_bridge


def facts():
    """Describes this process, before it does anything else."""
    return {
        "pid": os.getpid(),
        "threads": getattr(sys.modules.get("tests.preload"), "THREADS", None),
        "backends": len(xla_bridge._backends),
        "argv": sys.argv,
        "mark": os.environ.get("ECHO_MARK"),
        "path": __name__,
        "preloaded": getattr(sys.modules.get("tests.preload"), "COMPLETE", False),
        "directory": os.getcwd(),
    }


def main(what):
    if what == "facts":
        print(json.dumps(facts() | {"devices": len(jax.devices())}))
    elif what == "exit":
        sys.exit(7)
    elif what == "error":
        raise ValueError("on purpose")
    elif what == "interrupt":
        print("not flushed yet")
        signal.raise_signal(signal.SIGINT)
    elif what == "wait":
        print("waiting", flush=True)
        time.sleep(1000)
    elif what == "leave":  # leaves a child process behind, and ends
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"], **quiet)
        print(child.pid, flush=True)
        child.returncode = 0  # otherwise Python warns that the child still runs


if __name__ == "__main__":
    main(sys.argv[1])
