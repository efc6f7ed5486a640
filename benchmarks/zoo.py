"""Functions that the benchmarks of losses share: all adversarial losses by name, and a critic with positive outputs."""

from typing import Any

import jax

from gan_jax import losses
from gan_jax.types import Network


def all_losses() -> dict[str, losses.GANLoss]:
    """Returns every adversarial loss of the library, by name."""
    found = {n: getattr(losses, n) for n in losses.__all__ if isinstance(getattr(losses, n), losses.GANLoss)}
    divergences = ("kl", "reverse_kl", "pearson", "squared_hellinger", "jensen_shannon", "gan")
    found |= {f"f_divergence {name}": losses.f_divergence(name) for name in divergences}
    return found | {"energy_based": losses.energy_based(1.0)}


def positive(network: Network) -> Network:
    """Returns the network with softplus applied to its outputs, because an energy must not be negative."""

    def apply(*arguments: Any, **options: Any) -> Any:
        outputs, state = network.apply(*arguments, **options)
        return jax.nn.softplus(outputs), state

    return Network(network.init, apply)
