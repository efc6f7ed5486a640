"""A trained game: the experiment with a state of it, to sample from."""

import dataclasses
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from gan_jax.core import GANState
from gan_jax.runtime.experiment import Experiment
from gan_jax.runtime.sampling import sample_grid


@dataclasses.dataclass(frozen=True)
class Trained:
    """An experiment with a state of its game.

    Attributes:
      experiment: whose game.
      state: trained.
      step: iterations that it was trained for.
      mesh: the devices that hold the state.
      class_names: names of the labels, as the data had them; empty without.
    """

    experiment: Experiment
    state: GANState
    step: int
    mesh: Mesh
    class_names: tuple[str, ...] = ()

    def sample(
        self,
        n: int = 64,
        *,
        seed: int = 0,
        label: int | np.ndarray | None = None,
        truncation: float | None = None,
        inputs: Any = None,
    ) -> np.ndarray:
        """Draws samples of the averaged generator, or of the generator itself where the game keeps no average.

        Args:
          n: number of samples.
          seed: fixes the latents.
          label: one class for all, or an array `[n]`; the classes in turn by default.
          truncation: see the game's prior.
          inputs: what the generator maps, in place of latents drawn from the prior.

        Returns:
          Samples `[n, ...]`; images are in [-1, 1].

        Raises:
          InvalidInputError: for a game that makes no samples, or a label that it does not have.
        """
        key = jax.random.key(seed)
        labels = None if label is None else np.broadcast_to(np.asarray(label, np.int32), (n,))
        with jax.set_mesh(self.mesh):
            return sample_grid(self.experiment, self.state, key, n, label=labels, inputs=inputs, truncation=truncation)
