"""Rollback after a divergence: the run goes back to the last good checkpoint, and on from there with other noise."""

import collections
import dataclasses
import pathlib
from collections.abc import Callable
from typing import TypedDict

import jax
import numpy as np
from jax.sharding import Mesh

from gan_jax.distributed import hosts
from gan_jax.distributed import mesh as meshes
from gan_jax.host import read_json, write_json
from gan_jax.runtime.program import Carried

_KEY = 0xFFFF0000  # above every int32 step, and below the other constants that are folded into root keys


class _Entry(TypedDict):
    number: int


@dataclasses.dataclass
class Rollbacks:
    """Counts the rollbacks of a run, so that a run that is killed and continued repeats the same ones.

    A checkpoint holds the number of rollbacks made before it. Later ones are counted here; a process that continues
    from that checkpoint makes them again.

    Attributes:
      record: JSON file with one entry per rollback.
      allowed: maximum number of rollbacks of a run.
      since: number of rollbacks that this process made to each checkpoint, by its step.
    """

    record: pathlib.Path
    allowed: int
    since: collections.Counter[int] = dataclasses.field(default_factory=collections.Counter)

    def take(
        self, step: int, carried: Carried, diverged: tuple[int, str], mesh: Mesh, log: Callable[[str], None]
    ) -> tuple[int, Carried] | None:
        """Returns the state to continue from, with a new root key, or None when no rollback is left.

        Args:
          step: step of the last good checkpoint.
          carried: contents of that checkpoint.
          diverged: step of the divergence, and what was not finite.
          mesh: mesh that holds the state.
          log: receives the messages.

        Returns:
          `step`, and `carried` with another root key and count of rollbacks; None if all allowed rollbacks were made.
        """
        self.since[step] += 1
        number = int(carried["rollbacks"]) + self.since[step]
        if number > self.allowed:
            log(f"max_rollbacks={self.allowed} rollbacks were made already")
            return None
        if hosts.is_primary():
            made = read_json(self.record, list[_Entry], remedy="remove it") if self.record.exists() else []
            # A rollback that a continued run repeats replaces its own entry.
            entry = {"number": number, "diverged_at": diverged[0], "not_finite": diverged[1], "back_to": step}
            write_json(self.record, [*(earlier for earlier in made if earlier["number"] != number), entry])
        state = carried["state"]
        fold = jax.jit(lambda key: jax.random.fold_in(key, _KEY + number), out_shardings=meshes.replicated(mesh))
        count = meshes.put_replicated(np.int32(number), mesh)
        log(f"rollback {number} of at most {self.allowed}: going on from step {step:,} with other noise")
        return step, carried | {"state": state.replace(key=fold(state.key)), "rollbacks": count}
