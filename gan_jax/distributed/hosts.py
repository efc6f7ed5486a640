"""Coordination of several processes in one run: joining, agreeing, and leaving so that no process waits for ever.

JAX handles what goes through the devices. This module exchanges facts and decisions through the key-value store of
JAX's coordination service, which process 0 hosts. In a single process everything is a no-op.
"""

import collections
import contextlib
import faulthandler
import itertools
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
from jax._src import distributed  # the client of the coordination service has no public name
from jax._src.clusters import ClusterEnv
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from gan_jax.distributed import mesh as meshes
from gan_jax.types import InvalidInputError

FAILED, BAD_INPUT, LOST = 1, 2, 69  # exit codes; LOST: another process is gone, or a step does not end
_LINGER = 3.0  # seconds for which a leaving process waits for the others to notice
_PREFIX = "gan_jax/"


class LostProcessError(RuntimeError):
    """The error for another process of the run that is missing or does not answer."""


def client() -> Any:
    """Returns JAX's client of the coordination service; None in a run of one process."""
    state = distributed.global_state
    return state.client if state.num_processes > 1 else None


def rank() -> tuple[int, int]:
    """Returns the index of this process, and the number of processes."""
    return distributed.global_state.process_id, distributed.global_state.num_processes


def is_primary() -> bool:
    """Whether this is process 0, which prints messages and writes logs."""
    return rank()[0] == 0


def join(
    multihost: str,
    *,
    coordinator: str = "",
    num_processes: int | None = None,
    process_id: int | None = None,
    connect_timeout: int = 300,
    heartbeat_timeout: int = 100,
    log: Callable[[str], None] = print,
) -> None:
    """Joins the processes of a run. Must be called before anything touches JAX's devices.

    Args:
      multihost: `on`, `off`, or `auto`: join if a coordinator is given, or if JAX finds a cluster (TPU pods, GKE,
        SLURM, Open MPI).
      coordinator: `host:port` of process 0; JAX finds it in a cluster.
      num_processes: number of processes of the run; JAX finds it in a cluster.
      process_id: index of this process, from 0; JAX finds it in a cluster.
      connect_timeout: seconds to wait until all processes have joined.
      heartbeat_timeout: seconds without a heartbeat after which JAX regards a process as dead and ends all of them.
      log: receives the messages.

    Raises:
      InvalidInputError: for arguments that contradict each other, or `on` without a coordinator or a cluster.
    """
    given = [value for value in (coordinator or None, num_processes, process_id) if value is not None]
    if multihost == "off" or len(given) not in (0, 3):
        if given:
            raise InvalidInputError(
                f"multihost={multihost}, coordinator={coordinator!r}, num_processes={num_processes}, process_id="
                f"{process_id}: give the last three together with multihost=auto or on, or none of them"
            )
        return
    local_devices = None
    if not given:
        found = ClusterEnv.auto_detect_unset_distributed_params(None, None, None, None, None, connect_timeout)
        coordinator, num_processes, process_id, local_devices = found[0] or "", *found[1:]
    if not coordinator or num_processes is None or process_id is None:
        if multihost == "on":
            raise InvalidInputError(
                "multihost=on, but JAX finds no cluster here (TPU pod, GKE, SLURM, Open MPI): give "
                "coordinator=HOST:PORT of process 0, num_processes, and process_id from 0"
            )
        return
    if not 0 <= process_id < num_processes or ":" not in coordinator:
        raise InvalidInputError(
            f"coordinator={coordinator!r}, num_processes={num_processes}, process_id={process_id}: expected HOST:PORT, "
            "and process ids from 0 to num_processes - 1"
        )
    if faulthandler.is_enabled():
        # JAX aborts a process that has lost another one. Dumping the stacks of threads that run meanwhile may crash,
        # and the exit code would be that of a segmentation fault; so only the thread at fault is dumped.
        faulthandler.enable(all_threads=False)
    with _patience(coordinator, num_processes, process_id, connect_timeout, log):
        jax.distributed.initialize(
            coordinator,
            num_processes,
            process_id,
            local_devices,
            initialization_timeout=connect_timeout + 60,  # later than ours, whose error says more
            heartbeat_timeout_seconds=heartbeat_timeout,
            cluster_detection_method="deactivate",
        )
    log(f"process {process_id} of {num_processes}: all have joined")


