"""Schedules: hyperparameters as functions of the number of images seen."""

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
    """A value as a function of the number of images seen.

    Its parameters are hyperparameters themselves, so that the members of a population can have different schedules.

    Attributes:
      value: `(images, parameters) -> value`, where `images` is the number of images seen before the iteration.
      parameters: initial values of the schedule's own parameters, by name.
    """

    value: Callable[[Scalar, Mapping[str, Scalar]], Scalar]
    parameters: Mapping[str, float | int] = {}


def constant(value: float | int) -> Schedule:
    """Keeps a hyperparameter at `value`."""
    return Schedule(lambda images, p: p["value"], {"value": value})


def linear(start: float | int, end: float | int, images: float | int, *, begin: float | int = 0) -> Schedule:
    """Changes a value linearly from `start` to `end`.

    start + (end - start) clip((n - begin) / images, 0, 1), where n is the number of images seen.

    Args:
      start: value until `begin` images have been seen.
      end: value from `begin + images` images on.
      images: duration of the change, in images.
      begin: number of images seen when the change begins.

    Returns:
      The schedule.
    """
    return _between(start, end, images, begin, lambda t: t)


def cosine(start: float | int, end: float | int, images: float | int, *, begin: float | int = 0) -> Schedule:
    """Changes a value from `start` to `end` along half a cosine.

    start + (end - start) (1 - cos(pi t)) / 2, t = clip((n - begin) / images, 0, 1), where n is the number of images
    seen.

    Args:
      start: value until `begin` images have been seen.
      end: value from `begin + images` images on.
      images: duration of the change, in images.
      begin: number of images seen when the change begins.

    Returns:
      The schedule.

    References:
      Huang et al., "The GAN is dead; long live the GAN! A Modern GAN Baseline", arXiv:2501.05441, 2025. Their code uses
      it for the learning rate, beta2, gamma, the half-life of the EMA and the augmentation probability.
    """
    return _between(start, end, images, begin, lambda t: (1.0 - jnp.cos(math.pi * t)) / 2.0)


def _between(
    start: float | int, end: float | int, images: float | int, begin: float | int, shape: Callable[[Array], Array]
) -> Schedule:
    """Creates a schedule from `start` to `end`; `shape` maps the elapsed fraction in [0, 1] to progress in [0, 1]."""
    if not images > 0:
        raise InvalidInputError(f"images={images}: expected a duration above 0 images")

    def value(seen: Scalar, p: Mapping[str, Scalar]) -> Scalar:
        return p["start"] + (p["end"] - p["start"]) * shape(jnp.clip((seen - p["begin"]) / p["images"], 0.0, 1.0))

    return Schedule(value, {"start": start, "end": end, "images": images, "begin": begin})


def schedule(values: Mapping[str, Schedule | Callable[[Float[Array, ""]], Float[Array, ""]]]) -> Hook:
    """Creates a hook that sets hyperparameters as functions of the number of images seen.

    Args:
      values: a schedule, or a function of the number of images, for each hyperparameter. The names are those of
        `get_hparams`. They include the optimisers' hyperparameters if the optimisers were built with `core.adam` or
        `optax.inject_hyperparams`. The optimiser uses such a value as it is, without the `lazy_interval` correction.

    Returns:
      A hook for a game's `hooks`. The parameters of a schedule become the hyperparameters `{name}_start`, `{name}_end`
      and so on. The values are logged as `hparams/{name}`.

    Raises:
      InvalidInputError: when the game's `init` runs, for a hyperparameter that the game does not have.
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
            raise InvalidInputError(
                f"schedule of {', '.join(unknown)}: unknown; this game's hyperparameters are {known}"
            )
        parameters = {
            f"{name}_{key}": value for name, each in schedules.items() for key, value in each.parameters.items()
        }
        return moved(with_hparams(with_batch_size(state, batch_size), parameters), jnp.zeros((), jnp.float32))

    def run(state: GANState) -> GANState:
        # Hooks run before the step counter is incremented: + 1 gives the images seen before the next iteration.
        return moved(state, (state.step.astype(jnp.float32) + 1.0) * state.aux["batch_size"])

    return Hook(run, begin, tuple(schedules))


def _of(function: Callable[[Scalar], Scalar]) -> Schedule:
    """Wraps a function of the number of images as a schedule without parameters."""
    return Schedule(lambda images, parameters: function(images))
