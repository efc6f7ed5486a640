"""Games, compiled: state, phases, the train step, hooks, priors and optimisers."""

from gan_jax.core.hooks import ema
from gan_jax.core.hparams import get_hparams, set_hparams
from gan_jax.core.optimizers import adam
from gan_jax.core.phase import Window
from gan_jax.core.priors import normal, uniform
from gan_jax.core.rules import UpdateRule, alternating, consensus, extragradient, simultaneous, unrolled
from gan_jax.core.sharding import constrain_batch
from gan_jax.core.state import GANState, PlayerState, create_player, create_state, init_key
from gan_jax.core.step import Step, empty_window, make_scan, make_step, num_draws, window_means

__all__ = [
    "GANState",
    "PlayerState",
    "Step",
    "UpdateRule",
    "Window",
    "adam",
    "alternating",
    "consensus",
    "constrain_batch",
    "create_player",
    "create_state",
    "ema",
    "empty_window",
    "extragradient",
    "get_hparams",
    "init_key",
    "make_scan",
    "make_step",
    "normal",
    "num_draws",
    "set_hparams",
    "simultaneous",
    "uniform",
    "unrolled",
    "window_means",
]
