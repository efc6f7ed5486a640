"""Mixtures of Gaussians in the plane: the standard test of mode coverage."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from gan_jax.data.sources import Draws
from gan_jax.types import Batch, PRNGKey


@dataclasses.dataclass(frozen=True)
class Mixture(Draws):
    """A mixture of equally likely Gaussians in the plane; `'real'` is `[b, 2]`.

    Attributes:
      centers: means of the Gaussians, `[modes, 2]`.
      std: standard deviation of every Gaussian in each coordinate.
    """

    centers: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros((1, 2)))
    std: float = 1.0


def _mixture(name: str, centers: np.ndarray, std: float) -> Mixture:
    def draw(key: PRNGKey, n: int) -> Batch:
        mode_key, noise_key = jax.random.split(key)
        mode = jax.random.randint(mode_key, (n,), 0, len(centers))
        return {"real": jnp.asarray(centers, jnp.float32)[mode] + std * jax.random.normal(noise_key, (n, 2))}

    return Mixture(name, draw, centers=centers, std=std)


def ring(modes: int = 8, radius: float = 1.0, std: float = 0.01) -> Mixture:
    """Returns a mixture of Gaussians evenly spaced on a circle (VEEGAN's ring, arXiv:1705.07761)."""
    angles = 2 * np.pi * np.arange(modes) / modes
    return _mixture(f"ring of {modes}", radius * np.stack([np.cos(angles), np.sin(angles)], -1), std)


def grid(side: int = 5, spacing: float = 2.0, std: float = 0.05) -> Mixture:
    """Returns a mixture of Gaussians on a square grid around the origin (VEEGAN's grid, arXiv:1705.07761)."""
    axis = spacing * (np.arange(side) - (side - 1) / 2)
    return _mixture(f"grid of {side * side}", np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2), std)
