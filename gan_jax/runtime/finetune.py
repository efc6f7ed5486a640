"""Fine-tuning: a new run that begins with the networks of another one. It is not a resume."""

import pathlib
import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, TypedDict

import jax
import jax.numpy as jnp

from gan_jax.deprecated import arguments
from gan_jax.distributed import hosts
from gan_jax.host import read_json, write_json
from gan_jax.runtime import identity as identities
from gan_jax.runtime.arrays import flatten, path_name
from gan_jax.runtime.checkpoint import Checkpointer
from gan_jax.runtime.program import Carried, Start
from gan_jax.types import InvalidInputError

# Names of arrays in a checkpoint: the player or average that an array belongs to, and the arrays of networks.
_PART = re.compile(r"state\.((?:players|ema)\.[^.]+)\.")
_NETWORKS = re.compile(r"state\.(players\.[^.]+\.(params|model_state)|ema)\.")


class _Chosen(TypedDict):
    checkpoints: str
    step: int
    sha256: str


def read_chosen(record: pathlib.Path) -> Any:
    """Reads which checkpoint a fine-tuned run has begun with; raises `InvalidInputError` if the record is damaged."""
    return read_json(record, _Chosen, remedy="remove it to choose the checkpoint again")


@arguments(say="log")
def init_from(
    checkpoints: pathlib.Path,
    step: int | None = None,
    *,
    fill: Mapping[str, str] = MappingProxyType({}),
    record: pathlib.Path | None = None,
    log: Callable[[str], None] = print,
    timeout: float = 600.0,
) -> Callable[[Start], Carried]:
    """Makes a `begin` for `train` that takes the networks of another run's checkpoint.

    Parameters, model state and averages come from the checkpoint. Everything else is new: step 0, fresh optimisers,
    and this run's own seed and hyperparameters.

    Args:
      checkpoints: checkpoint directory of the other run; all processes must see the same one.
      step: step of the checkpoint; by default the newest intact one.
      fill: for each player to fill, the player or average of the other run that it is filled from:
        `{'student': 'ema.generator', 'critic': 'generator'}`. Players that are not named keep their new
        initialisation. By default every player and average is filled from its namesake.
      record: JSON file that notes the chosen checkpoint. A run that begins again (killed before its first checkpoint,
        or rolled back to step 0) then uses the same checkpoint, even if the other run has gone on.
      log: receives the messages.
      timeout: seconds to wait for process 0 to choose the checkpoint.

    Returns:
      The argument `begin` of `train`. It raises `InvalidInputError` if the checkpoint is gone or has been replaced,
      lacks an array of this game's networks, or has one of another shape or dtype. An average of this game that the
      other run did not keep begins as a copy of its player.
    """

    def choose(source: Checkpointer) -> dict[str, Any]:
        kept = read_chosen(record) if record is not None and record.exists() else None
        if kept and (kept["checkpoints"] != str(checkpoints.absolute()) or step not in (None, kept["step"])):
            kept = None  # the user chose another checkpoint, which is fine: `begin` is called only if nothing was saved
        chosen = kept["step"] if kept else source.newest(log) if step is None else step
        if chosen is None or chosen not in source.steps():
            raise InvalidInputError(f"{checkpoints} has no checkpoint{'' if chosen is None else f' of step {chosen}'}")
        found = {"checkpoints": str(checkpoints.absolute()), "step": chosen, "sha256": _hash(source, chosen)}
        if kept not in (None, found):
            raise InvalidInputError(f"this run began with {kept} (see {record}), but the checkpoint is now {found}")
        if record is not None:
            write_json(record, found)
        return found

    def begin(start: Start) -> Carried:
        source = Checkpointer(checkpoints, keep_last=1, identity=identities.read(checkpoints.parent), read_only=True)
        chosen = hosts.decide("init_from", lambda: choose(source), timeout)
        if chosen["sha256"] != _hash(source, chosen["step"]):
            raise InvalidInputError(f"{checkpoints} is not the directory that process 0 sees under this name")
        stored = source.names(chosen["step"])
        wanted = {name: x for name, x in flatten(start.abstract).items() if _NETWORKS.match(name)}
        from_where = _origins(list(wanted), fill, stored)
        arrays = {origin: wanted[name] for name, origin in from_where.items()}
        found = source.restore_some(chosen["step"], arrays)
        source.close()
        log(f"beginning with the networks of {checkpoints / str(chosen['step'])}")

        used: set[str] = set()

        def take(path: Any, leaf: jax.Array) -> jax.Array:
            origin = from_where.get(path_name(path))
            if origin is None:
                return leaf
            again = origin in used  # then it needs a copy: one buffer cannot be donated twice
            used.add(origin)
            return jnp.copy(found[origin]) if again else found[origin]

        return jax.tree_util.tree_map_with_path(take, start.init())

    return begin


def _origins(names: list[str], fill: Mapping[str, str], stored: list[str]) -> dict[str, str]:
    """Maps each array of this game that is filled to the array of the checkpoint that fills it.

    An average that the checkpoint does not have is filled like its player.
    """
    known = {match[1] for name in stored if (match := _PART.match(name))}
    found, players = {}, set()
    for name in names:
        match = _PART.match(name)
        assert match is not None
        part = match[1]
        player = part.partition(".")[2].partition("/")[0]
        players.add(player)
        origin = part if part in known or part.startswith("players.") else _part(player)
        origin = _part(fill[player]) if player in fill else origin
        if player in fill or not fill:
            found[name] = name.replace(part, origin, 1)
    unknown, missing = sorted({*fill} - players), sorted(x for x in {*fill.values()} if _part(x) not in known)
    if unknown or missing:
        raise InvalidInputError(
            f"fill={dict(fill)}: expected players of this game ({', '.join(sorted(players))}), each with a player or "
            f"an average of the checkpoint ({', '.join(sorted(part.removeprefix('players.') for part in known))})"
        )
    return found


def _part(name: str) -> str:
    return name if name.startswith("ema.") else f"players.{name}"


def _hash(source: Checkpointer, step: int) -> str:
    try:
        return source.manifest_hash(step)
    except OSError as error:
        raise InvalidInputError(f"checkpoint {source.directory / str(step)} cannot be read: {error}") from error
