"""Samples of a game, on the devices that hold its state."""

import functools
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import PyTree

from gan_jax.core import GANState
from gan_jax.core.sharding import constrain_batch, gather
from gan_jax.runtime import frozen
from gan_jax.runtime.experiment import Experiment
from gan_jax.types import InvalidInputError

CHUNK = 256  # samples that `stream_samples` draws from one key


@functools.lru_cache(maxsize=8)
def _compiled(function: Callable[..., PyTree], n: int, truncation: float | None, meshed: bool) -> Callable[..., PyTree]:
    """`(state, key data, **options) -> samples`, whole on every device of the mesh if one is in force."""

    def sample(state: GANState, key: jax.Array, **options: PyTree) -> PyTree:
        state = state.replace(players=gather(state.players), ema=gather(state.ema))
        made = function(state, jax.random.wrap_key_data(key), n=n, truncation=truncation, **options)
        return constrain_batch(made) if meshed and n % jax.sharding.get_abstract_mesh().size == 0 else made

    return jax.jit(sample, out_shardings=PartitionSpec() if meshed else None)


@functools.lru_cache(maxsize=2)
def _placed(experiment: Experiment, mesh: Mesh | None) -> dict[str, PyTree]:
    networks = experiment.frozen_networks
    return frozen.arrays(networks) if mesh is None else frozen.place(networks, mesh)


def _frozen(experiment: Experiment) -> dict[str, PyTree]:
    """The experiment's frozen networks, on the devices of the mesh in force, put there once."""
    mesh = jax.sharding.get_mesh()
    return _placed(experiment, None if mesh.empty else mesh)


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
    sample = _compiled(game.functions["sample"], n, truncation, not jax.sharding.get_abstract_mesh().empty)
    return sample(state.replace(frozen=_frozen(experiment)), np.asarray(jax.random.key_data(key)), **options)


def sample_grid(experiment: Experiment, state: GANState, key: jax.Array, n: int, **options: Any) -> np.ndarray:
    """The samples of `begin_samples`, with its options, on the host."""
    return np.asarray(begin_samples(experiment, state, key, n, **options))


def stream_samples(
    experiment: Experiment, state: GANState, seed: int, *, truncation: float | None = None
) -> Iterator[np.ndarray]:
    """Endless samples for metrics, in chunks of 256, on the host; all processes must call it.

    The first n depend on state, seed and truncation alone, not on how many are taken. The next chunk is on its way
    while one is looked at. The classes of a conditional game come in turn.

    Args:
      experiment: whose game.
      state: to sample from.
      seed: of the latents.
      truncation: see the prior.

    Yields:
      Samples `[256, ...]`.

    Raises:
      InvalidInputError: for a game that maps source images, not latents.
    """
    game = experiment.game
    if game.prior is None:
        raise InvalidInputError("this game has no prior to sample from: metrics of translated images are not supported")

    def begin(index: int) -> PyTree:
        label = None if game.num_classes is None else (index * CHUNK + np.arange(CHUNK)) % game.num_classes
        key = jax.random.fold_in(jax.random.key(seed), index)
        return begin_samples(experiment, state, key, CHUNK, label=label, truncation=truncation)

    waiting = begin(0)
    for index in itertools.count(1):
        following = begin(index)
        yield np.asarray(waiting)
        waiting = following
