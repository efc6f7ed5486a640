"""The environment of a run: versions, processor, XLA flags, and the cache directory."""

import hashlib
import importlib.metadata
import os
import pathlib
import platform
import shutil
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import jax

from gan_jax.host import user_path
from gan_jax.types import InvalidInputError

_PACKAGES = ("gan_jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "tensorflow-datasets", "numpy")


def versions() -> dict[str, str]:
    """Returns the versions of Python and of the packages that affect results, and the commit of a git clone."""
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
    """Returns the settings, besides code and config, that affect a run's results bit by bit."""
    xla_flags = os.environ.get("XLA_FLAGS", "")
    return {
        "platform": jax.default_backend(),
        "deterministic": "--xla_gpu_deterministic_ops=true" in xla_flags,
        "XLA_FLAGS": xla_flags,
        "LIBTPU_INIT_ARGS": os.environ.get("LIBTPU_INIT_ARGS", ""),
    }


def record() -> dict[str, Any]:
    """Returns the environment of this process, as `config.json` stores it."""
    return {
        "versions": versions(),
        **circumstances(),
        "processes": jax.process_count(),
        "devices": [device.device_kind for device in jax.devices()],
        "command": sys.argv,
    }


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Describes, in one line, the versions and the platform that differ between two records; empty if none does."""
    old, new = (dict(x.get("versions", {})) | {"platform": x.get("platform", "unknown")} for x in (before, now))
    return ", ".join(
        f"{name} {old.get(name, 'unknown')} -> {new.get(name, 'unknown')}"
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    )


def cache_directory() -> pathlib.Path:
    """Returns the user's cache directory, for files that can be regenerated. It may be one that cannot be written."""
    try:
        return user_path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "$XDG_CACHE_HOME") / "gan_jax"
    except InvalidInputError:  # a user without a home, as containers may have
        return pathlib.Path(os.devnull) / "gan_jax"


def processor() -> str:
    """Returns a hash of the processor's instruction set, or of its name if the system does not list instructions.

    It names the compilation cache, because programs compiled for another instruction set crash.
    """
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = [platform.machine(), platform.processor()]
    known = sorted({line for line in lines if line.startswith(("flags", "Features"))}) or lines[:2]
    return hashlib.sha256("\n".join(known).encode()).hexdigest()[:12]
