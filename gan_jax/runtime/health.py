"""Signs of a run's health that losses do not show: finite arrays, diverse samples, self-adjusting hyperparameters."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from gan_jax.core import GANState, get_hparams
from gan_jax.runtime.experiment import Experiment
from gan_jax.runtime.sampling import begin_samples
from gan_jax.types import Game

_PAIRS = 32  # pairs of samples that are compared


@jax.jit
def all_finite(tree: PyTree) -> Array:
    """Returns whether all floating-point arrays of a tree are free of NaN and infinity."""
    leaves = [x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.floating)]
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(x)) for x in leaves]))


def diversity(experiment: Experiment, state: GANState, key: Array) -> Array | None:
    """Starts to compute how much samples from fixed latents differ; a fall towards 0 means mode collapse.

    The value is the mean over pairs and pixels of |x - x'|. x and x' come from two latents and, in a conditional game,
    have the same label. In image translation they come from two source images.

    Args:
      experiment: experiment whose game is sampled.
      state: state to sample from.
      key: key that fixes the latents.

    Returns:
      The mean distance, in units of the samples (images: 0 to 2), as an array that the devices may still be computing.
      None if the game makes no samples, or if it has no prior and the experiment has fewer than two inputs.
    """
    pairs = _PAIRS
    if experiment.game.prior is None:
        mapped = experiment.conditions is not None or "reconstruct" in experiment.game.functions
        pairs = min(_PAIRS, len(experiment.examples) // 2) if mapped else 0
    if not pairs or not experiment.has_samples:
        return None
    classes = experiment.game.num_classes if experiment.game.prior is not None else None
    # Samples i and i + pairs, which are compared, have the same label.
    label = None if classes is None else np.tile(np.arange(pairs, dtype=np.int32) % classes, 2)
    return _mean_distance(begin_samples(experiment, state, key, 2 * pairs, label=label))


@jax.jit
def _mean_distance(samples: Array) -> Array:
    """Computes the mean absolute difference between sample i and sample n/2 + i."""
    half = samples.shape[0] // 2
    return jnp.mean(jnp.abs(samples[:half] - samples[half : 2 * half]))


def moving(game: Game, state: GANState) -> dict[str, Array]:
    """Returns the self-adjusting hyperparameters, by their names in the log; as copies, since the state is donated."""
    values = get_hparams(state) if game.shown else {}
    return {f"hparams/{name}": jnp.copy(values[name]) for name in game.shown}
