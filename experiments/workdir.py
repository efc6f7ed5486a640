"""The old name of `gan_jax.load`, for notebooks of the first release."""

from gan_jax.runs import Run, load, load_module
from gan_jax.runtime.environment import versions

__all__ = ["Run", "load", "load_module", "versions"]
