"""Equinox: a tokenizer with a learned codebook, and a GAN loss with VQGAN's weight at the last layer."""

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from sklearn.datasets import load_digits

from gan_jax import losses, ops, regularizers


class Autoencoder(eqx.Module):
    encoder: eqx.nn.MLP
    decoder: eqx.nn.MLP
    last: eqx.nn.Linear
    codes: jax.Array

    def __call__(self, images):
        found = ops.vector_quantize(encode(self.encoder, images), self.codes)
        return jax.nn.gelu(jax.vmap(self.decoder)(found.codes.reshape(-1, 64))), found


def encode(encoder, images):
    return jax.vmap(encoder)(images).reshape(-1, 16, 4)  # 16 codes of 4 channels


@eqx.filter_jit
def step(model, judge, states, images, index):
    def autoencoder_loss(model):
        hidden, found = model(images)
        y, back = jax.vjp(lambda kernel: jax.lax.stop_gradient(hidden) @ kernel.T, model.last.weight)
        real, loss = jax.vmap(judge)(images), losses.hinge.generator
        parts = {"pixels": lambda y: losses.l2(y, images), "gan": lambda y: loss(real, jax.vmap(judge)(y))}
        values, slopes = losses.output_gradients(parts, y)
        weight = losses.adaptive_weight(*(back(slopes[name])[0] for name in parts), epsilon=1e-4)
        factor = 0.5 * weight * losses.ramp(index, start=100, length=50)  # the critic is 100 steps ahead
        steered = losses.steer(hidden @ model.last.weight.T, slopes["pixels"] + factor * slopes["gan"])
        used = jnp.mean(ops.count_codes(found.ids, 32) > 0)
        return steered + found.loss(codebook=1.0, commitment=0.25), (y, jnp.mean(values["pixels"]), used)

    def critic_loss(judge):
        loss = losses.hinge.discriminator(jax.vmap(judge)(images), jax.vmap(judge)(y))
        return jnp.mean(loss + 0.5 * regularizers.zero_centered_penalty(jax.vmap(judge), images))

    gradient, (y, *shown) = eqx.filter_grad(autoencoder_loss, has_aux=True)(model)
    updates, states = optimizer.update((gradient, eqx.filter_grad(critic_loss)(judge)), states)
    return *eqx.apply_updates((model, judge), updates), states, shown


data = jnp.asarray(load_digits().images.reshape(-1, 64) / 8.0 - 1.0, jnp.float32)
keys, optimizer, log = jax.random.split(jax.random.key(0), 5), optax.adam(1e-3, b1=0.5), []
encoder, decoder = (eqx.nn.MLP(64, size, 128, 1, key=key) for size, key in zip((64, 128), keys[:2], strict=True))
last, codes = eqx.nn.Linear(128, 64, use_bias=False, key=keys[2]), ops.kmeans(encode(encoder, data), 32, keys[3])
model, judge = Autoencoder(encoder, decoder, last, codes), eqx.nn.MLP(64, "scalar", 128, 2, key=keys[4])
states = optimizer.init(eqx.filter((model, judge), eqx.is_array))
for index in range(300):
    images = data[jax.random.randint(jax.random.key(index), (64,), 0, len(data))]
    model, judge, states, shown = step(model, judge, states, images, jnp.array(index))
    log.append([float(x) for x in shown])
