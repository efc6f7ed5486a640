"""The old name of `gan_jax.load`, for notebooks of the first release."""

import warnings

from gan_jax.runs import Run, load, load_module
from gan_jax.runtime.environment import versions

__all__ = ["Run", "load", "load_module", "versions"]

warnings.warn("experiments.workdir is now gan_jax.runs", DeprecationWarning, stacklevel=2)
