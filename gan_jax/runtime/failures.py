"""Errors of saves in the background, in words that say what to do."""

import contextlib
from collections.abc import Iterator

from gan_jax.buckets import StorageError
from gan_jax.distributed import hosts
from gan_jax.types import InvalidInputError


@contextlib.contextmanager
def telling(what: str) -> Iterator[None]:
    """Turns an error of Orbax into an `InvalidInputError` that says what to do, or a `LostProcessError`."""
    try:
        yield
    except Exception as error:
        if hosts.client() is not None and hosts.told_by_another(error):
            raise hosts.LostProcessError(in_short(error)) from error
        if isinstance(error, StorageError):  # says what to do
            raise StorageError(f"{what} could not be written: {error}; earlier ones are untouched") from error
        raise InvalidInputError(
            f"{what} could not be written: {in_short(error)}; existing checkpoints are untouched: free some space or "
            "fix the storage, and run the same command again"
        ) from error


def in_short(error: Exception) -> str:
    """Returns an error's type and message on one line, without the middle of a long one."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text if len(text) < 400 else text[:150] + ' ... ' + text[-200:]}"
