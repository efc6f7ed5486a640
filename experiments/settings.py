"""The old name of the settings in `gan_jax.runs`, for experiment files of the first release."""

from gan_jax.runs.settings import *  # noqa: F403
