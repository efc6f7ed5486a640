"""Linen: a tokenizer whose codes are running means and restart when dead, and a GAN loss with VQGAN's weight."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from sklearn.datasets import load_digits

from gan_jax import losses, ops, regularizers

encoder = nn.Sequential([nn.Conv(32, (4, 4), 2), nn.gelu, nn.Conv(8, (1, 1))])
decoder = nn.Sequential([nn.ConvTranspose(32, (4, 4), (2, 2)), nn.gelu, nn.Conv(1, (3, 3))])
critic = nn.Sequential([nn.Conv(32, (4, 4), 2), nn.leaky_relu, nn.Conv(1, (3, 3))])  # one logit per patch
optimizer = optax.adam(2e-3, b1=0.5)


@jax.jit
def step(params, states, codebook, images, index):
    def autoencoder_loss(model):
        z = encoder.apply(model["encoder"], images)
        found = ops.vector_quantize(z, codebook.codes)
        y = decoder.apply(model["decoder"], found.codes)

        def adversarial(y):
            logits = critic.apply(params["critic"], y)
            return losses.non_saturating.generator(logits, logits)  # it ignores its first argument, logits of reals

        parts = {"pixels": lambda y: losses.l1(y, images), "adversarial": adversarial}
        values, slopes = losses.output_gradients(parts, y)
        weight = losses.adaptive_weight(slopes["pixels"], slopes["adversarial"], epsilon=1e-4)
        factor = 0.5 * weight * losses.ramp(index, start=100, length=50)  # the critic is 100 steps ahead
        loss = losses.steer(y, slopes["pixels"] + factor * slopes["adversarial"])
        return loss + found.loss(commitment=0.25, codebook=0.0), (z, found.ids, y, jnp.mean(values["pixels"]))

    def critic_loss(variables):
        def judge(x):
            return critic.apply(variables, x)

        penalty = regularizers.zero_centered_penalty(judge, images)
        return jnp.mean(losses.non_saturating.discriminator(judge(images), judge(y))) + 0.5 * jnp.mean(penalty)

    gradient, (z, ids, y, pixels) = jax.grad(autoencoder_loss, has_aux=True)(params["model"])
    codebook, _ = ops.update_codebook(codebook, z, ids, jax.random.key(index))
    gradients = {"model": gradient, "critic": jax.grad(critic_loss)(params["critic"])}
    updates, states = optimizer.update(gradients, states)
    return optax.apply_updates(params, updates), states, codebook, (pixels, jnp.mean(ops.count_codes(ids, 64) > 0))


data = jnp.asarray(load_digits().images[..., None] / 8.0 - 1.0, jnp.float32)
keys = jax.random.split(jax.random.key(0), 3)
model = {"encoder": encoder.init(keys[0], data[:1]), "decoder": decoder.init(keys[1], jnp.zeros((1, 4, 4, 8)))}
params, log = {"model": model, "critic": critic.init(keys[2], data[:1])}, []
states = optimizer.init(params)
codebook = ops.init_codebook(ops.kmeans(encoder.apply(model["encoder"], data[:256]), 64, keys[0]))
for index in range(300):
    images = data[jax.random.randint(jax.random.key(index), (64,), 0, len(data))]
    params, states, codebook, shown = step(params, states, codebook, images, jnp.array(index))
    log.append([float(x) for x in shown])
