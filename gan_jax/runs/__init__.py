"""Runs on disk: experiment files and their settings, workdirs, and trained runs to load."""

from gan_jax.runs.build import build
from gan_jax.runs.experiment_file import find, load_module, shipped
from gan_jax.runs.export import export
from gan_jax.runs.exported import Exported
from gan_jax.runs.folders import evaluate_folders
from gan_jax.runs.load import Run, load
from gan_jax.runs.settings import (
    FREE,
    MEMORY,
    Config,
    merged_config,
    network,
    run_config,
    run_settings,
    whole_numbers,
    with_values,
)
from gan_jax.runs.workdir import claim, claim_together

__all__ = [
    "FREE",
    "MEMORY",
    "Config",
    "Exported",
    "Run",
    "build",
    "claim",
    "claim_together",
    "evaluate_folders",
    "export",
    "find",
    "load",
    "load_module",
    "merged_config",
    "network",
    "run_config",
    "run_settings",
    "shipped",
    "whole_numbers",
    "with_values",
]
