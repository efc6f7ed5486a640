"""The settings that all experiment files share: seed, batch size, length, and intervals of reports and checkpoints."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict as Config

from gan_jax import nets
from gan_jax.runtime import settings
from gan_jax.types import InvalidInputError, Network

__all__ = ["FREE", "MEMORY", "Config", "merged_config", "network", "run_config", "run_settings", "with_values"]

MEMORY = {"microbatches": 1, "remat": False}
"""Keys for configs whose networks come from `network`: the number of microbatches, and rematerialisation."""

MEMORY_HELP = {
    "microbatches": "parts that a batch is split into, to save memory",
    "remat": "recompute activations, to save memory",
}

_LARGEST = 3.4028235e38  # of float32

FREE = (*(name for name, about in settings().items() if about["free"]), "check_images", "remat")
"""Keys that do not change what an iteration computes. A run may be continued with other values of these."""


def is_free(key: str) -> bool:
    """Whether a run may be continued with another value of a key.

    These are the keys of `FREE`, and `data_dir` and keys that end in `_data_dir`: the place of the data may change,
    since the data themselves are compared, by their fingerprint.
    """
    return key in FREE or is_place(key)


def is_place(key: str) -> bool:
    """Whether a key of a config names a place on the machine: `data_dir`, or a key that ends in `_data_dir`."""
    return key == "data_dir" or key.endswith("_data_dir")


def network(module: Any, config: Config) -> Network:
    """Converts a Linen module to a network, with the config's `microbatches` and `remat`; see `nets.microbatched`."""
    made = nets.microbatched(nets.from_linen(module), config.microbatches)
    return nets.rematerialized(made) if config.remat else made


def whole_numbers(config: Config, key: str) -> tuple[int, ...]:
    """Reads a value of a config that is a list, such as `widths="32,64,64"`.

    Args:
      config: the config.
      key: key of the value.

    Returns:
      The numbers.

    Raises:
      InvalidInputError: if it is not one of whole numbers.
    """
    try:
        return tuple(int(number) for number in config[key].split(","))
    except ValueError:
        raise InvalidInputError(
            f"{key}={config[key]!r}: expected whole numbers with commas between them, such as 32,64,64"
        ) from None


def run_config(**values: Any) -> Config:
    """Creates a config: the settings of `Experiment` at their defaults, updated with `values`.

    Args:
      **values: at least `batch_size` and `steps`; other settings of `Experiment`; and the experiment's own scalars.

    Returns:
      The config. Its keys and their types are fixed; flags may override its values.
    """
    defaults = {
        name: about["default"] for name, about in settings().items() if about["default"] is not dataclasses.MISSING
    }
    return Config({"seed": 0} | defaults | values)


def run_settings(config: Config) -> dict[str, Any]:
    """Returns the fields of `Experiment` that a config sets, with the config's values."""
    return {name: config[name] for name in settings()}


def merged_config(module: Any, values: Mapping[str, Any]) -> Config:
    """Returns the config of an experiment file, updated with the values that a run has saved.

    Args:
      module: experiment file, from `load_module`.
      values: saved values by key; keys that the experiment file does not have are added.

    Returns:
      The config. Keys that are missing in `values` keep their defaults, as with values saved by an older version.

    Raises:
      InvalidInputError: for a value of another kind than that of the experiment file, such as a text for a number.
    """
    config = module.get_config()
    for key, value in values.items():
        if key in config and None not in (config[key], value) and _kind(config[key]) != _kind(value):
            raise InvalidInputError(
                f"config.json has {key}={value!r}, and the experiment file {config[key]!r}: restore config.json from a "
                "copy, or fix the value"
            )
    with config.unlocked(), config.ignore_type():  # saved keys and types may be those of another version
        config.update(values)
    return config


def _kind(value: Any) -> str:
    """Returns the kind of a value, by which saved values and those of an experiment file are compared."""
    kinds = {"truth value": bool, "number": int | float, "text": str, "list": list | tuple}
    return next((name for name, kind in kinds.items() if isinstance(value, kind)), "object")


def check_finite(key: str, value: Any, default: Any) -> None:
    """Checks that a value of a config is a finite number of float32, in which everything is computed.

    Args:
      key: key of the config.
      value: new value; anything but a float passes.
      default: value in the config. Where it is not finite itself, such as for no limit, any value is allowed.

    Raises:
      InvalidInputError: for a value that is not finite, or beyond the range of float32.
    """
    usual = not isinstance(default, float) or abs(default) <= _LARGEST
    if usual and isinstance(value, float) and not abs(value) <= _LARGEST:
        raise InvalidInputError(f"{key}={value}: expected a finite number, of at most {_LARGEST:.3g}")


def with_values(config: Config, values: Mapping[str, Any]) -> Config:
    """Returns a copy of a config with other values.

    Args:
      config: the config.
      values: new values by key; an integer is accepted for a float.

    Returns:
      The copy.

    Raises:
      InvalidInputError: for a key that the config does not have, or a value of another type.
    """
    made = config.copy_and_resolve_references()
    for key, value in values.items():
        if key not in made:
            raise InvalidInputError(f"{key}={value!r}: the config has no such key; it has {', '.join(sorted(made))}")
        check_finite(key, value, made[key])
        try:
            made[key] = float(value) if isinstance(made[key], float) and type(value) is int else value
        except TypeError as error:
            raise InvalidInputError(f"{key}={value!r} does not fit the config: {error}") from error
    return made
