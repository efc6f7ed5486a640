"""The old name of `gan_jax.runs`, for experiment files of the first release."""

from gan_jax.runs.settings import *  # noqa: F403
