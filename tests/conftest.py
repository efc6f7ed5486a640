"""Eight simulated devices, jaxtyping's annotations checked by beartype, and where real data is."""

import gc
import itertools
import os
import pathlib
import signal

from tests import QUICK_XLA

os.environ.setdefault("XLA_FLAGS", f"--xla_force_host_platform_device_count=8 {QUICK_XLA}")

import jaxtyping

_HOOK = jaxtyping.install_import_hook(
    # Not core.state: flax annotates TrainState's params as FrozenDict, which they never are.
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

# The next run of the suite on this machine finds what this one compiled.
jax.config.update("jax_compilation_cache_dir", processes.CACHE)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


# A suite that a shell began in the background ignores SIGINT, and what it starts would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
processes.adopt()

_MAPPINGS = 30_000  # Linux gives a process 65,530; where they run out, XLA ends it by a segmentation fault
_TESTS = itertools.count()


@pytest.fixture(autouse=True)
def room_for_programs():
    """Forgets the compiled programs, of which each has some mappings of memory, before there are too many."""
    yield
    maps = pathlib.Path("/proc/self/maps")
    if next(_TESTS) % 16 == 0 and maps.exists() and maps.read_bytes().count(b"\n") > _MAPPINGS:
        gc.unfreeze()
        jax.clear_caches()


@pytest.fixture(autouse=True)
def nothing_left_over():
    """Kills what a test has started and left running, and fails the test for it, as for what it has left open."""
    gc.freeze()  # what there is already need not be looked at again
    yield
    left = processes.kill_left_over()
    gc.collect()  # so that an unclosed file in a circle of references is this test's fault, not a later one's
    assert not left, f"left running: {left}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item):
    """The same after a test whose setup failed, and for what fixtures of a module have started."""
    try:
        return (yield)
    finally:
        left = processes.kill_left_over()
        if left:
            pytest.fail(f"{item.name}: left running: {left}")


@pytest.fixture
def mesh():
    """Factory: a mesh of the first n devices, in force for the test."""
    import contextlib

    with contextlib.ExitStack() as stack:

        def make(n: int) -> jax.sharding.Mesh:
            made = runtime.make_mesh(jax.devices()[:n])
            stack.enter_context(jax.set_mesh(made))
            return made

        yield make


@pytest.fixture
def tfds_dir() -> str:
    """The directory of prepared data sets, or a skip that says how to have one."""
    path = os.environ.get("TFDS_DATA_DIR", "")
    if not pathlib.Path(path, "mnist").is_dir():
        pytest.skip("TFDS_DATA_DIR is not set to a directory with mnist in it")
    return path
