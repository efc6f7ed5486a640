"""Deprecated names, which work for one more release and warn with the new name."""

import functools
import importlib
import importlib.abc
import importlib.machinery
import sys
import warnings
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

Function = TypeVar("Function", bound=Callable[..., Any])

# Without clip, dinov2 and inception: importing such a module would hide the function of that name in `gan_jax.eval`.
_FILES = ("archive", "pickles", "resize", "vit", "weights")
MODULES = {
    "gan_jax.losses.pair": "gan_jax.losses.base",
    "gan_jax.nets.bilinear": "gan_jax.ops.primitives",
    "gan_jax.nets.conv_geometry": "gan_jax.ops.geometry",
    "gan_jax.nets.forms": "gan_jax.ops.lowerings",
    "gan_jax.nets.memory": "gan_jax.nets.remat",
    "gan_jax.nets.ops": "gan_jax.ops",
    "gan_jax.nets.winograd": "gan_jax.ops.winograd",
    "gan_jax.runtime.choosing": "gan_jax.runtime.rejection_sampling",
    "gan_jax.runtime.describe": "gan_jax.runtime.summary",
    "gan_jax.eval.features": "gan_jax.feature_networks.network",
    **{f"gan_jax.eval.{name}": f"gan_jax.feature_networks.{name}" for name in _FILES},
    **{f"gan_jax.runtime.{name}": f"gan_jax.distributed.{name}" for name in ("hosts", "mesh", "signals", "watchdog")},
}
"""Modules that have moved: old name to new name."""


class _Moved(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports a module that has moved by its old name."""

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        del path, target
        if fullname not in MODULES:
            return None
        warnings.warn(f"{fullname} is now {MODULES[fullname]}", DeprecationWarning, stacklevel=2)
        return importlib.machinery.ModuleSpec(fullname, self)

    def exec_module(self, module: Any) -> None:
        # The import system returns what is registered here, so that both names are one module.
        sys.modules[module.__name__] = importlib.import_module(MODULES[module.__name__])


def accept_old_modules() -> None:
    """Lets modules be imported by their old names too."""
    sys.meta_path.append(_Moved())


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
