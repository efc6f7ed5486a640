"""What a game reads of its batches: traces of a game's functions, with errors that name the batch's arrays."""

import traceback
from collections.abc import Callable
from typing import Any, TypeVar

import jax
from jax.interpreters import partial_eval
from jaxtyping import PyTree

from gan_jax.types import Batch, InvalidInputError

T = TypeVar("T")


@jax.tree_util.register_pytree_node_class
class _Named(Batch):
    """A batch that says which array it lacks."""

    def __missing__(self, name: str) -> Any:
        raise InvalidInputError(
            f"the game reads {name!r} from its batches, but the data source delivers {described(self)}: rename an "
            f"array, data.renamed(source, {name}={next(iter(self), '...')!r}), or use another source"
        )

    def tree_flatten(self) -> tuple[list[Any], tuple[str, ...]]:
        names = tuple(sorted(self))
        return [self[name] for name in names], names

    @classmethod
    def tree_unflatten(cls, names: tuple[str, ...], leaves: list[Any]) -> "_Named":
        return cls(zip(names, leaves, strict=True))


def described(batch: Batch) -> str:
    """Returns the names of a batch's arrays, for a message."""
    return ", ".join(map(repr, sorted(batch))) or "nothing"


def naming_missing(call: Callable[[Batch], T], batch: Batch) -> T:
    """Calls a function of a batch.

    Raises:
      InvalidInputError: if the function reads an array that the batch lacks; in place of a KeyError.
    """
    try:
        return call(batch)
    except KeyError as error:
        # Only now is the batch one that is no plain dict, which could not be mapped together with plain ones.
        try:
            call(_Named(batch))
        except InvalidInputError as clear:
            raise clear from None
        except Exception:  # the first error is the one to report
            raise error from None
        raise


def values_read(traced: Any, batch: Batch) -> list[str]:
    """Returns the names of those arrays of a batch whose values a traced function uses; shapes alone do not count.

    Args:
      traced: trace of the function, from `jax.jit(function).trace`; its last argument is the batch.
      batch: the batch.

    Returns:
      The names, in order.
    """
    jaxpr = traced.jaxpr.jaxpr
    _, used = partial_eval.dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))
    names = sorted(batch)
    return [name for name, is_used in zip(names, used[-len(names) :], strict=True) if is_used]


def init(function: Callable[[jax.Array, Batch], T], key: jax.Array, batch: Batch) -> T:
    """Calls a game's `init` with a batch that has shapes and dtypes, and zeros for values.

    Raises:
      InvalidInputError: if the game reads the values, or an array that the batch lacks.
    """
    own = jax.jit(lambda key, batch: function(key, batch), inline=True)  # a function of its own, traced by each call
    remedy = (
        "init gets shapes and dtypes, not data, since a resumed run calls it too. Compute constants of the data before "
        "the game is made (source.read), or keep them in state.aux and set them in the step"
    )
    try:
        traced = naming_missing(lambda batch: own.trace(key, batch), batch)
    except (jax.errors.ConcretizationTypeError, jax.errors.TracerArrayConversionError) as error:
        *_, last = (x for x in traceback.extract_tb(error.__traceback__) if "site-packages" not in x.filename)
        raise InvalidInputError(
            f"game: its init computes in Python with the values of its key or batch, as numpy functions, float() and "
            f"if do ({last.filename}, line {last.lineno}): {remedy}"
        ) from error
    if found := values_read(traced, batch):
        names = ", ".join(f"batch[{name!r}]" for name in found)
        raise InvalidInputError(f"game: its init computes with the values of {names}, which are zeros there: {remedy}")
    return own(key, batch)


def trace_step(step: Any, state: PyTree, batches: Batch) -> Any:
    """Traces a game's step; a later call of the step with the same shapes uses this trace.

    Args:
      step: function from `core.make_step`.
      state: state of the game.
      batches: batches of one iteration.

    Returns:
      The trace, a `jax.stages.Traced`.

    Raises:
      InvalidInputError: if the game reads an array that the batches lack, or ignores one of them. A game that reads
        no values at all takes the batch size from the data, which is no error.
    """
    traced = naming_missing(lambda batches: step.trace(state, batches), batches)
    found = values_read(traced, batches)
    if found and (ignored := sorted(set(batches) - set(found))):
        wanted = ", ".join(f"{name}={name!r}" for name in found)
        raise InvalidInputError(
            f"the data source delivers {described(batches)}, but the game reads {', '.join(map(repr, found))} and "
            f"ignores {', '.join(map(repr, ignored))}: leave it out, data.renamed(source, {wanted}), or use a game "
            "with a term that reads it"
        )
    return traced
