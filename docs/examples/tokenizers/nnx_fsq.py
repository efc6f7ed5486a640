"""NNX: a tokenizer with finite scalar quantisation, and a GAN loss with VQGAN's weight at the image."""

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from sklearn.datasets import load_digits

from gan_jax import losses, ops, regularizers


class Autoencoder(nnx.Module):
    def __init__(self, rngs):
        self.down, self.to_codes = nnx.Conv(1, 32, (4, 4), 2, rngs=rngs), nnx.Conv(32, 3, (1, 1), rngs=rngs)
        self.up, self.last = nnx.ConvTranspose(3, 32, (4, 4), 2, rngs=rngs), nnx.Conv(32, 1, (3, 3), rngs=rngs)

    def __call__(self, images):
        codes, ids, _ = ops.finite_scalar_quantize(self.to_codes(nnx.gelu(self.down(images))), (5, 5, 3))
        return self.last(nnx.gelu(self.up(codes))), ids


class Critic(nnx.Module):
    def __init__(self, rngs):
        self.hidden, self.logits = nnx.Conv(1, 32, (4, 4), 2, rngs=rngs), nnx.Conv(32, 1, (3, 3), rngs=rngs)

    def __call__(self, images):
        return self.logits(nnx.leaky_relu(self.hidden(images), 0.2))[..., 0]  # one logit per patch


@nnx.jit
def step(model, critic, model_optimizer, critic_optimizer, images, index):
    def autoencoder_loss(model):
        y, ids = model(images)
        parts = {
            "pixels": lambda y: losses.l1(y, images),
            "adversarial": lambda y: losses.non_saturating.generator(critic(images), critic(y)),
        }
        values, slopes = losses.output_gradients(parts, y)
        weight = losses.adaptive_weight(slopes["pixels"], slopes["adversarial"], epsilon=1e-4)
        factor = 0.5 * weight * losses.ramp(index, start=100, length=50)  # the critic is 100 steps ahead
        loss = losses.steer(y, slopes["pixels"] + factor * slopes["adversarial"])
        return loss, (y, jnp.mean(values["pixels"]), jnp.mean(ops.count_codes(ids, 75) > 0))

    def critic_loss(critic):
        penalty = regularizers.zero_centered_penalty(critic, images)
        return jnp.mean(losses.non_saturating.discriminator(critic(images), critic(y))) + 0.5 * jnp.mean(penalty)

    (_, (y, *shown)), gradient = nnx.value_and_grad(autoencoder_loss, has_aux=True)(model)
    model_optimizer.update(model, gradient)
    critic_optimizer.update(critic, nnx.grad(critic_loss)(critic))
    return shown


data = jnp.asarray(load_digits().images[..., None] / 8.0 - 1.0, jnp.float32)
model, critic, log = Autoencoder(nnx.Rngs(0)), Critic(nnx.Rngs(1)), []
optimizers = [nnx.Optimizer(module, optax.adam(2e-3, b1=0.5), wrt=nnx.Param) for module in (model, critic)]
for index in range(300):
    images = data[jax.random.randint(jax.random.key(index), (64,), 0, len(data))]
    log.append([float(x) for x in step(model, critic, *optimizers, images, jnp.array(index))])
