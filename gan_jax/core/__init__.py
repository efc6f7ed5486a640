"""Games, compiled: state, phases, the train step, hooks, priors and optimisers."""

from gan_jax.core.hooks import Hook, averaging, ema, with_batch_size, with_hparams
from gan_jax.core.hparams import get_hparams, set_hparams
from gan_jax.core.optimizers import adam
from gan_jax.core.phase import Window
from gan_jax.core.priors import normal, uniform
from gan_jax.core.rules import UpdateRule, alternating, consensus, extragradient, simultaneous, unrolled
from gan_jax.core.schedules import Schedule, constant, cosine, linear, schedule
from gan_jax.core.sharding import constrain_batch
from gan_jax.core.state import GANState, PlayerState, create_player, create_state, init_key
from gan_jax.core.step import Step, empty_window, make_scan, make_step, num_draws, window_means
from gan_jax.core.terms import See, ramp, sum_of_terms, term_aux, term_hparams, term_phases

__all__ = [
    "GANState",
    "Hook",
    "PlayerState",
    "Schedule",
    "See",
    "Step",
    "UpdateRule",
    "Window",
    "adam",
    "alternating",
    "averaging",
    "consensus",
    "constant",
    "constrain_batch",
    "cosine",
    "create_player",
    "create_state",
    "ema",
    "empty_window",
    "extragradient",
    "get_hparams",
    "init_key",
    "linear",
    "make_scan",
    "make_step",
    "normal",
    "num_draws",
    "ramp",
    "schedule",
    "set_hparams",
    "simultaneous",
    "sum_of_terms",
    "term_aux",
    "term_hparams",
    "term_phases",
    "uniform",
    "unrolled",
    "window_means",
    "with_batch_size",
    "with_hparams",
]
