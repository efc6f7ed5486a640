"""The train step of a game: state, phases, update rules, hooks, schedules, priors and optimisers."""

from gan_jax import deprecated
from gan_jax.core.hooks import Hook, averaging, ema, with_batch_size, with_hparams
from gan_jax.core.hparams import get_hparams, set_hparams
from gan_jax.core.optimizers import adam
from gan_jax.core.phase import MetricAccumulator
from gan_jax.core.priors import normal, uniform
from gan_jax.core.rules import UpdateRule, alternating, consensus, extragradient, simultaneous, unrolled
from gan_jax.core.schedules import Schedule, constant, cosine, linear, schedule
from gan_jax.core.sharding import constrain_batch
from gan_jax.core.state import GANState, PlayerState, create_player, create_state, init_key
from gan_jax.core.step import Step, accumulator_means, batches_per_iteration, empty_accumulator, make_scan, make_step
from gan_jax.core.terms import See, ramp, sum_of_terms, term_aux, term_hparams, term_phases

__all__ = [
    "GANState",
    "Hook",
    "MetricAccumulator",
    "PlayerState",
    "Schedule",
    "See",
    "Step",
    "UpdateRule",
    "accumulator_means",
    "adam",
    "alternating",
    "averaging",
    "batches_per_iteration",
    "consensus",
    "constant",
    "constrain_batch",
    "cosine",
    "create_player",
    "create_state",
    "ema",
    "empty_accumulator",
    "extragradient",
    "get_hparams",
    "init_key",
    "linear",
    "make_scan",
    "make_step",
    "normal",
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
    "with_batch_size",
    "with_hparams",
]


__getattr__ = deprecated.attributes(
    __name__,
    {
        "Window": ("MetricAccumulator", lambda: MetricAccumulator),
        "window_means": ("accumulator_means", lambda: accumulator_means),
        "empty_window": ("empty_accumulator", lambda: empty_accumulator),
        "num_draws": ("batches_per_iteration", lambda: batches_per_iteration),
    },
)
