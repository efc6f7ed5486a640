"""Auxiliary loss terms on labels, codes and latents. All return one unweighted value per example.

Labels are `[b]`, integers of any width. They are not checked against the number of classes k, because traced values
cannot be checked. A label of k or more gives NaN; a negative label counts from the last class. Mask the terms of
unlabelled examples.
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
    """Computes the classification term of AC-GAN: the cross-entropy -log softmax(class_logits)[label].

    In AC-GAN both players minimise it: the discriminator on reals and on fakes, the generator on fakes.

    Args:
      class_logits: class logits, `[b, k]`, from a head of the discriminator.
      label: labels, `[b]`, in [0, k).

    Returns:
      `[b]`, non-negative.

    References:
      Odena, Olah and Shlens, "Conditional Image Synthesis with Auxiliary Classifier GANs", arXiv:1610.09585, 2016.
      Several codebases train the discriminator's head on reals only, and give the two players' terms different weights.

    Example:
      >>> print(auxiliary_classifier(jnp.zeros((1, 4)), jnp.array([2])).round(4))
      [1.3863]
    """
    return jax.nn.logsumexp(class_logits, axis=-1) - _chosen(class_logits, label)


def multi_hinge(class_logits: ClassLogits, label: Labels) -> PerExample:
    """Computes the Crammer-Singer multi-class hinge loss: max(0, 1 - l_y + max over j != y of l_j).

    In MHinge-GAN the discriminator has k + 1 outputs. It is trained towards the label on reals and towards class k on
    fakes. The generator is trained towards the label on fakes.

    Args:
      class_logits: class logits, `[b, k]`, k at least 2.
      label: labels, `[b]`, in [0, k).

    Returns:
      `[b]`, non-negative.

    References:
      Crammer and Singer, "On the Algorithmic Implementation of Multiclass Kernel-based Vector Machines", JMLR 2001;
      Kavalerov, Czaja and Chellappa, "A Multi-Class Hinge Loss for Conditional GANs", arXiv:1912.04216, 2019. Code that
      sums over all j != y computes the Weston-Watkins hinge, a different loss.

    Example:
      >>> print(multi_hinge(jnp.array([[2.0, 0.0, 1.5]]), jnp.array([0])))
      [0.5]
    """
    own = jnp.arange(class_logits.shape[-1]) == _checked(label)[:, None]
    best_other = jnp.max(jnp.where(own, -jnp.inf, class_logits), axis=-1)
    return jax.nn.relu(1.0 - _chosen(class_logits, label) + best_other)


def auxiliary_discriminative(class_logits: Float[Array, "b classes"], label: Labels, *, real: bool) -> PerExample:
    """Computes the discriminator's term of ADC-GAN: cross-entropy over 2k classes, k of reals and k of fakes.

    -log softmax(class_logits)[y] on reals and -log softmax(class_logits)[k + y] on fakes.

    Args:
      class_logits: class logits, `[b, 2k]`, from a head of the discriminator: first the k classes of reals, then the k
        classes of fakes.
      label: labels, `[b]`, in [0, k).
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
    """Computes the generator's term of ADC-GAN: towards the real class of the label and away from its fake class.

    -log p(y, real) + log p(y, fake), which is l_(k+y) - l_y.

    Args:
      class_logits: class logits of fakes, `[b, 2k]`, in the order of `auxiliary_discriminative`.
      label: labels, `[b]`, in [0, k).

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
    """Computes InfoGAN's term for a categorical code: -log Q(code | x), with Q = softmax(code_logits).

    The entropy of the code minus the mean of this term is a lower bound on the mutual information of code and sample.
    So both players minimise the term.

    Args:
      code_logits: logits of the code, `[b, k]`, from a head of the discriminator applied to fakes.
      code: codes that the fakes were generated from, `[b]`, in [0, k).

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
    """Computes InfoGAN's term for continuous codes: -log Q(code | x), with Q a factored normal distribution.

    sum over k of ((code - mean) / std)^2 / 2 + log std + log(2 pi) / 2.

    Args:
      mean: means of Q, `[b, k]`, from a head of the discriminator applied to fakes.
      log_std: log standard deviations of Q, `[b, k]`, from the same head; zeros for a fixed variance of one.
      code: codes that the fakes were generated from, `[b, k]`.

    Returns:
      `[b]`, in nats.

    References:
      Chen et al., arXiv:1606.03657, 2016. Other implementations parametrise Q by the variance, the log-variance or a
      softplus, fix the variance, drop the constant, or take the mean over k.

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
    """Computes the mode-seeking term: two latents that are far apart should give two samples that are far apart.

    1 / (mean |G(z1) - G(z2)| / mean |z1 - z2| + epsilon), with means over all axes of one example. The generator
    minimises it. Its largest value, 1 / epsilon, means that both samples are the same.

    Args:
      fake_1: samples G(z1), generated under the same condition as `fake_2`.
      fake_2: samples G(z2).
      z_1: latents of `fake_1`.
      z_2: latents of `fake_2`, drawn independently of `z_1`.
      epsilon: keeps the quotient finite.

    Returns:
      `[b]`, positive, float32 or wider.

    References:
      Mao et al., "Mode Seeking Generative Adversarial Networks for Diverse Image Synthesis" (MSGAN), arXiv:1903.05628,
      2019. The paper maximises the ratio. Its code minimises the inverse, as here, but takes the two means over the
      whole batch.

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

    latents = jnp.maximum(distance(z_1, z_2), 1e-8)  # equal latents would divide by 0
    return 1.0 / (distance(fake_1, fake_2) / latents + epsilon)


def _chosen(class_logits: ClassLogits, label: Labels) -> PerExample:
    """Returns the logit of each example's label."""
    return jnp.take_along_axis(class_logits, _checked(label)[:, None], axis=-1)[:, 0]


def _checked(label: Labels) -> Labels:
    """Returns the labels as int32, since arithmetic on one-byte labels would overflow."""
    if label.ndim != 1 or not jnp.issubdtype(label.dtype, jnp.integer):
        raise InvalidInputError(f"label is {label.dtype}{list(label.shape)}: expected one integer per example, [b]")
    return label.astype(jnp.int32)


def _of_fakes(class_logits: ClassLogits, label: Labels) -> Labels:
    """Returns each label's class of fakes, which is k places after its class of reals."""
    classes = class_logits.shape[-1]
    if classes % 2:
        raise InvalidInputError(
            f"class_logits has {classes} classes: expected k of reals and k of fakes, an even number"
        )
    return _checked(label) + classes // 2
