"""The old name of the settings in `gan_jax.runs`, for experiment files of the first release."""

import warnings

from gan_jax.runs.settings import *  # noqa: F403

warnings.warn("experiments.settings is now gan_jax.runs", DeprecationWarning, stacklevel=2)
