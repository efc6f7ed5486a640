"""An experiment file around the list of games, for the tests that kill and resume each of them."""

import ml_collections
import numpy as np

from experiments.settings import run_config, run_settings
from gan_jax.runtime import Experiment, image_grid
from tests.conformance.games import BATCH, GAMES


def get_config() -> ml_collections.ConfigDict:
    return run_config(
        game="vanilla",
        poison_from=-1,  # the step from which the generator's loss is not a number
        batch_size=BATCH,
        steps=4000,
        steps_per_dispatch=10,
        report_every=20,
        sample_every=0,
        checkpoint_every=50,
    )


def poisoned(game, step):
    """The game with NaN for a loss from a step on."""
    last = game.phases[-1]

    def loss(params, state, batch, key):
        value, out = last.loss(params, state, batch, key)
        return np.nan * value * (state.step >= step) + value * (state.step < step), out

    return game._replace(phases=(*game.phases[:-1], last._replace(loss=loss)))


def build(config: ml_collections.ConfigDict) -> Experiment:
    make, source = GAMES[config.game]
    game = make()
    if config.poison_from >= 0:
        game = poisoned(game, config.poison_from)
    inputs = None if game.prior is not None else lambda: np.zeros((4, 8, 8, 1), np.float32)
    return Experiment(
        game=game, source=lambda: source, preview=image_grid, sample_inputs=inputs, **run_settings(config)
    )
