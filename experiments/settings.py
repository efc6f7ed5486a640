"""What every experiment file sets: seed, batch size, length, and how often to report and save."""

import dataclasses
from typing import Any

import ml_collections

from gan_jax import nets
from gan_jax.runtime import settings
from gan_jax.types import Network

MEMORY = {"microbatches": 1, "remat": False}
"""Keys of the configs whose networks `network` makes: parts of a batch in turn, and activations computed again."""

FREE = (*(name for name, about in settings().items() if about["free"]), "remat")
"""Keys that do not change what an iteration computes: a run may be continued with other values of these."""


def network(module: Any, config: ml_collections.ConfigDict) -> Network:
    """A Linen module as a network that takes no more memory than the config allows; see `nets.microbatched`."""
    made = nets.microbatched(nets.from_linen(module), config.microbatches)
    return nets.rematerialized(made) if config.remat else made


def run_config(**values: Any) -> ml_collections.ConfigDict:
    """A config with the fields of `Experiment` that a config sets, at their defaults, and with `values`.

    Args:
      **values: at least `batch_size` and `steps`; and the scalars of the experiment itself.

    Returns:
      The config; its keys and types are fixed, its values may be overridden by flags.
    """
    defaults = {
        name: about["default"] for name, about in settings().items() if about["default"] is not dataclasses.MISSING
    }
    return ml_collections.ConfigDict({"seed": 0} | defaults | values)


def run_settings(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """The fields of `Experiment` that a config sets."""
    return {name: config[name] for name in settings()}
