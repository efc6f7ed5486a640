"""The training loop of the Keras GAN tutorials, for speed comparisons: `predict`, then `train_on_batch` three times.

It follows the first tutorial (MLPs, Adam with beta 0.5). The generator predicts a batch. The discriminator is updated
on real images and then on these fakes: two updates where `gan_jax` makes one. The generator is updated through a
combined model with a frozen discriminator. Needs Keras and TensorFlow, from the extra `bench`.
"""

import math
import os
from collections.abc import Callable, Sequence

os.environ["KERAS_BACKEND"] = "tensorflow"  # must be set before Keras is imported
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np


def loop(
    generator: Sequence[int], shape: Sequence[int], latents: int, batch: int, discriminator: Sequence[int] = (512, 256)
) -> Callable[[], None]:
    """Builds the networks, and returns a function that runs one iteration.

    Args:
      generator: widths of the generator's hidden layers.
      shape: shape of an image.
      latents: length of z.
      batch: number of real images, of fakes, and of latents for the generator's update.
      discriminator: widths of the discriminator's hidden layers.
    """

    def mlp(inputs: Sequence[int], widths: Sequence[int], outputs: int, activation: str) -> keras.Sequential:
        hidden = [x for width in widths for x in (keras.layers.Dense(width), keras.layers.LeakyReLU(0.2))]
        layers = [keras.layers.Flatten(), *hidden, keras.layers.Dense(outputs, activation=activation)]
        return keras.Sequential([keras.Input(inputs), *layers])

    def adam() -> keras.optimizers.Optimizer:
        return keras.optimizers.Adam(2e-4, beta_1=0.5)

    keras.utils.set_random_seed(0)
    made = mlp((latents,), generator, math.prod(shape), "tanh")
    made.add(keras.layers.Reshape(shape))
    critic = mlp(shape, discriminator, 1, "sigmoid")
    critic.compile(loss="binary_crossentropy", optimizer=adam())
    critic.trainable = False  # takes effect in models compiled from here on
    combined = keras.Sequential([keras.Input((latents,)), made, critic])
    combined.compile(loss="binary_crossentropy", optimizer=adam())
    rng = np.random.default_rng(0)
    real = rng.uniform(-1, 1, (batch, *shape)).astype(np.float32)
    valid, fake = np.ones((batch, 1)), np.zeros((batch, 1))

    def run() -> None:
        images = made.predict(rng.normal(size=(batch, latents)), verbose=0)
        critic.trainable = True
        critic.train_on_batch(real, valid)
        critic.train_on_batch(images, fake)
        critic.trainable = False
        combined.train_on_batch(rng.normal(size=(batch, latents)), valid)

    return run
