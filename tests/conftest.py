"""Configuration of all tests: eight simulated devices, annotations checked by beartype, cleanup, and real data."""

import ctypes
import gc
import itertools
import os
import pathlib
import resource
import signal

from tests import QUICK_XLA

os.environ.setdefault("XLA_FLAGS", f"--xla_force_host_platform_device_count=8 {QUICK_XLA}")

import jaxtyping

_HOOK = jaxtyping.install_import_hook(
    # Without core.state: flax annotates TrainState's params as FrozenDict, which they never are.
    [
        "gan_jax.augment",
        "gan_jax.losses",
        "gan_jax.regularizers",
        *(
            f"gan_jax.core.{name}"
            for name in ("hooks", "hparams", "optimizers", "phase", "priors", "rules", "sharding", "step")
        ),
    ],
    "beartype.beartype",
)
_HOOK.__enter__()

import jax
import pytest

from gan_jax import runtime
from tests import processes

# The next run of the suite on this machine reuses the programs that this one compiles.
jax.config.update("jax_compilation_cache_dir", processes.CACHE)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


# If a shell starts the suite in the background, it ignores SIGINT, and the processes that it starts would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
processes.adopt()

_MAPPINGS = 30_000  # Linux allows a process 65,530; beyond them XLA crashes with a segmentation fault
_MEMORY = 2_500_000_000  # bytes of a process; with the programs of all tests it would have 7 GB
_TESTS = itertools.count()


@pytest.fixture(autouse=True)
def room_for_programs():
    """Drops the compiled programs, each of which holds memory and several mappings, before there are too many."""
    yield
    own = pathlib.Path("/proc/self")
    if next(_TESTS) % 16 or not own.exists():
        return
    pages = int((own / "statm").read_text().split()[1])
    if pages * resource.getpagesize() > _MEMORY or (own / "maps").read_bytes().count(b"\n") > _MAPPINGS:
        gc.unfreeze()
        jax.clear_caches()
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)  # else the freed memory would stay with the process


@pytest.fixture(autouse=True)
def nothing_left_over():
    """Kills the processes that a test left running, and fails the test; unclosed files and sockets fail it too."""
    gc.freeze()  # objects that exist already need not be examined again
    yield
    left = processes.kill_left_over()
    gc.collect()  # so that an unclosed file in a reference cycle fails this test, not a later one
    assert not left, f"left running: {left}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item):
    """Does the same after a test whose setup failed, and for processes that module fixtures have started."""
    try:
        return (yield)
    finally:
        left = processes.kill_left_over()
        if left:
            pytest.fail(f"{item.name}: left running: {left}")


@pytest.fixture
def mesh():
    """Returns a function that makes a mesh of the first n devices, and activates it for the rest of the test."""
    import contextlib

    with contextlib.ExitStack() as stack:

        def make(n: int) -> jax.sharding.Mesh:
            made = runtime.make_mesh(jax.devices()[:n])
            stack.enter_context(jax.set_mesh(made))
            return made

        yield make


@pytest.fixture
def tfds_dir() -> str:
    """Returns the directory of prepared data sets; without one, skips the test and says how to set it."""
    path = os.environ.get("TFDS_DATA_DIR", "")
    if not pathlib.Path(path, "mnist").is_dir():
        pytest.skip("TFDS_DATA_DIR is not set to a directory with mnist in it")
    return path
