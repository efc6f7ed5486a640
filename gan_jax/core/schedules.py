"""Hyperparameters that change with the images seen so far."""

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from gan_jax.core.hooks import Hook, with_batch_size, with_hparams
from gan_jax.core.hparams import get_hparams, set_hparams
from gan_jax.core.state import GANState
from gan_jax.types import InvalidInputError, Scalar


class Schedule(NamedTuple):
    """A value over time. Its parameters are hyperparameters themselves, so that members of a population may differ.

    Attributes:
      value: `(images, parameters) -> value`, of the images seen before an iteration.
      parameters: at the start, by name.
    """

    value: Callable[[Scalar, Mapping[str, Scalar]], Scalar]
    parameters: Mapping[str, float | int] = {}


def constant(value: float | int) -> Schedule:
    """Keeps a value as it is."""
    return Schedule(lambda images, p: p["value"], {"value": value})


def linear(start: float | int, end: float | int, images: float | int, *, begin: float | int = 0) -> Schedule:
    """Moves a value from `start` to `end` in a straight line.

    start + (end - start) clip((n - begin) / images, 0, 1), with n the images seen.

    Args:
      start: up to image `begin`.
      end: from image `begin + images` on.
      images: that it takes.
      begin: images before.

    Returns:
      The schedule.
    """
    return _between(start, end, images, begin, lambda t: t)


def cosine(start: float | int, end: float | int, images: float | int, *, begin: float | int = 0) -> Schedule:
    """Moves a value from `start` to `end` along half a cosine.

    start + (end - start) (1 - cos(pi t)) / 2, t = clip((n - begin) / images, 0, 1), with n the images seen.

    Args:
      start: up to image `begin`.
      end: from image `begin + images` on.
      images: that it takes.
      begin: images before.

    Returns:
      The schedule.

    References:
      Huang et al., "The GAN is dead; long live the GAN! A Modern GAN Baseline", arXiv:2501.05441, 2025, whose code has
      it for the learning rate, beta2, gamma, the EMA's half-life and the probability of augmentation.
    """
    return _between(start, end, images, begin, lambda t: (1.0 - jnp.cos(math.pi * t)) / 2.0)


def _between(
    start: float | int, end: float | int, images: float | int, begin: float | int, shape: Callable[[Array], Array]
) -> Schedule:
    if not images > 0:
        raise InvalidInputError(f"images={images}: a schedule takes more than 0 images")

    def value(seen: Scalar, p: Mapping[str, Scalar]) -> Scalar:
        return p["start"] + (p["end"] - p["start"]) * shape(jnp.clip((seen - p["begin"]) / p["images"], 0.0, 1.0))

    return Schedule(value, {"start": start, "end": end, "images": images, "begin": begin})


def schedule(values: Mapping[str, Schedule | Callable[[Float[Array, ""]], Float[Array, ""]]]) -> Hook:
    """Moves hyperparameters with the images seen so far.

    Args:
      values: for each hyperparameter, by its name in `get_hparams`, a schedule or a function of images. Those of the
        optimisers are there if these were built with `core.adam` or `optax.inject_hyperparams`; the value is what the
        optimiser uses, `lazy_interval` does not correct it.

    Returns:
      A hook for a game's `hooks`; the parameters of a schedule are the hyperparameters `name_start` and so on. The log
      has the values as `hparams/name`.

    Raises:
      InvalidInputError: by a game's `init`, for a hyperparameter that the game does not have.
    """
    schedules = {name: each if isinstance(each, Schedule) else _of(each) for name, each in values.items()}

    def moved(state: GANState, images: Scalar) -> GANState:
        found = {}
        for name, each in schedules.items():
            own = {key: state.hparams[f"{name}_{key}"] for key in each.parameters}
            found[name] = each.value(images, own)
        return set_hparams(state, found)

    def begin(state: GANState, batch_size: int) -> GANState:
        unknown = sorted(set(schedules) - set(get_hparams(state)))
        if unknown:
            known = ", ".join(sorted(get_hparams(state)))
            raise InvalidInputError(f"schedule of {', '.join(unknown)}: this game has the hyperparameters {known}")
        parameters = {
            f"{name}_{key}": value for name, each in schedules.items() for key, value in each.parameters.items()
        }
        return moved(with_hparams(with_batch_size(state, batch_size), parameters), jnp.zeros(()))

    def run(state: GANState) -> GANState:
        return moved(state, (state.step.astype(jnp.float32) + 1.0) * state.aux["batch_size"])

    return Hook(run, begin, tuple(schedules))


def _of(function: Callable[[Scalar], Scalar]) -> Schedule:
    return Schedule(lambda images, parameters: function(images))
