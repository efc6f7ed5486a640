"""Old names, which still work for one release, with a warning that tells the new one."""

import functools
import warnings
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

Function = TypeVar("Function", bound=Callable[..., Any])


def attributes(module: str, renamed: Mapping[str, tuple[str, Callable[[], Any]]]) -> Callable[[str], Any]:
    """Makes the `__getattr__` of a module that knows old names.

    Args:
      module: name of the module.
      renamed: by old name, what to use now, and a function that returns it.

    Returns:
      The function.
    """

    def find(name: str) -> Any:
        if name not in renamed:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        now, get = renamed[name]
        warnings.warn(f"{module}.{name} is now {now}", DeprecationWarning, stacklevel=2)
        return get()

    return find


def arguments(**renamed: str) -> Callable[[Function], Function]:
    """Decorates a function whose keyword arguments have new names: `@arguments(say="log")`."""

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
