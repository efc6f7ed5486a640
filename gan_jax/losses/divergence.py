"""Losses derived from an f-divergence, and the energy-based loss. Each function returns a `GANLoss`."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array

from gan_jax.losses.base import GANLoss, Logits, pair
from gan_jax.types import InvalidInputError

_LOG_2 = math.log(2.0)


# Maps each divergence to its output activation g and to f*(g(v)), with the convex conjugate f*; both in a numerically
# stable closed form.
_DIVERGENCES: dict[str, tuple[Callable[[Array], Array], Callable[[Array], Array]]] = {
    "kl": (lambda v: v, lambda v: jnp.exp(v - 1.0)),
    "reverse_kl": (lambda v: -jnp.exp(-v), lambda v: v - 1.0),
    "pearson": (lambda v: v, lambda v: 0.25 * v**2 + v),
    "squared_hellinger": (lambda v: -jnp.expm1(-v), jnp.expm1),
    "jensen_shannon": (lambda v: _LOG_2 - jax.nn.softplus(-v), lambda v: jax.nn.softplus(v) - _LOG_2),
    "gan": (lambda v: -jax.nn.softplus(-v), jax.nn.softplus),
}


def f_divergence(name: str, *, practical: bool = True) -> GANLoss:
    """Returns the f-GAN loss: a variational bound on an f-divergence between data and samples.

    discriminator: -g(r) + f*(g(f)); generator: -g(f) if `practical`, otherwise -f*(g(f)), which is the bound itself. r
    and f are the logits of reals and fakes. f* is the convex conjugate, the output activation g maps a logit into the
    domain of f*, and sp is softplus:

    | name | g(v) | f*(g(v)) |
    |---|---|---|
    | kl | v | exp(v - 1) |
    | reverse_kl | -exp(-v) | v - 1 |
    | pearson | v | v^2 / 4 + v |
    | squared_hellinger | 1 - exp(-v) | exp(v) - 1 |
    | jensen_shannon | log 2 - sp(-v) | sp(v) - log 2 |
    | gan | -sp(-v) | sp(v) |

    The negative mean of the discriminator's loss is a lower bound on the divergence (for `gan`, on 2 JS - log 4).

    Args:
      name: name of the divergence, from the table.
      practical: whether the generator uses the loss that the paper trains with (section 3.2). It relates to the bound
        as the non-saturating loss relates to the minimax loss.

    Returns:
      A `GANLoss`. Its losses are unbounded. Those of kl, reverse_kl and squared_hellinger are exponential in the logits
      and overflow float32 at magnitudes of about 88: clip the logits or bound the critic.

    Raises:
      InvalidInputError: if the name is unknown.

    References:
      Nowozin, Cseke and Tomioka, "f-GAN: Training Generative Neural Samplers using Variational Divergence
      Minimization", arXiv:1606.00709, 2016, tables 2 and 6. Implementations that compose f* and g literally lose the
      gradient of jensen_shannon and gan above v = 17 in float32, where 2 - exp(g) and 1 - exp(g) round to 0.

    Example:
      >>> loss = f_divergence("pearson")
      >>> print(loss.discriminator(jnp.array([1.0]), jnp.array([2.0])))
      [2.]
    """
    if name not in _DIVERGENCES:
        raise InvalidInputError(f"name={name!r}: expected one of {', '.join(_DIVERGENCES)}")
    activation, composite = _DIVERGENCES[name]

    def discriminator(real_logits: Logits, fake_logits: Logits) -> Logits:
        return composite(fake_logits) - activation(real_logits)

    def generator(real_logits: Logits, fake_logits: Logits) -> Logits:
        del real_logits
        return -activation(fake_logits) if practical else -composite(fake_logits)

    return pair(discriminator, generator, str(f_divergence.__doc__))


def energy_based(margin: float) -> GANLoss:
    """Returns the loss of the energy-based GAN (EBGAN), whose critic returns energies: low for data, high for fakes.

    discriminator: r + max(0, margin - f); generator: f. r and f are the energies of reals and fakes. Note the sign:
    unlike in all other losses, a low output means real. In EBGAN the energy is the reconstruction error of an
    autoencoder, which is at least 0.

    Args:
      margin: energy that fakes are pushed up to, above 0. The fakes of a trained generator have about this energy.

    Returns:
      A `GANLoss` of energies `[b, ...]`.

    Raises:
      InvalidInputError: if the margin is not above 0.

    References:
      Zhao, Mathieu and LeCun, "Energy-based Generative Adversarial Network", arXiv:1609.03126, 2016, equations 1, 2.

    Example:
      >>> loss = energy_based(margin=10.0)
      >>> print(loss.discriminator(jnp.array([1.0, 1.0]), jnp.array([4.0, 12.0])))
      [7. 1.]
    """
    if not margin > 0:
        raise InvalidInputError(f"margin={margin}: expected a number above 0")

    def discriminator(real_energy: Logits, fake_energy: Logits) -> Logits:
        return real_energy + jax.nn.relu(margin - fake_energy)

    def generator(real_energy: Logits, fake_energy: Logits) -> Logits:
        del real_energy
        return fake_energy

    return pair(discriminator, generator, str(energy_based.__doc__))
