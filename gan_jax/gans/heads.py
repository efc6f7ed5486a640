"""Terms on what a discriminator says beside its logits: labels, embeddings, codes.

The discriminator returns a dict: `'logits'`, and what the term names.
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, PyTree

from gan_jax import losses
from gan_jax.gans.terms import DISCRIMINATOR, GENERATOR, Pick, named
from gan_jax.types import PRNGKey, Term, Value, View

CLASSES, CODES = named("classes"), named("codes")


def _of_labels(
    name: str,
    weight: float,
    generator_weight: float,
    on_real: Callable[[PyTree, Array], Array],
    on_fake: Callable[[PyTree, Array], Array] | None,
    of_generator: Callable[[PyTree, Array], Array],
    pick: Pick,
) -> tuple[Term, ...]:
    """Terms on what the discriminator says of labels: on reals, perhaps on fakes, and the generator's."""

    def critic_real(view: View, key: PRNGKey) -> Value:
        return Value(on_real(pick(view.real_out), view.batch["label"]))

    def generator(view: View, key: PRNGKey) -> Value:
        return Value(of_generator(pick(view.fake_out), view.batch["label"]))

    terms = (
        Term(name, DISCRIMINATOR, weight, critic_real),
        Term(f"generator_{name}", GENERATOR, generator_weight, generator),
    )
    if on_fake is None:
        return terms

    def critic_fake(view: View, key: PRNGKey) -> Value:
        return Value(on_fake(pick(view.fake_out), view.batch["label"]))

    return *terms, Term(f"fake_{name}", DISCRIMINATOR, weight, critic_fake)


def auxiliary_classifier(
    weight: float = 1.0, generator_weight: float = 1.0, *, of_fakes: bool = True, classes: Pick = CLASSES
) -> tuple[Term, ...]:
    """AC-GAN: the discriminator's output `'classes'`, `[b, k]`, names the label (`losses.auxiliary_classifier`).

    Args:
      weight: of the discriminator's terms.
      generator_weight: of the generator's.
      of_fakes: whether the discriminator learns labels of fakes too, as in the paper.
      classes: takes them from the discriminator's outputs.

    Returns:
      Terms of both players.
    """
    loss = losses.auxiliary_classifier
    return _of_labels("classification", weight, generator_weight, loss, loss if of_fakes else None, loss, classes)


def multi_hinge(weight: float = 1.0, generator_weight: float = 1.0, *, classes: Pick = CLASSES) -> tuple[Term, ...]:
    """MHinge-GAN: of `'classes'`, `[b, k + 1]`, the last one is that of fakes (`losses.multi_hinge`).

    Args:
      weight: of the discriminator's terms.
      generator_weight: of the generator's.
      classes: takes them from the discriminator's outputs.

    Returns:
      Terms of both players.
    """
    loss = losses.multi_hinge
    fakes = lambda logits, label: loss(logits, jnp.full_like(label, logits.shape[-1] - 1))  # noqa: E731
    return _of_labels("multi_hinge", weight, generator_weight, loss, fakes, loss, classes)


def auxiliary_discriminative(
    weight: float = 1.0, generator_weight: float = 1.0, *, classes: Pick = CLASSES
) -> tuple[Term, ...]:
    """ADC-GAN: `'classes'`, `[b, 2k]`, are those of reals and those of fakes (`losses.auxiliary_discriminative`).

    Args:
      weight: of the discriminator's terms.
      generator_weight: of the generator's.
      classes: takes them from the discriminator's outputs.

    Returns:
      Terms of both players.
    """
    real, fake = (
        lambda logits, label, real=real: losses.auxiliary_discriminative(logits, label, real=real)
        for real in (True, False)
    )
    generator = losses.auxiliary_discriminative_generator
    return _of_labels("discriminative", weight, generator_weight, real, fake, generator, classes)


def _contrastive(
    name: str, loss: Callable[..., Array], weight: float, generator_weight: float, options: Any
) -> tuple[Term, ...]:
    def of(outputs: PyTree, label: Array) -> Array:
        return loss(named("embedding")(outputs), named("proxy")(outputs), label, **options)

    return _of_labels(name, weight, generator_weight, of, None, of, lambda outputs: outputs)


def conditional_contrastive(weight: float = 1.0, generator_weight: float = 1.0, **options: Any) -> tuple[Term, ...]:
    """ContraGAN's 2C loss of the outputs `'embedding'` and `'proxy'`, `[b, d]` (`losses.conditional_contrastive`).

    Args:
      weight: of the discriminator's term, on reals.
      generator_weight: of the generator's.
      **options: of the loss.

    Returns:
      A term of each player.
    """
    return _contrastive("contrastive", losses.conditional_contrastive, weight, generator_weight, options)


def data_to_data_cross_entropy(weight: float = 1.0, generator_weight: float = 1.0, **options: Any) -> tuple[Term, ...]:
    """ReACGAN's D2D-CE of `'embedding'` and `'proxy'`, `[b, d]` (`losses.data_to_data_cross_entropy`).

    Args:
      weight: of the discriminator's term, on reals.
      generator_weight: of the generator's.
      **options: of the loss.

    Returns:
      A term of each player.
    """
    return _contrastive("data_to_data", losses.data_to_data_cross_entropy, weight, generator_weight, options)


def information(
    codes: Callable[[tuple[PyTree, ...]], Array], weight: float = 1.0, *, outputs: Pick = CODES
) -> tuple[Term, Term]:
    """InfoGAN: both players make the discriminator's output `'codes'` tell the codes that a fake was made from.

    `losses.discrete_mutual_information` where the codes are integers, `[b]`, of outputs `[b, k]`; else
    `losses.gaussian_mutual_information`, of outputs `(mean, log_std)`, each `[b, k]`.

    Args:
      codes: takes them from the generator's inputs.
      weight: of both terms.
      outputs: takes the discriminator's guess from its outputs.

    Returns:
      A term of each player.

    References:
      Chen et al., "InfoGAN", arXiv:1606.03657, 2016. Its code trains the head together with the generator; here the
      head is a part of the discriminator, whose own term trains it.
    """

    def value(view: View, key: PRNGKey) -> Value:
        code, guess = codes(view.inputs), outputs(view.fake_out)
        if jnp.issubdtype(code.dtype, jnp.integer):
            return Value(losses.discrete_mutual_information(guess, code))
        mean, log_std = guess
        return Value(losses.gaussian_mutual_information(mean, log_std, code))

    return Term("information", DISCRIMINATOR, weight, value), Term("information", GENERATOR, weight, value)