@contextlib.contextmanager
def _patience(coordinator: str, count: int, index: int, timeout: int, log: Callable[[str], None]) -> Iterator[None]:
    """Logs what this process waits for and exits with a clear error on timeout; JAX's own abort names no process."""
    others = f"{count - 1} more" if index == 0 else f"the coordinator {coordinator} and the other processes"
    joined = threading.Event()

    def wait() -> None:
        began = time.monotonic()
        while not joined.wait(min(30.0, max(0.0, began + timeout - time.monotonic()))):
            waited = time.monotonic() - began
            if waited >= timeout:
                end(LOST, f"not all processes joined within {timeout} s: {_diagnosis(coordinator, count, index)}")
            log(f"process {index} of {count}: still waiting ({waited:.0f} of {timeout} s)")

    log(f"process {index} of {count}: waiting for {others}, at most {timeout} s")
    threading.Thread(target=wait, daemon=True).start()
    try:
        yield
    finally:
        joined.set()


def _diagnosis(coordinator: str, count: int, index: int) -> str:
    start = "start all of them, with the same coordinator and num_processes"
    if index == 0:
        return f"of processes 1 to {count - 1} at least one has not joined; {start}"
    try:
        socket.create_connection((coordinator.rsplit(":", 1)[0], int(coordinator.rsplit(":", 1)[1])), 5).close()
    except OSError as error:
        return f"nothing answers at {coordinator} ({error}): is process 0 running, and can this host reach it?"
    return f"the coordinator answers, so another process is missing; {start}"


def part() -> None:
    """Leaves the run in an orderly way: waits until all processes have finished, and disconnects."""
    if client() is not None:
        jax.distributed.shutdown()


def complain(message: str) -> None:
    """Prints an error, with the index of this process if there are several."""
    index, count = rank()
    where = f"process {index} of {count}: " if count > 1 else ""
    sys.stdout.flush()
    print(f"error: {where}{message}", file=sys.stderr, flush=True)


def end(code: int, message: str) -> NoReturn:
    """Prints an error and ends this process at once, without the barriers of an orderly exit."""
    complain(message)
    os._exit(code)


def leave(code: int, message: str) -> NoReturn:
    """Ends this process with an error, and tells the other processes, whose watchdogs end them with the same code.

    A process that seems lost has often left with an error of its own. With the code `LOST` this process therefore looks
    for such an error first, and takes over its message and exit code.
    """
    reason: list[Any] = [code, message]

    def ask() -> None:
        for other, (theirs, why) in sorted(departed().items()):
            if other == rank()[0]:
                continue
            reason[:] = [theirs, f"ending, since process {other} has left: {why}"]
            return

    def tell_all() -> None:
        client().key_value_set(f"{_PREFIX}left/{rank()[0]}", json.dumps(reason), allow_overwrite=True)
        deadline = time.monotonic() + _LINGER
        while time.monotonic() < deadline and len(departed()) < rank()[1]:  # else it would seem lost
            time.sleep(0.1)
        time.sleep(1.5 if is_primary() else 0.0)  # JAX aborts the others once the coordinator is gone

    if code == LOST and client() is not None:
        _try(ask, 1.0)
    complain(reason[1])
    if client() is not None:
        _try(tell_all, _LINGER + 3.0)
    os._exit(reason[0])


def _try(task: Callable[[], None], seconds: float) -> None:
    """Runs a task that needs the coordinator, which may not answer any more, and gives up after some seconds."""
    thread = threading.Thread(target=task, daemon=True)
    thread.start()
    thread.join(seconds)


def departed() -> dict[int, tuple[int, str]]:
    """Returns the exit code and message of each process that has left with an error, by index."""
    found = client().key_value_dir_get(f"{_PREFIX}left/")
    return {int(key.rsplit("/", 1)[1]): tuple(json.loads(value)) for key, value in found}


def read(topic: str, of: int | str, timeout: float) -> Any:
    """Reads what a process has published on a topic, and waits until it has.

    Args:
      topic: topic with its turn, from `_turn`.
      of: index of the process, or another name that `tell` was given.
      timeout: seconds to wait.

    Raises:
      LostProcessError: if nothing was published within that time.
    """
    try:
        return json.loads(client().blocking_key_value_get(f"{_PREFIX}{topic}/{of}", int(timeout * 1000)))
    except jax.errors.JaxRuntimeError as error:
        raise LostProcessError(f"process {of} did not report its {topic} within {timeout:g} s") from error


def tell(topic: str, value: Any, of: int | str | None = None) -> None:
    """Publishes a value on a topic, under the index of this process or the name `of`; a second time is an error."""
    client().key_value_set(f"{_PREFIX}{topic}/{rank()[0] if of is None else of}", json.dumps(value))


_turns: collections.Counter[str] = collections.Counter()  # exchanges so far, by topic


