"""Signs of a run's health that no loss can report: whether all is finite, whether samples differ, what moves."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from gan_jax.core import GANState, get_hparams
from gan_jax.runtime.experiment import Experiment
from gan_jax.runtime.sampling import begin_samples
from gan_jax.types import Game

_PAIRS = 32


@jax.jit
def all_finite(tree: PyTree) -> Array:
    """Whether no floating-point array of a tree holds a NaN or an infinity."""
    leaves = [x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.floating)]
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(x)) for x in leaves]))


def diversity(experiment: Experiment, state: GANState, key: Array) -> Array | None:
    """How much samples from fixed latents differ: falling towards 0 is mode collapse.

    The mean over pairs and pixels of |x - x'|, where x and x' come from two latents and, if the game is conditional,
    have the same label; from two source images in image translation.

    Args:
      experiment: whose game.
      state: to sample from.
      key: fixes the latents.

    Returns:
      The mean distance, in units of the samples (images: 0 to 2), on the devices, which work on when this returns;
      None if the game makes no samples, or has no prior and the experiment fewer than two inputs for them.
    """
    pairs = _PAIRS
    if experiment.game.prior is None:
        mapped = experiment.conditions is not None or "reconstruct" in experiment.game.functions
        pairs = min(_PAIRS, len(experiment.examples) // 2) if mapped else 0
    if not pairs or not experiment.has_samples:
        return None
    classes = experiment.game.num_classes if experiment.game.prior is not None else None
    label = None if classes is None else np.tile(np.arange(pairs, dtype=np.int32) % classes, 2)
    return _mean_distance(begin_samples(experiment, state, key, 2 * pairs, label=label))


@jax.jit
def _mean_distance(samples: Array) -> Array:
    """Of each sample in the first half to its like in the second."""
    half = samples.shape[0] // 2
    return jnp.mean(jnp.abs(samples[:half] - samples[half : 2 * half]))


def moving(game: Game, state: GANState) -> dict[str, Array]:
    """The hyperparameters that move by themselves, as the log names them; copies, since the state is donated."""
    values = get_hparams(state) if game.shown else {}
    return {f"hparams/{name}": jnp.copy(values[name]) for name in game.shown}
