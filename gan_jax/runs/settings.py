"""What every experiment file sets: seed, batch size, length, and how often to report and save."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict as Config

from gan_jax import nets
from gan_jax.runtime import settings
from gan_jax.types import Network

__all__ = ["FREE", "MEMORY", "Config", "merged_config", "network", "run_config", "run_settings"]

MEMORY = {"microbatches": 1, "remat": False}
"""Keys of the configs whose networks `network` makes: parts of a batch in turn, and activations computed again."""

MEMORY_HELP = {
    "microbatches": "parts of a batch in turn, to save memory",
    "remat": "recompute activations, to save memory",
}

FREE = (*(name for name, about in settings().items() if about["free"]), "remat")
"""Keys that do not change what an iteration computes: a run may be continued with other values of these."""


def network(module: Any, config: Config) -> Network:
    """A Linen module as a network that takes no more memory than the config allows; see `nets.microbatched`."""
    made = nets.microbatched(nets.from_linen(module), config.microbatches)
    return nets.rematerialized(made) if config.remat else made


def run_config(**values: Any) -> Config:
    """A config with the fields of `Experiment` that a config sets, at their defaults, and with `values`.

    Args:
      **values: at least `batch_size` and `steps`; and the scalars of the experiment itself.

    Returns:
      The config; its keys and types are fixed, its values may be overridden by flags.
    """
    defaults = {
        name: about["default"] for name, about in settings().items() if about["default"] is not dataclasses.MISSING
    }
    return Config({"seed": 0} | defaults | values)


def run_settings(config: Config) -> dict[str, Any]:
    """The fields of `Experiment` that a config sets."""
    return {name: config[name] for name in settings()}


def merged_config(module: Any, values: Mapping[str, Any]) -> Config:
    """The config of an experiment file with values that a run has kept.

    Args:
      module: the experiment file.
      values: of its keys; those that it does not know are kept too.

    Returns:
      The config. Keys that `values` lacks, as those of an older version do, have their defaults.
    """
    config = module.get_config()
    with config.unlocked(), config.ignore_type():
        config.update(values)
    return config