def _turn(topic: str) -> str:
    """Returns a unique name for each exchange on a topic; all processes must make their exchanges in the same order."""
    _turns[topic] += 1
    return f"{topic}/{_turns[topic]}"


def agree(topic: str, facts: dict[str, Any], timeout: float) -> None:
    """Checks that all processes have the same facts.

    Args:
      topic: what the facts are about, for the messages.
      facts: the facts of this process, by name.
      timeout: seconds to wait for each of the other processes.

    Raises:
      InvalidInputError: on all processes if the facts differ; the message lists the differences from process 0.
      LostProcessError: if a process does not answer.
    """
    index, count = rank()
    if count == 1:
        return
    turn = _turn(topic)
    tell(turn, facts)
    if index == 0:
        ours = json.loads(json.dumps(facts))  # as the others' facts arrive: tuples become lists
        differences = []
        for other in range(1, count):
            theirs = read(turn, other, timeout)
            differences += [
                f"{name}: {theirs.get(name)!r} on process {other}, {ours.get(name)!r} on process 0"
                for name in sorted(ours.keys() | theirs.keys())
                if ours.get(name) != theirs.get(name)
            ]
        tell(turn, differences, "verdict")
    else:
        differences = read(turn, "verdict", 2 * timeout)
    if differences:
        raise InvalidInputError(
            f"the processes do not have the same {topic}:\n  "
            + "\n  ".join(differences)
            + "\nstart all of them in the same way"
        )


def decide(topic: str, choose: Callable[[], Any], timeout: float) -> Any:
    """Returns the value that process 0 chooses, on every process.

    Args:
      topic: what the choice is about, for the messages.
      choose: makes the choice; called on process 0 only. Its result must be serialisable as JSON.
      timeout: seconds to wait for process 0.

    Returns:
      The choice; with several processes as JSON returns it, so that tuples are lists.

    Raises:
      LostProcessError: if process 0 does not answer in time.
    """
    if client() is None:
        return choose()
    turn = _turn(topic)
    if is_primary():
        tell(turn, choose())
    return read(turn, 0, timeout)


def any_of(topic: str, yes: bool, timeout: float) -> bool:
    """Whether any process says yes. Every process waits for each of the others, `timeout` seconds at most."""
    if client() is None:
        return yes
    turn = _turn(topic)
    tell(turn, yes)
    return any(read(turn, other, timeout) for other in range(rank()[1]))


def told_by_another(error: BaseException) -> bool:
    """Whether an error is one that a collective or the coordination service raises when another process has ended."""
    if isinstance(error, LostProcessError) or "Gloo" in str(error):
        return True
    signs = ("UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED", "ABORTED", "heartbeat")
    barrier = isinstance(error, TimeoutError) and "barrier" in str(error)  # Orbax's
    return barrier or (isinstance(error, jax.errors.JaxRuntimeError) and any(sign in str(error) for sign in signs))


def exit_code(error: BaseException) -> int:
    """Returns the exit code for an error."""
    return BAD_INPUT if isinstance(error, InvalidInputError) else LOST if told_by_another(error) else FAILED


def announce(error: BaseException) -> None:
    """Tells the other processes about an error that is about to be raised here; their watchdogs then end them."""
    if client() is not None:
        value = json.dumps([exit_code(error), f"{type(error).__name__}: {error}"[:1000]])
        _try(lambda: client().key_value_set(f"{_PREFIX}left/{rank()[0]}", value, allow_overwrite=True), 2.0)


class Vote:
    """A vote that is yes if any process says yes. All processes get the result one call later, so that none waits."""

    def __init__(self, mesh: Mesh) -> None:
        self._mesh, self._pending = mesh, None
        self._any = jax.jit(jnp.any, out_shardings=meshes.replicated(mesh))

    def cast(self, yes: bool) -> bool:
        """Casts this process's vote; returns the result of the previous call, or the vote itself with one process."""
        if client() is None:
            return yes
        # One element for each device; this process fills those of its own devices with its vote.
        sharding = NamedSharding(self._mesh, PartitionSpec(self._mesh.axis_names))
        ballot = jax.make_array_from_callback((self._mesh.size,), sharding, lambda index: np.full(1, yes))
        before, self._pending = self._pending, self._any(ballot)
        return before is not None and bool(np.asarray(before))


_calls = itertools.count()  # numbers the calls of `preempted`


def preempted() -> bool:
    """Whether JAX has a preemption notice. All processes call it once per dispatch and get True in the same one."""
    manager = distributed.global_state.preemption_sync_manager
    # JAX chooses the call after the furthest process by its number, so calls are numbered without gaps.
    return manager is not None and multihost_utils.reached_preemption_sync_point(next(_calls))
