"""R3GAN: the relativistic pairing loss with R1 and R2 penalties, and hyperparameters on schedules."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array

from gan_jax import core
from gan_jax.core import Hook
from gan_jax.gans.adversarial import Augmentation, adversarial
from gan_jax.gans.terms import r1, r2
from gan_jax.losses import relativistic_pairing
from gan_jax.types import Game, Network, Prior

Range = tuple[float, float]


class R3GANSchedule(NamedTuple):
    """Training settings of the authors for one data set; pairs are (start, end) of a half-cosine schedule.

    Attributes:
      batch_size: batch size of every update.
      images: length of the training in images; None where the authors do not give it.
      schedule_images: length of the schedules in images.
      gamma: weight of R1 and of R2.
      ema_halflife_images: half-life of the averaged generator, in images.
      augment_probability: probability of the augmentations; each operation of `R3GAN_OPERATIONS` multiplies it by its
        factor.
      learning_rate: learning rate of both players.
    """

    batch_size: int
    images: float | None
    schedule_images: float
    gamma: Range
    ema_halflife_images: Range
    augment_probability: Range
    learning_rate: Range = (2e-4, 5e-5)


R3GAN_SCHEDULES = {
    "cifar10": R3GANSchedule(512, 250e6, 20e6, (0.05, 0.005), (0.0, 5e6), (0.0, 0.55)),
    "ffhq64": R3GANSchedule(256, None, 20e6, (2.0, 0.2), (0.0, 0.5e6), (0.0, 0.3)),
    "ffhq256": R3GANSchedule(256, None, 20e6, (150.0, 15.0), (0.0, 0.5e6), (0.0, 0.3)),
    "imagenet32": R3GANSchedule(4096, 1000e6, 200e6, (0.5, 0.05), (0.0, 50e6), (0.0, 0.5)),
    "imagenet64": R3GANSchedule(4096, 1000e6, 200e6, (1.0, 0.1), (0.0, 50e6), (0.0, 0.4)),
    "stacked_mnist": R3GANSchedule(512, 10e6, 10e6, (1.0, 0.1), (0.0, 0.5e6), (0.0, 0.0), (2e-4, 2e-4)),
}
"""The authors' settings by data set; `nets.R3GAN_PRESETS` has the networks. CIFAR-10 and ImageNet have labels. The
settings of Stacked-MNIST are from the paper, since the code has none. The paper does not give the length of their
schedule; here it is the whole run."""

R3GAN_OPERATIONS = dict.fromkeys(
    (
        "x_flip", "rotate_90", "integer_translation", "isotropic_scaling", "rotation", "anisotropic_scaling",
        "fractional_translation", "cutout",
    ),
    1.0,
) | dict.fromkeys(("brightness", "contrast", "luma_flip", "hue_rotation", "saturation"), 0.5)  # fmt: skip
"""The operations of `augment.ada_pipeline` that R3GAN uses; each value multiplies the augmentation probability."""


def r3gan(
    generator: Network,
    discriminator: Network,
    prior: Prior,
    *,
    gamma: Range,
    learning_rate: Range = (2e-4, 5e-5),
    b2: Range = (0.9, 0.99),
    ema_halflife_images: Range = (0.0, 500_000.0),
    augment: Augmentation | None = None,
    augment_probability: Range = (0.0, 0.3),
    schedule_images: float = 20_000_000.0,
    num_classes: int | None = None,
    hooks: Sequence[Hook] = (),
    **options: Any,
) -> Game:
    """Creates the game of R3GAN: the relativistic pairing loss, with R1 and R2 penalties in every step.

    discriminator: softplus(-(D(x) - D(G(z)))) + gamma / 2 (||grad D(x)||^2 + ||grad D(G(z))||^2);
    generator: softplus(-(D(G(z)) - D(x))).

    The gradients in the penalties are with respect to images before augmentation. The generator's update draws its own
    batch. Adam has no momentum (beta1 = 0). Arguments that are pairs are (start, end) of a half-cosine schedule.

    Args:
      generator: generator network, `z -> samples`, or `(z, label) -> samples`, such as `nets.R3GANGenerator`.
      discriminator: discriminator network, `x -> logits`, or `(x, label) -> logits`, such as
        `nets.R3GANDiscriminator`.
      prior: distribution of the latents; the paper's is `core.normal(64)`.
      gamma: weight of R1 and of R2. It depends on the data, and does not transfer between image sizes.
      learning_rate: learning rate of both players.
      b2: beta2 of both players' Adam.
      ema_halflife_images: half-life of the averaged generator, in images.
      augment: augmentation of all images that the discriminator sees, without a `target`; None for no augmentation.
      augment_probability: probability of the augmentation; the paper schedules it and does not adapt it.
      schedule_images: length of all schedules in images; after that the values stay at their end.
      num_classes: number of classes of a conditional game; None if unconditional.
      hooks: additional hooks; they run after the schedules.
      **options: arguments of `adversarial`. The schedules of learning rate and beta2 do not apply to a player whose
        optimiser is given here.

    Returns:
      The game. Its samples are clipped to [-1, 1], because the networks have no tanh.

    References:
      Huang et al., "The GAN is dead; long live the GAN! A Modern GAN Baseline", arXiv:2501.05441, 2025.
    """
    own = [player for player in ("generator", "discriminator") if f"{player}_optimizer" not in options]
    ranges = {
        "r1_weight": (gamma[0] / 2, gamma[1] / 2),
        "r2_weight": (gamma[0] / 2, gamma[1] / 2),
        "ema_halflife_images": ema_halflife_images,
        **{f"{player}/learning_rate": learning_rate for player in own},
        **{f"{player}/b2": b2 for player in own},
        **({} if augment is None else {"augment_probability": augment_probability}),
    }
    moves = core.schedule({name: core.cosine(*ends, schedule_images) for name, ends in ranges.items()})
    game = adversarial(
        generator, discriminator, prior,
        loss=relativistic_pairing, penalties=(r1(gamma[0]), r2(gamma[0])),
        augment=augment, num_classes=num_classes, hooks=(core.averaging(ema_halflife_images[0], 0.0), moves, *hooks),
        **{f"{player}_optimizer": core.adam(learning_rate[0], 0.0, b2[0]) for player in own}, **options,
    )  # fmt: skip

    def clipped(*arguments: Any, **sampling: Any) -> Array:
        return jnp.clip(game.sample(*arguments, **sampling), -1.0, 1.0)

    return game._replace(functions={**game.functions, "sample": clipped})
