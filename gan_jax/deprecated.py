"""Deprecated names, which work for one more release and warn with the new name."""

import functools
import warnings
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

Function = TypeVar("Function", bound=Callable[..., Any])


def attributes(module: str, renamed: Mapping[str, tuple[str, Callable[[], Any]]]) -> Callable[[str], Any]:
    """Makes a module's `__getattr__`, which still finds deprecated names.

    Args:
      module: name of the module.
      renamed: for each old name, the new name for the warning, and a function that returns the object.

    Returns:
      The `__getattr__` of the module.
    """

    def find(name: str) -> Any:
        if name not in renamed:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        now, get = renamed[name]
        warnings.warn(f"{module}.{name} is now {now}", DeprecationWarning, stacklevel=2)
        return get()

    return find


def arguments(**renamed: str) -> Callable[[Function], Function]:
    """Makes a decorator that accepts old names of keyword arguments: `@arguments(say="log")` turns `say` into `log`."""

    def decorate(function: Function) -> Function:
        @functools.wraps(function)
        def wrapped(*positional: Any, **named: Any) -> Any:
            for old, new in renamed.items():
                if old in named:
                    warnings.warn(f"argument {old!r} is now {new!r}", DeprecationWarning, stacklevel=2)
                    named[new] = named.pop(old)
            return function(*positional, **named)

        return wrapped  # type: ignore[return-value]

    return decorate
