"""The learning rate that is constant and then falls to 0, of the games of image translation and of clips."""

from collections.abc import Mapping, Sequence
from typing import Any

from gan_jax import core
from gan_jax.core import Hook


def linear_decay(
    constant_images: float, decay_images: float, *, learning_rate: float = 2e-4, players: Sequence[str]
) -> Hook:
    """Creates the schedule of pix2pix, CycleGAN and CUT: a constant learning rate that then falls linearly to 0.

    Args:
      constant_images: number of images, or pairs, seen before the learning rate begins to fall. The papers have 100
        epochs, CUT has 200.
      decay_images: number of images over which it falls to 0; as many as `constant_images` in the papers.
      learning_rate: learning rate at the beginning.
      players: names of the players whose optimisers, built with `core.adam`, are scheduled.

    Returns:
      A hook for a game's `hooks`.

    References:
      The authors' code has steps: with n constant and m falling epochs, epoch e (from 0) has
      1 - max(0, e + 1 - n) / (m + 1) of the learning rate. Here it falls with every update.
    """
    return core.schedule(
        {
            f"{player}/learning_rate": core.linear(learning_rate, 0.0, decay_images, begin=constant_images)
            for player in players
        }
    )


def decay_hooks(
    decay: tuple[float, float] | None, learning_rate: float, optimizers: Mapping[str, Any]
) -> tuple[Hook, ...]:
    """Returns the hook of `linear_decay` for the players without an optimiser of their own, if there is a decay."""
    own = [player for player, optimizer in optimizers.items() if optimizer is None]
    return () if decay is None or not own else (linear_decay(*decay, learning_rate=learning_rate, players=own),)
