"""VAE-GAN: an autoencoder compared by features of the discriminator. Larsen et al., arXiv:1512.09300, 2015."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from gan_jax import core, data, gans, losses, nets
from gan_jax.runs import Config, run_config, run_settings
from gan_jax.runtime import Experiment, image_grid, side_by_side
from gan_jax.types import Term, Value

PRIOR = core.normal(16)


class Autoencoder(nn.Module):
    """Maps latents to samples, and images to reconstructions and their KL divergence; either input may be None."""

    def setup(self):
        self.encoder = nn.Sequential([nn.Dense(256), nn.relu, nn.Dense(2 * 16)])
        self.decoder = nets.MLPGenerator((8, 8, 1), (256, 256))

    def __call__(self, z=None, images=None, *, train):
        made = {} if z is None else {"sampled": self.decoder(z, train=train)}
        if images is not None:
            mean, log_std = jnp.split(self.encoder(images.reshape(images.shape[0], -1)), 2, axis=-1)
            noise = core.constrain_batch(jax.random.normal(self.make_rng("noise"), mean.shape)) if train else 0.0
            made["reconstructed"] = self.decoder(mean + jnp.exp(log_std) * noise, train=train)
            made["kl"] = 0.5 * jnp.sum(mean**2 + jnp.exp(2 * log_std) - 1 - 2 * log_std, axis=-1)
        return made


class Critic(nn.Module):
    @nn.compact
    def __call__(self, x, *, train):
        h = nn.leaky_relu(nn.Dense(256, name="hidden")(x.reshape(x.shape[0], -1)), 0.2)
        return {"logits": nn.Dense(1, name="logits")(h)[:, 0], "features": h}


def similarity(view, key):
    """Returns the distance between the discriminator's features of the reconstructions and of the images."""
    features = view.fake_critic(view.made["reconstructed"])["features"]
    return Value(losses.perceptual(features, view.real_out["features"]))


def get_config() -> Config:
    return run_config(
        batch_size=64, steps=4000, steps_per_dispatch=50, metrics="psnr", evaluate_every=1000,
        learning_rate=3e-4, kl_weight=0.01, similarity_weight=10.0,
    )  # fmt: skip


def build(config: Config) -> Experiment:
    network = nets.from_linen(Autoencoder())

    def reconstruct(state, key, images):
        return network.apply(*gans.sampling_weights(state), None, images, train=False)[0]["reconstructed"]

    game = gans.standard_game(
        network,
        nets.from_linen(Critic()),
        (
            *gans.terms.gan_loss(losses.non_saturating),
            Term("kl", "generator", config.kl_weight, lambda view, key: Value(view.made["kl"])),
            Term("similarity", "generator", config.similarity_weight, similarity),
        ),
        inputs=lambda key, batch, hparams: (PRIOR.sample(key, len(batch["real"])), batch["real"]),
        fakes=lambda made: made["sampled"],
        optimizers={player: core.adam(config.learning_rate, 0.5) for player in ("generator", "discriminator")},
        functions={"reconstruct": reconstruct},
        prior=PRIOR,
    )
    return Experiment(
        game=game,
        source=lambda: data.digits(labels=False),
        previews={"reconstructions": side_by_side(game, "reconstruct")},
        preview=image_grid,
        **run_settings(config),
    )
