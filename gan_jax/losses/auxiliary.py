"""Auxiliary terms on labels, codes and latents. All return one value per example, unweighted.

Labels are `[b]`, integers of any width. They are not checked against the number of classes, which traced values do not
allow: one outside of it gives NaN, a negative one counts from the last class. Mask unlabelled examples' terms.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Integer

from gan_jax.types import InvalidInputError, check_same_shape

ClassLogits = Float[Array, "b k"]
Labels = Integer[Array, " b"]
PerExample = Float[Array, " b"]


def auxiliary_classifier(class_logits: ClassLogits, label: Labels) -> PerExample:
    """The classification term of AC-GAN: cross-entropy, -log softmax(class_logits)[label].

    In AC-GAN both players minimise it, the discriminator on reals and on fakes, the generator on fakes.

    Args:
      class_logits: `[b, k]`, from a head of the discriminator.
      label: `[b]`, in [0, k).

    Returns:
      `[b]`, non-negative.

    References:
      Odena, Olah and Shlens, "Conditional Image Synthesis with Auxiliary Classifier GANs", arXiv:1610.09585, 2016.
      Several codebases train the discriminator's head on reals only, and weight the two players' terms apart.

    Example:
      >>> print(auxiliary_classifier(jnp.zeros((1, 4)), jnp.array([2])).round(4))
      [1.3863]
    """
    return jax.nn.logsumexp(class_logits, axis=-1) - _chosen(class_logits, label)


def multi_hinge(class_logits: ClassLogits, label: Labels) -> PerExample:
    """The Crammer-Singer multi-class hinge: max(0, 1 - l_y + max over j != y of l_j).

    In MHinge-GAN the discriminator has k + 1 outputs and is trained towards the label on reals and towards class k on
    fakes; the generator towards the label on fakes.

    Args:
      class_logits: `[b, k]`, k at least 2.
      label: `[b]`, in [0, k).

    Returns:
      `[b]`, non-negative.

    References:
      Crammer and Singer, "On the Algorithmic Implementation of Multiclass Kernel-based Vector Machines", JMLR 2001;
      Kavalerov, Czaja and Chellappa, "A Multi-Class Hinge Loss for Conditional GANs", arXiv:1912.04216, 2019. Code
      that sums over all j != y is the Weston-Watkins hinge, another loss.

    Example:
      >>> print(multi_hinge(jnp.array([[2.0, 0.0, 1.5]]), jnp.array([0])))
      [0.5]
    """
    own = jnp.arange(class_logits.shape[-1]) == _checked(label)[:, None]
    best_other = jnp.max(jnp.where(own, -jnp.inf, class_logits), axis=-1)
    return jax.nn.relu(1.0 - _chosen(class_logits, label) + best_other)


def auxiliary_discriminative(class_logits: Float[Array, "b classes"], label: Labels, *, real: bool) -> PerExample:
    """The discriminator's term of ADC-GAN: cross-entropy over 2k classes, those of reals and those of fakes.

    -log softmax(class_logits)[y] on reals and -log softmax(class_logits)[k + y] on fakes.

    Args:
      class_logits: `[b, 2k]`, from a head of the discriminator: first the k classes of reals, then those of fakes.
      label: `[b]`, in [0, k).
      real: whether these are the logits of reals.

    Returns:
      `[b]`, non-negative.

    References:
      Hou et al., "Conditional GANs with Auxiliary Discriminative Classifier", arXiv:2107.10060, 2021. The authors' code
      interleaves the two kinds of classes (2y and 2y + 1).

    Example:
      >>> print(auxiliary_discriminative(jnp.array([[0.0, 0.0, 0.0, 9.0]]), jnp.array([1]), real=False).round(4))
      [0.0004]
    """
    return auxiliary_classifier(class_logits, label if real else _of_fakes(class_logits, label))


def auxiliary_discriminative_generator(class_logits: Float[Array, "b classes"], label: Labels) -> PerExample:
    """The generator's term of ADC-GAN: towards the real class of its label and away from the fake one.

    -log p(y, real) + log p(y, fake), which is l_(k+y) - l_y.

    Args:
      class_logits: `[b, 2k]` of fakes, as for `auxiliary_discriminative`.
      label: `[b]`, in [0, k).

    Returns:
      `[b]`, unbounded.

    References:
      Hou et al., arXiv:2107.10060, 2021.

    Example:
      >>> print(auxiliary_discriminative_generator(jnp.array([[0.0, 1.0, 0.0, 9.0]]), jnp.array([1])))
      [8.]
    """
    return _chosen(class_logits, _of_fakes(class_logits, label)) - _chosen(class_logits, label)


def discrete_mutual_information(code_logits: ClassLogits, code: Labels) -> PerExample:
    """InfoGAN's term for a categorical code: -log Q(code | x), with Q = softmax(code_logits).

    Minus its mean plus the entropy of the code is a lower bound on the mutual information of code and sample, so both
    players minimise it.

    Args:
      code_logits: `[b, k]`, what a head of the discriminator makes of fakes.
      code: `[b]`, the codes that the fakes were made from, in [0, k).

    Returns:
      `[b]`, non-negative, in nats.

    References:
      Chen et al., "InfoGAN: Interpretable Representation Learning by Information Maximizing Generative Adversarial
      Nets", arXiv:1606.03657, 2016, equation 5.

    Example:
      >>> print(discrete_mutual_information(jnp.zeros((1, 10)), jnp.array([3])).round(4))
      [2.3026]
    """
    return auxiliary_classifier(code_logits, code)


def gaussian_mutual_information(
    mean: Float[Array, "b k"], log_std: Float[Array, "b k"], code: Float[Array, "b k"]
) -> PerExample:
    """InfoGAN's term for continuous codes: -log Q(code | x), with Q a factored normal distribution.

    sum over k of ((code - mean) / std)^2 / 2 + log std + log(2 pi) / 2.

    Args:
      mean: `[b, k]`, what a head of the discriminator makes of fakes.
      log_std: `[b, k]`, likewise; zeros for a fixed variance of one.
      code: `[b, k]`, the codes that the fakes were made from.

    Returns:
      `[b]`, in nats.

    References:
      Chen et al., arXiv:1606.03657, 2016. Implementations parametrise by variance, log-variance or a softplus, fix the
      variance, drop the constant, or take the mean over k.

    Example:
      >>> print(gaussian_mutual_information(jnp.zeros((1, 1)), jnp.zeros((1, 1)), jnp.ones((1, 1))).round(4))
      [1.4189]
    """
    check_same_shape(mean=mean, log_std=log_std, code=code)
    scaled = (code - mean) * jnp.exp(-log_std)
    return jnp.sum(0.5 * scaled**2 + log_std + jnp.asarray(0.5 * math.log(2 * math.pi), mean.dtype), axis=-1)


def mode_seeking(
    fake_1: Float[Array, "b *shape"],
    fake_2: Float[Array, "b *shape"],
    z_1: Float[Array, "b *latent"],
    z_2: Float[Array, "b *latent"],
    *,
    epsilon: float = 1e-5,
) -> PerExample:
    """The mode-seeking term: two latents far apart should give two samples far apart.

    1 / (mean |G(z1) - G(z2)| / mean |z1 - z2| + epsilon), the means over all axes of one example; minimised by the
    generator. It is largest, 1 / epsilon, where both samples are the same.

    Args:
      fake_1: G(z1), made under the same condition as `fake_2`.
      fake_2: G(z2).
      z_1: latents.
      z_2: latents, drawn independently.
      epsilon: keeps the quotient finite.

    Returns:
      `[b]`, positive, float32 or wider.

    References:
      Mao et al., "Mode Seeking Generative Adversarial Networks for Diverse Image Synthesis" (MSGAN), arXiv:1903.05628,
      2019. The paper maximises the ratio, its code minimises the inverse, as here, of a ratio whose two means run over
      the whole batch.

    Example:
      >>> z = jnp.zeros((1, 4))
      >>> print(mode_seeking(jnp.ones((1, 2, 2, 1)), jnp.zeros((1, 2, 2, 1)), z, z + 2.0).round(2))
      [2.]
    """
    check_same_shape(fake_1=fake_1, fake_2=fake_2)
    check_same_shape(z_1=z_1, z_2=z_2)

    def distance(a: Array, b: Array) -> PerExample:
        wide = jnp.promote_types(a.dtype, jnp.float32)
        return jnp.mean(jnp.abs(a.astype(wide) - b.astype(wide)).reshape(a.shape[0], -1), axis=1)

    latents = jnp.maximum(distance(z_1, z_2), 1e-8)  # finite for equal latents
    return 1.0 / (distance(fake_1, fake_2) / latents + epsilon)


def _chosen(class_logits: ClassLogits, label: Labels) -> PerExample:
    return jnp.take_along_axis(class_logits, _checked(label)[:, None], axis=-1)[:, 0]


def _checked(label: Labels) -> Labels:
    """Labels as int32, since one byte would wrap round in arithmetic."""
    if label.ndim != 1 or not jnp.issubdtype(label.dtype, jnp.integer):
        raise InvalidInputError(f"label is {label.dtype}{list(label.shape)}: expected one integer per example, [b]")
    return label.astype(jnp.int32)


def _of_fakes(class_logits: ClassLogits, label: Labels) -> Labels:
    """The class of fakes that belongs to a class of reals: k places further on."""
    classes = class_logits.shape[-1]
    if classes % 2:
        raise InvalidInputError(f"class_logits has {classes} classes: expected k of reals and as many of fakes")
    return _checked(label) + classes // 2
