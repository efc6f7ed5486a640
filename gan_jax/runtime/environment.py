"""The environment of a run: versions, processor, flags of XLA, and the cache directory."""

import hashlib
import importlib.metadata
import os
import pathlib
import platform
import shutil
import subprocess
import sys
from typing import Any

import jax

_PACKAGES = ("gan_jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "tensorflow-datasets", "numpy")


def versions() -> dict[str, str]:
    """The versions of Python and of the packages that results depend on, and the commit where this is a git clone."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    clone = pathlib.Path(__file__).parents[2]
    if (clone / ".git").exists() and shutil.which("git") is not None:
        command = ["git", "describe", "--always", "--dirty", "--abbrev=40"]
        described = subprocess.run(command, cwd=clone, capture_output=True, text=True, check=False)
        found["commit"] = described.stdout.strip() or "unknown"
    return found


def circumstances() -> dict[str, Any]:
    """Settings beside code and config that decide the bits of a run."""
    xla_flags = os.environ.get("XLA_FLAGS", "")
    return {
        "platform": jax.default_backend(),
        "deterministic": "--xla_gpu_deterministic_ops=true" in xla_flags,
        "XLA_FLAGS": xla_flags,
        "LIBTPU_INIT_ARGS": os.environ.get("LIBTPU_INIT_ARGS", ""),
    }


def record() -> dict[str, Any]:
    """The environment of this process as `config.json` keeps it."""
    return {
        "versions": versions(),
        **circumstances(),
        "processes": jax.process_count(),
        "devices": [device.device_kind for device in jax.devices()],
        "command": sys.argv,
    }


def cache_directory() -> pathlib.Path:
    """The user's cache directory, for files that can be made again."""
    return pathlib.Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")) / "gan_jax"


def processor() -> str:
    """A hash of the processor's instruction set, or of its name where the system does not list the instructions."""
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = [platform.machine(), platform.processor()]
    known = sorted({line for line in lines if line.startswith(("flags", "Features"))}) or lines[:2]
    return hashlib.sha256("\n".join(known).encode()).hexdigest()[:12]
