"""InfoGAN on digits: the discriminator predicts one of ten latent codes. Chen et al., arXiv:1606.03657, 2016."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from gan_jax import core, data, gans, losses, nets
from gan_jax.runs import Config, run_config, run_settings
from gan_jax.runtime import Experiment, image_grid
from gan_jax.types import Prior

CODES = 10


class Critic(nn.Module):
    """Discriminator with two outputs: logits, and a prediction of the code."""

    @nn.compact
    def __call__(self, x, *, train):
        h = nn.leaky_relu(nn.Dense(256)(x.reshape(x.shape[0], -1)), 0.2)
        h = nn.leaky_relu(nn.Dense(256)(h), 0.2)
        return {"logits": nn.Dense(1, name="logits")(h)[:, 0], "codes": nn.Dense(CODES, name="codes")(h)}


def coded(dim: int) -> Prior:
    """Prior of one-hot codes, uniform over the ten, followed by `dim` variables of normal noise."""
    noise = core.normal(dim)

    def sample(key, n, truncation=None):
        code_key, noise_key = jax.random.split(key)
        code = jax.nn.one_hot(jax.random.randint(code_key, (n,), 0, CODES), CODES)
        return jnp.concatenate([code, noise.sample(noise_key, n, truncation)], axis=-1)

    def interpolate(z0, z1, t):
        between = noise.interpolate(z0[..., CODES:], z1[..., CODES:], t)
        # The noise is interpolated; a one-hot code cannot be, and switches halfway.
        return jnp.concatenate([jnp.where(t[..., None] < 0.5, z0, z1)[..., :CODES], between], axis=-1)

    return Prior(sample, interpolate)


def get_config() -> Config:
    return run_config(
        batch_size=64, steps=4000, steps_per_dispatch=50, report_every=200, sample_every=1000, checkpoint_every=1000,
        learning_rate=5e-4, information_weight=1.0, r1_gamma=0.02,
    )  # fmt: skip


def build(config: Config) -> Experiment:
    game = gans.adversarial(
        nets.from_linen(nets.MLPGenerator((8, 8, 1), (256, 256))),
        nets.from_linen(Critic()),
        coded(32),
        loss=losses.non_saturating,
        generator_optimizer=core.adam(config.learning_rate, 0.5),
        discriminator_optimizer=core.adam(config.learning_rate, 0.5),
        penalties=(gans.r1(config.r1_gamma),),
        terms=gans.heads.information(lambda inputs: inputs[0][:, :CODES].argmax(-1), config.information_weight),
        ema_halflife_images=10_000.0,
    )
    return Experiment(
        game=game,
        source=lambda: data.digits(labels=False),
        reference=lambda: data.digits(labels=True),
        preview=image_grid,
        **run_settings(config),
    )
