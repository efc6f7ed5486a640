"""Beginning a run with the networks of another one: fine-tuning, which is not resuming."""

import pathlib
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from gan_jax.runtime import hosts
from gan_jax.runtime.checkpoint import Checkpointer, flatten, path_name
from gan_jax.runtime.program import Carried, Start
from gan_jax.types import InvalidInputError

_NETWORKS = re.compile(r"state\.(players\.[^.]+\.(params|model_state)|ema)\.")


def init_from(
    checkpoints: pathlib.Path, step: int | None = None, *, say: Callable[[str], None] = print
) -> Callable[[Start], Carried]:
    """How to begin with the parameters, model state and averages of a checkpoint, and all else new.

    Step 0, fresh optimisers, this run's own seed and hyperparameters: only the networks are those of the other run.

    Args:
      checkpoints: of the other run.
      step: of the checkpoint; the newest that is whole by default.
      say: gets the messages.

    Returns:
      What `train` takes as `begin`. It raises `InvalidInputError` if the checkpoint lacks an array of this game's
      networks, or has one of another shape or dtype; a game that keeps averages where the other kept none begins them
      as copies.
    """

    def begin(start: Start) -> Carried:
        source = Checkpointer(checkpoints, keep_last=1, read_only=True)
        chosen = hosts.decide("source", lambda: source.newest(say) if step is None else step, 600.0)
        if chosen is None or chosen not in source.steps():
            raise InvalidInputError(f"{checkpoints} has no checkpoint{'' if step is None else f' of step {step}'}")
        wanted = {name: x for name, x in flatten(start.abstract).items() if _NETWORKS.match(name)}
        if not any(name.startswith("state.ema.") for name in source.names(chosen)):
            wanted = {name: x for name, x in wanted.items() if not name.startswith("state.ema.")}
        found = source.restore_some(chosen, wanted)
        source.close()
        say(f"beginning with the networks of {checkpoints / str(chosen)}")

        def take(path: Any, leaf: jax.Array) -> jax.Array:
            name = path_name(path)
            averaged = found.get(name.replace("state.ema.", "state.players.", 1))
            return found[name] if name in found else leaf if averaged is None else jnp.copy(averaged)

        return jax.tree_util.tree_map_with_path(take, start.init())

    return begin
