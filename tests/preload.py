"""Imports all that a command may import, in the process that tests fork from; not the commands, which define flags."""

import importlib
import os
import sys

sys.modules["pandas"] = None  # otherwise scikit-learn imports it, which starts a thread
for _name in (
    "flax.nnx", "gan_jax.runs.pictures", "gan_jax.sweep.pictures", "gan_jax.sweep.study", "gan_jax.sweep.worker",
    "jax.experimental.multihost_utils", "matplotlib.figure", "ml_collections.config_flags", "scipy.stats.qmc",
    "sklearn.datasets", "tensorflow_datasets", "tests.conformance.games", "tests.processes",
):  # fmt: skip
    importlib.import_module(_name)
del sys.modules["pandas"]

THREADS = len(os.listdir("/proc/self/task")) if sys.platform == "linux" else 1  # a forked process keeps only one
COMPLETE = True  # tells whether all succeeded: the fork server ignores a preload that fails
