"""The training loop of the Keras GAN tutorials, to compare speed with: `predict`, then `train_on_batch` three times.

As in the first of them (MLPs, Adam with beta 0.5): the generator predicts a batch; the discriminator learns from real
images and from those, in two updates where `gan_jax` has one; a combined model with the discriminator frozen teaches
the generator. Needs Keras and TensorFlow, of the extra `bench`.
"""

import math
import os
from collections.abc import Callable, Sequence

os.environ["KERAS_BACKEND"] = "tensorflow"  # read when Keras is imported
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np


def loop(
    generator: Sequence[int], shape: Sequence[int], latents: int, batch: int, discriminator: Sequence[int] = (512, 256)
) -> Callable[[], None]:
    """One iteration.

    Args:
      generator: widths of the generator's hidden layers.
      shape: of an image.
      latents: length of z.
      batch: of real images, of fakes, and of latents for the generator's update.
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
    critic.trainable = False  # in what is compiled from here on
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
