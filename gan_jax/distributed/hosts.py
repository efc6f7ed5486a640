"""Several processes, one run: joining, agreeing, and leaving without letting the others wait for ever.

What goes through the devices is JAX's business. This is the rest: facts and decisions, by the key-value store of JAX's
coordination service, which process 0 hosts. Everything is a no-op in a process that is alone.
"""

import collections
import contextlib
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

FAILED, BAD_INPUT, LOST = 1, 2, 69  # exit codes; LOST: another process, or a step that does not end, brought it down
_LINGER = 3.0  # seconds that a process which leaves waits for the others to notice
_PREFIX = "gan_jax/"


class LostProcessError(RuntimeError):
    """Another process of the run is missing, or does not answer."""


def client() -> Any:
    """JAX's client of the coordination service; None in a process that is alone."""
    state = distributed.global_state
    return state.client if state.num_processes > 1 else None


def rank() -> tuple[int, int]:
    """Which process this is, and of how many."""
    return distributed.global_state.process_id, distributed.global_state.num_processes


def is_primary() -> bool:
    """Whether this is the process that prints and writes logs."""
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
    """Joins the processes of a run, before anything else touches JAX's devices.

    Args:
      multihost: `on`, `off`, or `auto`: join if a coordinator is given, or if JAX finds a cluster (TPU pods, GKE,
        SLURM, Open MPI).
      coordinator: `host:port` of process 0; found in a cluster.
      num_processes: of the run; found in a cluster.
      process_id: from 0; found in a cluster.
      connect_timeout: seconds to wait for all processes to come.
      heartbeat_timeout: seconds of silence after which JAX takes a process for dead, and ends all of them.
      log: gets the messages.

    Raises:
      InvalidInputError: for arguments that contradict each other, or `on` without a coordinator.
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
    with _patience(coordinator, num_processes, process_id, connect_timeout, log):
        jax.distributed.initialize(
            coordinator,
            num_processes,
            process_id,
            local_devices,
            initialization_timeout=connect_timeout + 60,
            heartbeat_timeout_seconds=heartbeat_timeout,
            cluster_detection_method="deactivate",
        )
    log(f"process {process_id} of {num_processes}: all have joined")


@contextlib.contextmanager
def _patience(coordinator: str, count: int, index: int, timeout: int, log: Callable[[str], None]) -> Iterator[None]:
    """Tells what is waited for, and ends the process when that takes too long: JAX's abort would name nothing."""
    others = f"{count - 1} more" if index == 0 else f"the coordinator {coordinator} and the other processes"
    joined = threading.Event()

    def wait() -> None:
        began = time.monotonic()
        while not joined.wait(min(30.0, max(0.0, began + timeout - time.monotonic()))):
            waited = time.monotonic() - began
            if waited >= timeout:
                end(LOST, f"not all processes came within {timeout} s: {_diagnosis(coordinator, count, index)}")
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
        return f"of processes 1 to {count - 1} at least one has not come; {start}"
    try:
        socket.create_connection((coordinator.rsplit(":", 1)[0], int(coordinator.rsplit(":", 1)[1])), 5).close()
    except OSError as error:
        return f"nothing answers at {coordinator} ({error}): is process 0 running, and can this host reach it?"
    return f"the coordinator answers, so another process is missing; {start}"


def part() -> None:
    """Leaves the run in good order, when all processes have come to their end."""
    if client() is not None:
        jax.distributed.shutdown()


def complain(message: str) -> None:
    """Prints an error, with the process that has it."""
    index, count = rank()
    where = f"process {index} of {count}: " if count > 1 else ""
    sys.stdout.flush()
    print(f"error: {where}{message}", file=sys.stderr, flush=True)


def end(code: int, message: str) -> NoReturn:
    """Ends this process at once, with a message and without the barriers of an orderly exit."""
    complain(message)
    os._exit(code)


