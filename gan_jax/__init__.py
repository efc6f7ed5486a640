"""gan_jax: generative adversarial networks for JAX.

Packages are imported on first use, so that `import gan_jax.losses` imports no dependency but jax and jaxtyping.
"""

import importlib
from typing import Any

from gan_jax import deprecated

__version__ = "0.2.0"

__all__ = [
    "__version__",
    "augment",
    "core",
    "data",
    "distributed",
    "eval",
    "feature_networks",
    "gans",
    "load",
    "losses",
    "metrics",
    "nets",
    "ops",
    "regularizers",
    "runs",
    "runtime",
    "sweep",
    "types",
]


deprecated.accept_old_modules()


def __getattr__(name: str) -> Any:
    if name == "load":
        return importlib.import_module("gan_jax.runs").load
    if name in __all__:
        return importlib.import_module(f"gan_jax.{name}")
    raise AttributeError(f"module 'gan_jax' has no attribute {name!r}; it has {', '.join(__all__)}")


def __dir__() -> list[str]:
    return sorted(__all__)
