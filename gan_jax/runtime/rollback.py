"""Going back to the last good checkpoint after a divergence, and on from there with other noise."""

import collections
import dataclasses
import json
import pathlib
from collections.abc import Callable

import jax
import numpy as np
from jax.sharding import Mesh

from gan_jax.distributed import hosts
from gan_jax.distributed import mesh as meshes
from gan_jax.host import write_json
from gan_jax.runtime.program import Carried

_KEY = 0xFFFF0000  # above every int32 step, and below the other numbers that are folded into root keys


@dataclasses.dataclass
class Rollbacks:
    """Counts rollbacks, so that a run that is killed and continued makes the same ones.

    The checkpoint carries how many were made before it; those made since are counted here, and made again by a process
    that continues from that checkpoint.

    Attributes:
      record: a JSON file with one entry for each.
      allowed: how many a run may make.
    """

    record: pathlib.Path
    allowed: int
    since: collections.Counter[int] = dataclasses.field(default_factory=collections.Counter)

    def take(
        self, step: int, carried: Carried, diverged: tuple[int, str], mesh: Mesh, log: Callable[[str], None]
    ) -> tuple[int, Carried] | None:
        """What to go on with.

        Args:
          step: of the last good checkpoint.
          carried: what it holds.
          diverged: at which step, and what was not finite.
          mesh: where the state lies.
          log: gets the messages.

        Returns:
          That step and what it holds, with another root key; None if there were as many rollbacks as are allowed.
        """
        self.since[step] += 1
        number = int(carried["rollbacks"]) + self.since[step]
        if number > self.allowed:
            log(f"max_rollbacks={self.allowed} rollbacks were made already")
            return None
        if hosts.is_primary():
            made = json.loads(self.record.read_text()) if self.record.exists() else []
            entry = {"number": number, "diverged_at": diverged[0], "not_finite": diverged[1], "back_to": step}
            write_json(self.record, [*(earlier for earlier in made if earlier["number"] != number), entry])
        state = carried["state"]
        fold = jax.jit(lambda key: jax.random.fold_in(key, _KEY + number), out_shardings=meshes.replicated(mesh))
        count = meshes.put_replicated(np.int32(number), mesh)
        log(f"rollback {number} of at most {self.allowed}: going on from step {step:,} with other noise")
        return step, carried | {"state": state.replace(key=fold(state.key)), "rollbacks": count}
