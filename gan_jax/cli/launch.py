"""Launch flags of all commands: the number of processes, the platform, timeouts and the compilation cache."""

import contextlib
import os
from collections.abc import Iterator

import jax
from absl import flags

from gan_jax import runtime
from gan_jax.cli import kinds
from gan_jax.distributed import hosts
from gan_jax.host import check_writable, user_path
from gan_jax.runtime import environment
from gan_jax.types import InvalidInputError

_LONG = 10**7  # seconds, some months
_MOST_PROCESSES = 2**20

_MULTIHOST = flags.DEFINE_enum(
    "multihost", "auto", ["auto", "on", "off"],
    "run as one of several processes: auto joins if a coordinator is given or a cluster is found (TPU pod, GKE, SLURM, "
    "Open MPI)",
)  # fmt: skip
_COORDINATOR = flags.DEFINE_string("coordinator", "", "HOST:PORT of process 0; needed if no cluster is found")
_NUM_PROCESSES = flags.DEFINE_integer(
    "num_processes",
    None,
    "number of processes; needed if no cluster is found",
    lower_bound=1,
    upper_bound=_MOST_PROCESSES,
)
_PROCESS_ID = flags.DEFINE_integer(
    "process_id", None, "index of this process, from 0", lower_bound=0, upper_bound=_MOST_PROCESSES
)
_CONNECT_TIMEOUT = flags.DEFINE_integer(
    "connect_timeout", 300, "seconds to wait until all processes have joined", lower_bound=1, upper_bound=_LONG
)
_HEARTBEAT_TIMEOUT = flags.DEFINE_integer(
    "heartbeat_timeout",
    100,
    "seconds without a heartbeat after which JAX ends all processes",
    lower_bound=1,
    upper_bound=_LONG,
)
_STEP_TIMEOUT = kinds.number(
    "step_timeout",
    "seconds within which a dispatch, compilation or restore must finish, else the process dumps its stacks and exits; "
    "0 waits for ever. Default: 600 with several processes, else 0",
    lower_bound=0,
    upper_bound=_LONG,
)
_REQUIRE_PLATFORM = flags.DEFINE_enum(
    "require_platform",
    None,
    ["tpu", "gpu", "cpu"],
    "refuse to run on another platform, such as the CPU when a driver fails",
)
_DETERMINISTIC = flags.DEFINE_bool(
    "deterministic", False, "on GPUs, use only operations that give the same bits in every run; slower"
)
_COMPILATION_CACHE = kinds.path(
    "compilation_cache",
    None,
    "directory that keeps compiled programs, so that later starts do not compile them again; default: "
    "$JAX_COMPILATION_CACHE_DIR, else ~/.cache/gan_jax; empty for none",
    empty=True,
)


def passed_on() -> list[str]:
    """Returns the flags that child processes inherit, as arguments of a command line."""
    some = (_STEP_TIMEOUT, _REQUIRE_PLATFORM, _DETERMINISTIC, _COMPILATION_CACHE)
    return [flags.FLAGS[flag.name].serialize() for flag in some if flag.present]


def is_one_of_several() -> bool:
    """Whether the flags declare this process one of several."""
    return bool(_COORDINATOR.value) or (_NUM_PROCESSES.value or 1) > 1


@contextlib.contextmanager
def launched() -> Iterator[runtime.Watchdog]:
    """Joins the other processes of the run, if there are any; yields the watchdog of this process."""
    # XLA reads its flags when the first backend starts, so they are set before anything touches the devices.
    _cache_programs()
    if _DETERMINISTIC.value:
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_gpu_deterministic_ops=true".strip()
    hosts.join(
        _MULTIHOST.value,
        coordinator=_COORDINATOR.value,
        num_processes=_NUM_PROCESSES.value,
        process_id=_PROCESS_ID.value,
        connect_timeout=_CONNECT_TIMEOUT.value,
        heartbeat_timeout=_HEARTBEAT_TIMEOUT.value,
        log=lambda message: print(message, flush=True),
    )
    timeout = _STEP_TIMEOUT.value
    if timeout is None:
        timeout = 600.0 if hosts.client() is not None else 0.0
    with runtime.Watchdog(timeout) as watchdog:
        backend = jax.default_backend()
        if _REQUIRE_PLATFORM.value not in (None, backend):
            raise InvalidInputError(
                f"--require_platform={_REQUIRE_PLATFORM.value}, but JAX runs on {backend}: install JAX for it (an "
                "extra of this package: cuda13, cuda12 or tpu), check driver and JAX_PLATFORMS, or leave the flag out"
            )
        yield watchdog
    hosts.part()  # only without an exception: it waits for all processes


def _cache_programs() -> None:
    """Sets up the compilation cache, by default one per instruction set: programs compiled for another one crash."""
    asked, named = _COMPILATION_CACHE.value, os.environ.get("JAX_COMPILATION_CACHE_DIR")
    default = environment.cache_directory() / environment.processor()
    directory = user_path(asked or named or default, "--compilation_cache, or $JAX_COMPILATION_CACHE_DIR")
    usable = asked != ""
    try:
        if usable:
            check_writable(directory, f"--compilation_cache={directory}")
    except InvalidInputError as error:
        if asked:
            raise InvalidInputError(f"{error}, or switch the cache off by --compilation_cache=") from error
        usable = False
        reason = str(error.__cause__)
        print(f"compiled programs are not kept: {directory} cannot be written ({reason})", flush=True)
    if not usable:
        jax.config.update("jax_enable_compilation_cache", False)
        return
    jax.config.update("jax_compilation_cache_dir", str(directory))
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
