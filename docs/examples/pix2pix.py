"""pix2pix: sharpens blurred digits. Isola et al., arXiv:1611.07004, 2017."""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from gan_jax import core, data, gans, losses, nets
from gan_jax.runs import Config, run_config, run_settings
from gan_jax.runtime import Experiment, image_grid, side_by_side
from gan_jax.sweep.space import LogUniform, Space


class Translator(nn.Module):
    """Generator that maps images to images; dropout is its only noise."""

    @nn.compact
    def __call__(self, image, *, train):
        x = nn.relu(nn.Conv(32, (3, 3))(image))
        x = nn.Dropout(0.5, deterministic=not train)(nn.relu(nn.Conv(32, (3, 3))(x)))
        return jnp.tanh(nn.Conv(image.shape[-1], (3, 3))(jnp.concatenate([x, image], axis=-1)))


class PatchCritic(nn.Module):
    """Discriminator with one logit per patch, which also sees the source image."""

    @nn.compact
    def __call__(self, image, source, *, train):
        x = nn.leaky_relu(nn.Conv(32, (4, 4), 2)(jnp.concatenate([image, source], axis=-1)), 0.2)
        return nn.Conv(1, (3, 3))(x)[..., 0]


def pairs(part):
    """Returns pairs of a blurred digit (a) and the sharp one (b); every tenth pair is held out for testing."""
    sharp = data.digits(labels=False).arrays["real"]
    padded = np.pad(sharp, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-1.0)
    blurred = np.mean([padded[:, i : i + 8, j : j + 8] for i in range(3) for j in range(3)], axis=0)
    held_out = np.arange(len(sharp)) % 10 == 0
    chosen = held_out if part == "test" else ~held_out
    return data.Arrays(f"blurred digits ({part})", {"a": blurred[chosen], "b": sharp[chosen]})


def get_config() -> Config:
    return run_config(
        batch_size=64, steps=2000, steps_per_dispatch=50, report_every=200, sample_every=1000, checkpoint_every=1000,
        metrics="psnr,l1", evaluate_every=1000, best_metric="eval/psnr", learning_rate=2e-4, l1_weight=100.0,
    )  # fmt: skip


def sweep() -> Space:
    return {"l1_weight": LogUniform(1.0, 100.0)}


def build(config: Config) -> Experiment:
    game = gans.standard_game(
        nets.from_linen(Translator()),
        nets.from_linen(PatchCritic()),
        (
            *gans.terms.gan_loss(losses.non_saturating),
            gans.terms.reconstruction(config.l1_weight, lambda view: view.real, name="l1"),
        ),
        inputs=lambda key, batch, hparams: (batch["a"],),
        real=lambda batch: batch["b"],
        condition=lambda batch: (batch["a"],),
        optimizers={player: core.adam(config.learning_rate, 0.5) for player in ("generator", "discriminator")},
    )
    return Experiment(
        game=game,
        source=lambda: pairs("train"),
        conditions=lambda: data.renamed(pairs("test"), inputs="a", target="b"),
        previews={"translations": side_by_side(game)},
        preview=image_grid,
        **run_settings(config),
    )