def leave(code: int, message: str) -> NoReturn:
    """Ends this process with an error, and tells the others, whose watchdogs then end them with the same code.

    What looks like a lost process is often one that has left for a reason of its own: then that reason and code are
    taken over.
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
        while time.monotonic() < deadline and len(departed()) < rank()[1]:  # a sudden end would look like a lost one
            time.sleep(0.1)
        time.sleep(1.5 if is_primary() else 0.0)  # with process 0 goes the coordinator, and JAX aborts who is left

    if code == LOST and client() is not None:
        _try(ask, 1.0)
    complain(reason[1])
    if client() is not None:
        _try(tell_all, _LINGER + 3.0)
    os._exit(reason[0])


def _try(task: Callable[[], None], seconds: float) -> None:
    """Does something with the coordinator, which may not answer any more, for so long at most."""
    thread = threading.Thread(target=task, daemon=True)
    thread.start()
    thread.join(seconds)


def departed() -> dict[int, tuple[int, str]]:
    """The processes that have left with an error: exit code and message by process."""
    found = client().key_value_dir_get(f"{_PREFIX}left/")
    return {int(key.rsplit("/", 1)[1]): tuple(json.loads(value)) for key, value in found}


def read(topic: str, of: int | str, timeout: float) -> Any:
    """What a process has said on a topic; waits for it.

    Raises:
      LostProcessError: if it has not within `timeout` seconds.
    """
    try:
        return json.loads(client().blocking_key_value_get(f"{_PREFIX}{topic}/{of}", int(timeout * 1000)))
    except jax.errors.JaxRuntimeError as error:
        raise LostProcessError(f"process {of} has not said its {topic} within {timeout:g} s") from error


def tell(topic: str, value: Any, of: int | str | None = None) -> None:
    """Says something on a topic, once."""
    client().key_value_set(f"{_PREFIX}{topic}/{rank()[0] if of is None else of}", json.dumps(value))


_turns: collections.Counter[str] = collections.Counter()


def _turn(topic: str) -> str:
    """A name of its own for every time that the processes, all in the same order, take up a topic."""
    _turns[topic] += 1
    return f"{topic}/{_turns[topic]}"


def agree(topic: str, facts: dict[str, Any], timeout: float) -> None:
    """Compares facts over all processes.

    Args:
      topic: what they are of, for the messages.
      facts: of this process.
      timeout: seconds to wait for the others.

    Raises:
      InvalidInputError: on all of them, with the differences from process 0.
      LostProcessError: if one does not answer.
    """
    index, count = rank()
    if count == 1:
        return
    turn = _turn(topic)
    tell(turn, facts)
    if index == 0:
        ours = json.loads(json.dumps(facts))
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
            f"the processes do not have the same {topic}:\n  " + "\n  ".join(differences) + "\nstart all of them alike"
        )


def decide(topic: str, choose: Callable[[], Any], timeout: float) -> Any:
    """What process 0 chooses, on every process.

    Args:
      topic: what it is about, for the messages.
      choose: called on process 0 only; returns something that JSON can say.
      timeout: seconds to wait for it.

    Returns:
      The choice.
    """
    if client() is None:
        return choose()
    turn = _turn(topic)
    if is_primary():
        tell(turn, choose())
    return read(turn, 0, timeout)


def any_of(topic: str, yes: bool, timeout: float) -> bool:
    """Whether any process says yes; each waits for all, `timeout` seconds at most."""
    if client() is None:
        return yes
    turn = _turn(topic)
    tell(turn, yes)
    return any(read(turn, other, timeout) for other in range(rank()[1]))


def told_by_another(error: BaseException) -> bool:
    """Whether an error is what a collective or the coordination service raises when another process has ended."""
    if isinstance(error, LostProcessError) or "Gloo" in str(error):
        return True
    signs = ("UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED", "ABORTED", "heartbeat")
    barrier = isinstance(error, TimeoutError) and "barrier" in str(error)  # Orbax's
    return barrier or (isinstance(error, jax.errors.JaxRuntimeError) and any(sign in str(error) for sign in signs))


def exit_code(error: BaseException) -> int:
    """The exit code that an error deserves."""
    return BAD_INPUT if isinstance(error, InvalidInputError) else LOST if told_by_another(error) else FAILED


def announce(error: BaseException) -> None:
    """Tells the other processes, whose watchdogs end them, of an error that is about to be raised here."""
    if client() is not None:
        value = json.dumps([exit_code(error), f"{type(error).__name__}: {error}"[:1000]])
        _try(lambda: client().key_value_set(f"{_PREFIX}left/{rank()[0]}", value, allow_overwrite=True), 2.0)


class Vote:
    """Whether any process says yes: the same answer on all, one call later, so that nobody waits for it."""

    def __init__(self, mesh: Mesh) -> None:
        self._mesh, self._pending = mesh, None
        self._any = jax.jit(jnp.any, out_shardings=meshes.replicated(mesh))

    def cast(self, yes: bool) -> bool:
        """Casts this process's vote; returns the outcome of the call before, or in a process alone the vote itself."""
        if client() is None:
            return yes
        sharding = NamedSharding(self._mesh, PartitionSpec(self._mesh.axis_names))
        ballot = jax.make_array_from_callback((self._mesh.size,), sharding, lambda index: np.full(1, yes))
        before, self._pending = self._pending, self._any(ballot)
        return before is not None and bool(np.asarray(before))


_calls = itertools.count()


def preempted() -> bool:
    """Whether JAX has a preemption notice; all processes call it once a dispatch, and are told in the same one."""
    manager = distributed.global_state.preemption_sync_manager
    # JAX makes out the call after the furthest one, by its number: the numbers must not leave any out.
    return manager is not None and multihost_utils.reached_preemption_sync_point(next(_calls))
