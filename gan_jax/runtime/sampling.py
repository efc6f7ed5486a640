"""Samples of a game, on the devices that hold its state."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import PartitionSpec
from jaxtyping import PyTree

from gan_jax.core import GANState
from gan_jax.core.sharding import gather
from gan_jax.runtime.experiment import Experiment
from gan_jax.types import InvalidInputError


@functools.lru_cache(maxsize=8)
def _compiled(game: Any, n: int, truncation: float | None, meshed: bool) -> Callable[..., PyTree]:
    """`(state, key data, **options) -> samples`, whole on every device of the mesh if one is in force."""

    def sample(state: GANState, key: jax.Array, **options: PyTree) -> PyTree:
        state = state.replace(players=gather(state.players), ema=gather(state.ema))
        return game.sample(state, jax.random.wrap_key_data(key), n=n, truncation=truncation, **options)

    return jax.jit(sample, out_shardings=PartitionSpec() if meshed else None)


def begin_samples(
    experiment: Experiment,
    state: GANState,
    key: jax.Array,
    n: int,
    *,
    label: np.ndarray | None = None,
    inputs: PyTree = None,
    truncation: float | None = None,
) -> PyTree:
    """Samples to look at: the classes in turn if conditional, else `n` free draws; all processes must call it.

    Returns at once; the devices work on. `sample_grid` waits for them.

    Args:
      experiment: whose game.
      state: to sample from.
      key: fixes the latents: the same key gives the same latents in every call.
      n: number of samples.
      label: in place of the classes in turn, `[n]` or one label for all.
      inputs: in place of latents drawn from the prior.
      truncation: see the prior.

    Returns:
      Samples `[n, ...]`, whole on every device.

    Raises:
      InvalidInputError: for a label that the game does not have.
    """
    game = experiment.game
    if label is None and game.num_classes is not None:
        label = np.arange(n) % game.num_classes
    if label is not None and game.num_classes is not None:
        wrong = sorted({int(x) for x in np.ravel(label) if not 0 <= x < game.num_classes})
        if wrong:
            raise InvalidInputError(f"label={wrong}: this game has classes 0 to {game.num_classes - 1}")
    if inputs is None and game.prior is None and experiment.sample_inputs is not None:
        inputs = experiment.sample_inputs()
    options = {name: value for name, value in (("label", label), ("inputs", inputs)) if value is not None}
    sample = _compiled(game, n, truncation, not jax.sharding.get_abstract_mesh().empty)
    return sample(state, np.asarray(jax.random.key_data(key)), **options)


def sample_grid(experiment: Experiment, state: GANState, key: jax.Array, n: int, **options: Any) -> np.ndarray:
    """The samples of `begin_samples`, with its options, on the host."""
    return np.asarray(begin_samples(experiment, state, key, n, **options))
