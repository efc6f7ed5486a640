"""Relativistic losses: each example is judged against examples of the other kind, reals against fakes and vice versa.

The losses depend only on differences of real and fake logits. So the generator's loss also has a gradient with respect
to the real logits, and adding a constant to the critic changes nothing.

The `relativistic_average` family averages over the batch axis, the first axis; in a patch map each position has its own
mean. Under global-view sharding this is the mean of the global batch. Inside `jax.shard_map` and `jax.pmap` it is the
mean of the shard: gather the logits before the loss (`jax.lax.all_gather(..., tiled=True)`, which moves few numbers).
"""

import jax
import jax.numpy as jnp

from gan_jax.losses.base import Logits, doctests, pair


def _relativistic_pairing_discriminator(real_logits: Logits, fake_logits: Logits) -> Logits:
    return jax.nn.softplus(fake_logits - real_logits)


def _relativistic_pairing_generator(real_logits: Logits, fake_logits: Logits) -> Logits:
    return jax.nn.softplus(real_logits - fake_logits)


relativistic_pairing = pair(
    _relativistic_pairing_discriminator,
    _relativistic_pairing_generator,
    """The relativistic pairing loss: each fake is judged against one real, paired by index.

    discriminator: sp(-(r - f)); generator: sp(-(f - r)), with sp the softplus. R3GAN combines this loss with R1 and R2.

    Args:
      real_logits: logits of reals, D(x), of any shape, unbounded.
      fake_logits: logits of fakes, D(G(z)), of the same shape; entry i is paired with entry i of `real_logits`.

    Returns:
      Losses in [0, inf) of the logits' shape and dtype.

    References:
      Jolicoeur-Martineau, "The relativistic discriminator: a key element missing from standard GAN", arXiv:1807.00734,
      2018 (RSGAN); Huang et al., "The GAN is dead; long live the GAN! A Modern GAN Baseline", arXiv:2501.05441, 2024.
      The generator's update draws a new batch of reals; reusing the discriminator's batch gives a different estimator
      with the same mean.

    Example:
      >>> import jax.numpy as jnp
      >>> print(relativistic_pairing.discriminator(jnp.array([5.0]), jnp.array([5.0])).round(4))
      [0.6931]
    """,
)


def _relative(real_logits: Logits, fake_logits: Logits) -> tuple[Logits, Logits]:
    """Returns the reals minus the mean fake, and the fakes minus the mean real."""
    real_mean, fake_mean = (jnp.mean(x, axis=0, keepdims=True) for x in (real_logits, fake_logits))
    return real_logits - fake_mean, fake_logits - real_mean


def _relativistic_average_discriminator(real_logits: Logits, fake_logits: Logits) -> Logits:
    real, fake = _relative(real_logits, fake_logits)
    return jax.nn.softplus(-real) + jax.nn.softplus(fake)


def _relativistic_average_generator(real_logits: Logits, fake_logits: Logits) -> Logits:
    real, fake = _relative(real_logits, fake_logits)
    return jax.nn.softplus(real) + jax.nn.softplus(-fake)


relativistic_average = pair(
    _relativistic_average_discriminator,
    _relativistic_average_generator,
    """The relativistic average loss (RaSGAN): each example is judged against the mean logit of the other kind.

    discriminator: sp(-(r - E f)) + sp(f - E r); generator: sp(-(f - E r)) + sp(r - E f).

    Args:
      real_logits: logits of reals, D(x), `[b, ...]`, unbounded.
      fake_logits: logits of fakes, D(G(z)), of the same shape.

    Returns:
      Losses in [0, inf) of the logits' shape and dtype.

    References:
      Jolicoeur-Martineau, "The relativistic discriminator: a key element missing from standard GAN", arXiv:1807.00734,
      2018. The author's code takes half of both losses. For a patch map tensorflow-gan uses one mean for all positions;
      here each position has its own.

    Example:
      >>> import jax.numpy as jnp
      >>> print(relativistic_average.discriminator(jnp.array([99.0, 101.0]), jnp.array([0.0, 0.0])))
      [0. 0.]
    """,
)


def _relativistic_average_hinge_discriminator(real_logits: Logits, fake_logits: Logits) -> Logits:
    real, fake = _relative(real_logits, fake_logits)
    return jax.nn.relu(1.0 - real) + jax.nn.relu(1.0 + fake)


def _relativistic_average_hinge_generator(real_logits: Logits, fake_logits: Logits) -> Logits:
    real, fake = _relative(real_logits, fake_logits)
    return jax.nn.relu(1.0 + real) + jax.nn.relu(1.0 - fake)


relativistic_average_hinge = pair(
    _relativistic_average_hinge_discriminator,
    _relativistic_average_hinge_generator,
    """The relativistic average hinge loss (RaHingeGAN).

    discriminator: max(0, 1 - (r - E f)) + max(0, 1 + (f - E r));
    generator: max(0, 1 + (r - E f)) + max(0, 1 - (f - E r)).

    Args:
      real_logits: logits of reals, D(x), `[b, ...]`, unbounded.
      fake_logits: logits of fakes, D(G(z)), of the same shape.

    Returns:
      Losses in [0, inf) of the logits' shape and dtype.

    References:
      Jolicoeur-Martineau, arXiv:1807.00734, 2018, appendix D. One public codebase takes the mean inside the maximum, so
      that examples of opposite sign cancel. The author's code takes half of both losses.

    Example:
      >>> import jax.numpy as jnp
      >>> print(relativistic_average_hinge.discriminator(jnp.array([1.0, 3.0]), jnp.array([2.0, 2.0])))
      [3. 1.]
    """,
)


def _relativistic_average_least_squares_discriminator(real_logits: Logits, fake_logits: Logits) -> Logits:
    real, fake = _relative(real_logits, fake_logits)
    return (real - 1.0) ** 2 + (fake + 1.0) ** 2


def _relativistic_average_least_squares_generator(real_logits: Logits, fake_logits: Logits) -> Logits:
    real, fake = _relative(real_logits, fake_logits)
    return (fake - 1.0) ** 2 + (real + 1.0) ** 2


relativistic_average_least_squares = pair(
    _relativistic_average_least_squares_discriminator,
    _relativistic_average_least_squares_generator,
    """The relativistic average least-squares loss (RaLSGAN), with targets 1 and -1 for the difference.

    discriminator: (r - E f - 1)^2 + (f - E r + 1)^2; generator: (f - E r - 1)^2 + (r - E f + 1)^2.

    Args:
      real_logits: logits of reals, D(x), `[b, ...]`, unbounded.
      fake_logits: logits of fakes, D(G(z)), of the same shape.

    Returns:
      Losses in [0, inf) of the logits' shape and dtype. Unlike in `least_squares` there is no factor one half.

    References:
      Jolicoeur-Martineau, arXiv:1807.00734, 2018, appendix D. The author's code takes half of both losses.

    Example:
      >>> import jax.numpy as jnp
      >>> print(relativistic_average_least_squares.discriminator(jnp.array([1.0, 3.0]), jnp.array([2.0, 2.0])))
      [5. 1.]
    """,
)

__test__ = doctests(globals())
