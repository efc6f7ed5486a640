"""pix2pix: translation of images that is learned from pairs; with the critics and features of pix2pixHD and SPADE."""

from collections.abc import Sequence

import optax

from gan_jax import core
from gan_jax.core import Hook
from gan_jax.gans.decay import decay_hooks
from gan_jax.gans.standard import DISCRIMINATOR, GENERATOR, sampler, standard_game
from gan_jax.gans.terms import feature_matching, gan_loss, reconstruction
from gan_jax.gans.translation import check_pair, one_hot_input, translate
from gan_jax.losses import GANLoss, non_saturating
from gan_jax.types import Game, Network, Term


def pix2pix(
    generator: Network,
    discriminator: Network,
    *,
    loss: GANLoss = non_saturating,
    adversarial_weight: float = 1.0,
    l1_weight: float | None = 100.0,
    feature_matching_weight: float | None = None,
    classes: int | None = None,
    sampling_generator: Network | None = None,
    learning_rate: float = 2e-4,
    decay: tuple[float, float] | None = None,
    terms: Sequence[Term] = (),
    hooks: Sequence[Hook] = (),
    discriminator_start: int = 0,
    generator_optimizer: optax.GradientTransformation | None = None,
    discriminator_optimizer: optax.GradientTransformation | None = None,
) -> Game:
    """Creates the game of pix2pix: a conditional GAN from source images `'a'` to target images `'b'`.

    The generator minimises adversarial_weight L(D(G(a), a)) + l1_weight mean|G(a) - b| + feature_matching_weight F,
    where F is the mean difference of the discriminator's features of G(a) and b. The discriminator sees the source
    beside the image. The game has no latents: the generator's dropout is the only noise.

    As its authors do, `sample` and `translate` run the generator as in training: with dropout, and with batch norm's
    statistics of the images at hand. With batch norm, an output then depends on the other images of its batch: use
    'instance' in the networks unless all batches have one image.

    pix2pixHD is `nets.MultiScaleDiscriminator`, `losses.least_squares`, `l1_weight=None` and
    `feature_matching_weight=20.0`: their 10 for a sum over 4 layers is 40 for our mean, and `least_squares` halves the
    generator's loss, theirs does not. SPADE is `nets.SPADEGenerator`, `nets.MultiScaleDiscriminator(spectral="inner")`,
    `losses.hinge`, `adversarial_weight=0.5` (the mean over two scales, where ours is the sum),
    `feature_matching_weight=40.0` and optimisers with learning rates 1e-4 and 4e-4 and betas 0 and 0.9. Both papers add
    a perceptual loss, `gans.terms.perceptual`.

    Args:
      generator: generator network, `images -> images`, such as `nets.UNet` or `nets.TranslationResNet`.
      discriminator: discriminator network, `(images, sources) -> logits` of any shape, or a dict of logits and
        features, such as `nets.PatchDiscriminator` or `nets.MultiScaleDiscriminator`.
      loss: adversarial loss, any pair of `gan_jax.losses`. The authors halve the discriminator's, which Adam does not
        notice.
      adversarial_weight: weight of the generator's adversarial term; 0 trains with the other terms alone.
      l1_weight: weight of the L1 distance to the target; None for no such term.
      feature_matching_weight: weight of feature matching, for a discriminator that returns features; None for none.
      classes: number of classes if the sources are segmentation maps, integers `[b, h, w]` or `[b, h, w, 1]`: the
        networks then see one channel per class, and NaN where a value is no class. None for images.
      sampling_generator: network that samples with the generator's parameters; by default `generator`. Give the plain
        network if `generator` is one of `nets.microbatched`, which takes only batches that it can divide.
      learning_rate: learning rate of both players' Adam, betas 0.5 and 0.999.
      decay: `(constant, falling)` in pairs: the learning rate is constant, then falls to 0; see `linear_decay`. The
        paper's is 100 epochs each. None for a constant one.
      terms: additional terms of either player, such as `gans.terms.perceptual`.
      hooks: additional hooks, such as `core.averaging`, after the schedule.
      discriminator_start: first iteration in which the discriminator is updated.
      generator_optimizer: optimiser of the generator; None for that Adam. `decay` does not apply to one given here.
      discriminator_optimizer: optimiser of the discriminator; None for that Adam.

    Returns:
      The game, with the players `generator` and `discriminator`; the discriminator is updated first. `sample` needs
      `inputs`, the sources; `translate` is `(state, key, sources) -> images`.

    Raises:
      InvalidInputError: for invalid weights; by the game's `init`, for a batch other than `'a'` and `'b'` of one
        height and width.

    References:
      Isola et al., "Image-to-Image Translation with Conditional Adversarial Networks", arXiv:1611.07004, 2016.
      Wang et al. (pix2pixHD), arXiv:1711.11585, 2017. Park et al. (SPADE), arXiv:1903.07291, 2019.
    """
    sample = sampler(one_hot_input(sampling_generator or generator, classes), train=True)
    given = {GENERATOR: generator_optimizer, DISCRIMINATOR: discriminator_optimizer}
    generator, discriminator = one_hot_input(generator, classes), one_hot_input(discriminator, classes, 1)
    judge, fool = gan_loss(loss)
    weighted = {
        "l1": None if l1_weight is None else reconstruction(l1_weight, lambda view: view.real, name="l1"),
        "features": None if feature_matching_weight is None else feature_matching(feature_matching_weight),
    }
    game = standard_game(
        generator,
        discriminator,
        (
            judge,
            fool._replace(weight=adversarial_weight),
            *(term for term in weighted.values() if term is not None),
            *terms,
        ),
        inputs=lambda key, batch, hparams: (batch["a"],),
        real=lambda batch: batch["b"],
        condition=lambda batch: (batch["a"],),
        optimizers={player: optimizer or core.adam(learning_rate, 0.5) for player, optimizer in given.items()},
        functions={"sample": sample, "translate": translate(sample)},
        hooks=(*decay_hooks(decay, learning_rate, given), *hooks),
        discriminator_start=discriminator_start,
        same_fakes=True,
        check=check_pair("pix2pix"),
    )
    return game._replace(map_classes=classes)
