"""Imports all that a command may import, in the process that the tests fork from. Commands themselves define flags."""

import importlib
import os
import sys

sys.modules["pandas"] = None  # scikit-learn would import it, which starts a thread
for _name in (
    "flax.nnx", "gan_jax.runs.pictures", "gan_jax.sweep.pictures", "gan_jax.sweep.study", "gan_jax.sweep.worker",
    "jax.experimental.multihost_utils", "matplotlib.figure", "ml_collections.config_flags", "scipy.stats.qmc",
    "sklearn.datasets", "tensorflow_datasets", "tests.conformance.games", "tests.processes",
):  # fmt: skip
    importlib.import_module(_name)
del sys.modules["pandas"]

THREADS = len(os.listdir("/proc/self/task")) if sys.platform == "linux" else 1  # before the first fork, which ends some
COMPLETE = True  # the fork server passes over a preload that fails
