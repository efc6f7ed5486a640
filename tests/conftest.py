"""Configuration of all tests: eight simulated devices, annotations checked by beartype, cleanup, and real data."""

import gc
import itertools
import os
import pathlib
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
_TESTS = itertools.count()


@pytest.fixture(autouse=True)
def room_for_programs():
    """Drops the compiled programs, each of which holds several memory mappings, before there are too many."""
    yield
    maps = pathlib.Path("/proc/self/maps")
    if next(_TESTS) % 16 == 0 and maps.exists() and maps.read_bytes().count(b"\n") > _MAPPINGS:
        gc.unfreeze()
        jax.clear_caches()


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
