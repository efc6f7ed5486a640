"""Class-conditional GAN."""

from typing import Any

from gan_jax.gans.adversarial import adversarial, with_adam
from gan_jax.losses import GANLoss, non_saturating
from gan_jax.types import Game, InvalidInputError, Network, Prior


def cgan(
    generator: Network,
    discriminator: Network,
    prior: Prior,
    *,
    num_classes: int,
    loss: GANLoss = non_saturating,
    learning_rate: float = 2e-4,
    **options: Any,
) -> Game:
    """Creates the game of the conditional GAN: both networks take the class label and decide how to use it.

    Args:
      generator: generator network, `(z, label) -> samples`.
      discriminator: discriminator network, `(x, label) -> logits`.
      prior: distribution of the latents.
      num_classes: number of classes; labels are 0 to `num_classes` - 1.
      loss: adversarial loss, any pair of `gan_jax.losses`.
      learning_rate: learning rate of both players' Adam, betas 0.5 and 0.999.
      **options: arguments of `adversarial`.

    Returns:
      The game.

    Raises:
      InvalidInputError: for fewer than two classes.

    References:
      Mirza and Osindero, "Conditional Generative Adversarial Nets", arXiv:1411.1784, 2014. The paper's discriminator
      concatenates the label; the networks in `gan_jax.nets` use a projection (arXiv:1802.05637).
    """
    if num_classes < 2:
        raise InvalidInputError(f"num_classes={num_classes}: a conditional game needs at least two classes")
    options = with_adam(options, learning_rate, 0.5)
    return adversarial(generator, discriminator, prior, loss=loss, num_classes=num_classes, **options)
