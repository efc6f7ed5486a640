"""R3GAN's loss (relativistic pairing with R1 and R2) on a ring of 8 Gaussians.

gan-jax train --config=ring --workdir=runs/ring
  --config.update_rule=extragradient   another update rule; or simultaneous, consensus, unrolled
"""

import functools

from gan_jax import core, data, gans, losses, nets
from gan_jax.runs import Config, run_config, run_settings
from gan_jax.runtime import Experiment, scatter
from gan_jax.sweep.space import LogUniform, Space
from gan_jax.types import InvalidInputError


def get_config() -> Config:
    return run_config(
        batch_size=256,
        steps=20_000,
        steps_per_dispatch=100,
        report_every=1000,
        sample_every=4000,
        checkpoint_every=4000,
        sample_count=2500,
        latents=2,  # dimension of the latents
        width=128,  # channels of the networks' widest layers
        learning_rate=1e-3,  # Adam's learning rate for both players
        gamma=0.02,  # weight of R1 and R2
        ema_halflife_images=20_000.0,  # half-life of the averaged generator, in images
        update_rule="alternating",  # alternating, simultaneous, extragradient, consensus, unrolled
    )


def sweep() -> Space:
    return {"learning_rate": LogUniform(2e-4, 5e-3), "gamma": LogUniform(0.002, 0.2)}


_RULES = {
    "alternating": core.alternating,
    "simultaneous": core.simultaneous,
    "extragradient": core.extragradient,
    "consensus": core.consensus(0.1),
    "unrolled": core.unrolled(5),
}


def build(config: Config) -> Experiment:
    if config.update_rule not in _RULES:
        raise InvalidInputError(f"update_rule={config.update_rule!r}: expected one of {', '.join(_RULES)}")
    mixture = data.ring()
    hidden = (config.width,) * 3
    # Unrolling differentiates through Adam, whose square root has no derivative where all gradients were 0.
    optimizer = core.adam(config.learning_rate, 0.0, 0.99, eps_root=1e-12 if config.update_rule == "unrolled" else 0.0)
    game = gans.adversarial(
        nets.from_linen(nets.MLPGenerator((2,), hidden, bounded=False)),
        nets.from_linen(nets.MLPDiscriminator(hidden)),
        core.normal(config.latents),
        loss=losses.relativistic_pairing,
        penalties=(gans.r1(config.gamma), gans.r2(config.gamma)),
        generator_optimizer=optimizer,
        discriminator_optimizer=optimizer,
        ema_halflife_images=config.ema_halflife_images,
    )
    return Experiment(
        game=game,
        source=lambda: mixture,
        preview=functools.partial(scatter, centers=mixture.centers),
        update_rule=_RULES[config.update_rule],
        **run_settings(config),
    )
