"""What an adversarial loss is: a discriminator's and a generator's function of the logits, documented together."""

import functools
from collections.abc import Callable
from typing import NamedTuple

from jaxtyping import Array, Float

from gan_jax.types import check_same_shape

Logits = Float[Array, "*logits"]
LogitsLoss = Callable[[Array, Array], Array]


class _Pair(NamedTuple):
    discriminator: LogitsLoss
    generator: LogitsLoss


class GANLoss(_Pair):
    """A discriminator and a generator loss that belong together.

    Attributes:
      discriminator: `(real_logits, fake_logits) -> losses` of the logits' shape, to be minimised by the discriminator.
      generator: the same for the generator. It ignores `real_logits` unless the loss is relativistic.
    """


def pair(discriminator: LogitsLoss, generator: LogitsLoss, doc: str) -> GANLoss:
    """Pairs the two functions, which then check shapes, and gives the pair, and each of them, the documentation."""

    def checked(function: LogitsLoss) -> LogitsLoss:
        @functools.wraps(function)
        def loss(real_logits: Array, fake_logits: Array) -> Array:
            check_same_shape(real_logits=real_logits, fake_logits=fake_logits)
            return function(real_logits, fake_logits)

        loss.__doc__ = doc
        return loss

    both = GANLoss(checked(discriminator), checked(generator))
    both.__doc__ = doc
    return both


def doctests(names: dict[str, object]) -> dict[str, str]:
    """The documentation of a module's pairs, for its `__test__`: doctest looks into functions and classes only."""
    return {name: str(value.__doc__) for name, value in names.items() if isinstance(value, GANLoss)}
