"""The type of an adversarial loss: a discriminator and a generator function of the logits with one shared docstring."""

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
    """A pair of losses, one for the discriminator and one for the generator.

    Attributes:
      discriminator: `(real_logits, fake_logits) -> losses`, with losses of the logits' shape. The discriminator
        minimises them.
      generator: a function of the same form, minimised by the generator. It ignores `real_logits` unless the loss is
        relativistic.
    """


def pair(discriminator: LogitsLoss, generator: LogitsLoss, doc: str) -> GANLoss:
    """Returns a `GANLoss` of the two functions, with shape checks added.

    `doc` becomes the docstring of the pair and of both functions.
    """

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
    """Returns the docstrings of a module's pairs, for its `__test__`: doctest only looks into functions and classes."""
    return {name: str(value.__doc__) for name, value in names.items() if isinstance(value, GANLoss)}
