"""Adversarial losses: pairs of element-wise functions of the real and the fake logits.

Notation: r = D(x) are the logits of real examples, f = D(G(z)) the logits of fakes, and sp(t) = log(1 + exp(t)) is
softplus. Every loss here is `(real_logits, fake_logits) -> losses`. All three arrays have one shape: a vector `[b]`, a
patch map `[b, h, w]`, a video map. For a list of scales use `jax.tree.map`. The losses are neither reduced nor
weighted: average, mask or weight them as the experiment requires.
"""

import jax

from gan_jax.losses.base import Logits, doctests, pair


def _logistic_discriminator(real_logits: Logits, fake_logits: Logits) -> Logits:
    return jax.nn.softplus(-real_logits) + jax.nn.softplus(fake_logits)


def _minimax_discriminator(real_logits: Logits, fake_logits: Logits) -> Logits:
    return _logistic_discriminator(real_logits, fake_logits)


def _minimax_generator(real_logits: Logits, fake_logits: Logits) -> Logits:
    del real_logits
    return -jax.nn.softplus(fake_logits)


minimax = pair(
    _minimax_discriminator,
    _minimax_generator,
    """The saturating minimax loss: the objective of the original GAN paper.

    discriminator: sp(-r) + sp(f), which is -log s(r) - log(1 - s(f)) with s the sigmoid; generator: -sp(f), which is
    log(1 - s(f)). The generator's gradient vanishes where the discriminator is certain that a sample is fake.

    Args:
      real_logits: logits of reals, D(x), of any shape, unbounded.
      fake_logits: logits of fakes, D(G(z)), of the same shape.

    Returns:
      Losses of the logits' shape and dtype. The discriminator's are in [0, inf), the generator's in (-inf, 0].

    References:
      Goodfellow et al., "Generative Adversarial Nets", arXiv:1406.2661, 2014. In the paper D maximises equation 1; here
      both players minimise. Other libraries often use the names "minimax" and "vanilla" for `non_saturating`.

    Example:
      >>> import jax.numpy as jnp
      >>> print(minimax.generator(jnp.zeros(1), jnp.zeros(1)).round(4))
      [-0.6931]
    """,
)


def _non_saturating_discriminator(real_logits: Logits, fake_logits: Logits) -> Logits:
    return _logistic_discriminator(real_logits, fake_logits)


def _non_saturating_generator(real_logits: Logits, fake_logits: Logits) -> Logits:
    del real_logits
    return jax.nn.softplus(-fake_logits)


non_saturating = pair(
    _non_saturating_discriminator,
    _non_saturating_generator,
    """The non-saturating logistic loss.

    discriminator: sp(-r) + sp(f); generator: sp(-f), which is -log s(f) with s the sigmoid. The generator's gradient is
    largest where the discriminator rejects a fake.

    Args:
      real_logits: logits of reals, D(x), of any shape, unbounded.
      fake_logits: logits of fakes, D(G(z)), of the same shape.

    Returns:
      Losses in [0, inf) of the logits' shape and dtype.

    References:
      Goodfellow et al., "Generative Adversarial Nets", arXiv:1406.2661, 2014, section 3. Implementations that write
      -log(sigmoid(f) + 1e-8) lose the gradient below f = -18; this one keeps it. By default tensorflow-gan smooths the
      labels by 0.25, so that the target of the reals is 0.875.

    Example:
      >>> import jax.numpy as jnp
      >>> print(non_saturating.generator(jnp.zeros(1), jnp.array([-100.0])))
      [100.]
    """,
)


def _hinge_discriminator(real_logits: Logits, fake_logits: Logits) -> Logits:
    return jax.nn.relu(1.0 - real_logits) + jax.nn.relu(1.0 + fake_logits)


def _hinge_generator(real_logits: Logits, fake_logits: Logits) -> Logits:
    del real_logits
    return -fake_logits


hinge = pair(
    _hinge_discriminator,
    _hinge_generator,
    """The hinge loss of geometric GAN, SNGAN, SAGAN and BigGAN.

    discriminator: max(0, 1 - r) + max(0, 1 + f); generator: -f.

    Args:
      real_logits: logits of reals, D(x), of any shape, unbounded.
      fake_logits: logits of fakes, D(G(z)), of the same shape.

    Returns:
      Losses of the logits' shape and dtype. The discriminator's are in [0, inf).

    References:
      Lim and Ye, "Geometric GAN", arXiv:1705.02894, 2017; Miyato et al., "Spectral Normalization for Generative
      Adversarial Networks", arXiv:1802.05957, 2018. Three public packages flip the sign of the logits. Copies of
      VQGAN's code take half of the discriminator's loss. The generator of speechbrain minimises max(0, 1 - f). monai
      applies a tanh to the logits first.

    Example:
      >>> import jax.numpy as jnp
      >>> print(hinge.discriminator(jnp.array([0.0, 2.0]), jnp.array([0.0, -2.0])))
      [2. 0.]
    """,
)


def _least_squares_discriminator(real_logits: Logits, fake_logits: Logits) -> Logits:
    return 0.5 * (real_logits - 1.0) ** 2 + 0.5 * fake_logits**2


def _least_squares_generator(real_logits: Logits, fake_logits: Logits) -> Logits:
    del real_logits
    return 0.5 * (fake_logits - 1.0) ** 2


least_squares = pair(
    _least_squares_discriminator,
    _least_squares_generator,
    """The least-squares loss with targets 0 for fakes and 1 for reals.

    discriminator: (r - 1)^2 / 2 + f^2 / 2; generator: (f - 1)^2 / 2.

    Args:
      real_logits: logits of reals, D(x), of any shape, unbounded; without a sigmoid.
      fake_logits: logits of fakes, D(G(z)), of the same shape.

    Returns:
      Losses in [0, inf) of the logits' shape and dtype.

    References:
      Mao et al., "Least Squares Generative Adversarial Networks", arXiv:1611.04076, 2017, equation 9. Some public
      implementations drop the factor one half, keep it for the discriminator only (CycleGAN, vegans), apply the loss to
      sigmoid(logit), or swap the targets.

    Example:
      >>> import jax.numpy as jnp
      >>> print(least_squares.discriminator(jnp.array([1.0]), jnp.array([2.0])))
      [2.]
    """,
)


def _wasserstein_discriminator(real_logits: Logits, fake_logits: Logits) -> Logits:
    return fake_logits - real_logits


def _wasserstein_generator(real_logits: Logits, fake_logits: Logits) -> Logits:
    del real_logits
    return -fake_logits


wasserstein = pair(
    _wasserstein_discriminator,
    _wasserstein_generator,
    """The Wasserstein loss, for a critic that is kept Lipschitz by a gradient penalty or by weight clipping.

    discriminator: f - r; generator: -f. The mean of r - f estimates the Wasserstein-1 distance, up to the Lipschitz
    constant.

    Args:
      real_logits: logits of reals, D(x), of any shape, unbounded.
      fake_logits: logits of fakes, D(G(z)), of the same shape.

    Returns:
      Losses of the logits' shape and dtype, unbounded.

    References:
      Arjovsky, Chintala and Bottou, "Wasserstein GAN", arXiv:1701.07875, 2017.

    Example:
      >>> import jax.numpy as jnp
      >>> print(wasserstein.discriminator(jnp.array([3.0]), jnp.array([1.0])))
      [-2.]
    """,
)

__test__ = doctests(globals())
