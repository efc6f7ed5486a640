"""Terms for additional outputs of a discriminator: class logits, embeddings, codes.

The discriminator returns a dict with `'logits'` and the output that the term names.
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
    """Creates the label terms of both players: D's on reals, and with `on_fake` also on fakes; G's on fakes."""

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
    """Creates the terms of AC-GAN: the discriminator classifies images (`losses.auxiliary_classifier`).

    The discriminator returns class logits as `'classes'`, `[b, k]`.

    Args:
      weight: weight of the discriminator's terms.
      generator_weight: weight of the generator's term.
      of_fakes: whether the discriminator also learns the labels of fakes, as in the paper.
      classes: function that selects the class logits from the discriminator's outputs.

    Returns:
      Terms of both players.
    """
    loss = losses.auxiliary_classifier
    return _of_labels("classification", weight, generator_weight, loss, loss if of_fakes else None, loss, classes)


def multi_hinge(weight: float = 1.0, generator_weight: float = 1.0, *, classes: Pick = CLASSES) -> tuple[Term, ...]:
    """Creates the terms of MHinge-GAN: the discriminator has one more class, for fakes (`losses.multi_hinge`).

    The discriminator returns class logits as `'classes'`, `[b, k + 1]`; the last class is that of fakes.

    Args:
      weight: weight of the discriminator's terms.
      generator_weight: weight of the generator's term.
      classes: function that selects the class logits from the discriminator's outputs.

    Returns:
      Terms of both players.
    """
    loss = losses.multi_hinge
    fakes = lambda logits, label: loss(logits, jnp.full_like(label, logits.shape[-1] - 1))  # noqa: E731
    return _of_labels("multi_hinge", weight, generator_weight, loss, fakes, loss, classes)


def auxiliary_discriminative(
    weight: float = 1.0, generator_weight: float = 1.0, *, classes: Pick = CLASSES
) -> tuple[Term, ...]:
    """Creates the terms of ADC-GAN: the classes of reals and of fakes are distinct.

    The discriminator returns class logits as `'classes'`, `[b, 2k]`: first the k classes of reals, then those of fakes
    (`losses.auxiliary_discriminative`, `losses.auxiliary_discriminative_generator`).

    Args:
      weight: weight of the discriminator's terms.
      generator_weight: weight of the generator's term.
      classes: function that selects the class logits from the discriminator's outputs.

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
    """Creates the terms of a loss of `'embedding'` and `'proxy'`: the discriminator's on reals, the generator's."""

    def of(outputs: PyTree, label: Array) -> Array:
        return loss(named("embedding")(outputs), named("proxy")(outputs), label, **options)

    return _of_labels(name, weight, generator_weight, of, None, of, lambda outputs: outputs)


def conditional_contrastive(weight: float = 1.0, generator_weight: float = 1.0, **options: Any) -> tuple[Term, ...]:
    """Creates the terms of ContraGAN's 2C loss (`losses.conditional_contrastive`).

    The discriminator returns `'embedding'` (of the image) and `'proxy'` (of the class), both `[b, d]`.

    Args:
      weight: weight of the discriminator's term, which is on reals.
      generator_weight: weight of the generator's term.
      **options: arguments of the loss.

    Returns:
      One term of each player.
    """
    return _contrastive("contrastive", losses.conditional_contrastive, weight, generator_weight, options)


def data_to_data_cross_entropy(weight: float = 1.0, generator_weight: float = 1.0, **options: Any) -> tuple[Term, ...]:
    """Creates the terms of ReACGAN's data-to-data cross-entropy (`losses.data_to_data_cross_entropy`).

    The discriminator returns `'embedding'` (of the image) and `'proxy'` (of the class), both `[b, d]`.

    Args:
      weight: weight of the discriminator's term, which is on reals.
      generator_weight: weight of the generator's term.
      **options: arguments of the loss.

    Returns:
      One term of each player.
    """
    return _contrastive("data_to_data", losses.data_to_data_cross_entropy, weight, generator_weight, options)


def information(
    codes: Callable[[tuple[PyTree, ...]], Array], weight: float = 1.0, *, outputs: Pick = CODES
) -> tuple[Term, Term]:
    """Creates the terms of InfoGAN: the discriminator predicts the codes that a fake was made from.

    Both players minimise the error of this prediction, which is the discriminator's output `'codes'`. For integer
    codes, `[b]`, the loss is `losses.discrete_mutual_information` and the prediction is logits `[b, k]`. For other
    codes, `[b, k]`, it is `losses.gaussian_mutual_information` and the prediction is `(mean, log_std)`, each `[b, k]`.

    Args:
      codes: function that selects the codes from the generator's inputs.
      weight: weight of both terms, which share it.
      outputs: function that selects the prediction from the discriminator's outputs.

    Returns:
      One term of each player.

    References:
      Chen et al., "InfoGAN", arXiv:1606.03657, 2016. Its code trains the prediction head together with the generator.
      Here the head is a part of the discriminator, and the discriminator's term trains it.
    """

    def value(view: View, key: PRNGKey) -> Value:
        code, guess = codes(view.inputs), outputs(view.fake_out)
        if jnp.issubdtype(code.dtype, jnp.integer):
            return Value(losses.discrete_mutual_information(guess, code))
        mean, log_std = guess
        return Value(losses.gaussian_mutual_information(mean, log_std, code))

    return Term("information", DISCRIMINATOR, weight, value), Term("information", GENERATOR, weight, value)
