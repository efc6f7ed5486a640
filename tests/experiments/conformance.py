"""An experiment file for the games of the conformance suite, used by the tests that kill, damage and resume runs."""

import datetime
import time

import jax
import jax.numpy as jnp
import ml_collections
import optax

from gan_jax import data
from gan_jax.distributed import hosts
from gan_jax.runs import run_config, run_settings
from gan_jax.runtime import Experiment, image_grid
from gan_jax.types import InvalidInputError
from tests.conformance.games import BATCH, GAMES


def get_config() -> ml_collections.ConfigDict:
    return run_config(
        game="vanilla",
        sgd=False,
        poison_from=-1,  # the step from which the generator's loss is NaN
        poison_all=True,  # with any noise; otherwise only with the run's initial root key
        stream=False,  # read the data as if from storage
        fail_at=-1,  # index of an example whose reading fails
        fail_on=0,  # index of the process in which it fails
        hang_at=-1,  # index of an example whose reading does not end
        notice_at=-1,  # number of reads after which the second process gets JAX's preemption notice
        batch_size=BATCH,
        steps=4000,
        steps_per_dispatch=10,
        report_every=20,
        sample_every=0,
        checkpoint_every=50,
    )


def poisoned(game, config):
    """Returns the game with NaN as its last phase's loss from a certain step on."""
    last = game.phases[-1]
    first = jax.random.key_data(jax.random.key(config.seed))

    def loss(params, state, batch, key):
        value, out = last.loss(params, state, batch, key)
        same = jnp.all(jax.random.key_data(state.key) == first) | config.poison_all
        bad = (state.step >= config.poison_from) & same
        return jnp.where(bad, jnp.nan, 1.0) * value, out

    return game._replace(phases=(*game.phases[:-1], last._replace(loss=loss)))


class Reader:
    """A reader of the suite's images, as if from storage that may fail."""

    def __init__(self, config, arrays):
        self.arrays, self.hang_at, self.reads = arrays, config.hang_at, 0
        self.bad = config.fail_at if config.fail_on == jax.process_index() else -1
        self.notice_at = config.notice_at if jax.process_index() == 1 else -1

    def __len__(self):
        return len(next(iter(self.arrays.values())))

    def read(self, indices):
        self.reads += 1
        if len(indices) <= BATCH and self.bad in indices:  # the summary reads more at once, and passes
            raise InvalidInputError(f"image {self.bad} cannot be read")
        if len(indices) <= BATCH and self.hang_at in indices:
            time.sleep(3600)
        if self.reads == self.notice_at:  # as JAX's notifier does before the machine is preempted
            hosts.client().key_value_set(
                "RECEIVED_PREEMPTION_NOTICE", datetime.datetime.now(datetime.UTC).isoformat("T", "seconds")
            )
        return {name: values[indices] for name, values in self.arrays.items()}


def build(config: ml_collections.ConfigDict) -> Experiment:
    make, source = GAMES[config.game]
    sgd = {"generator_optimizer": optax.sgd(1e-3), "discriminator_optimizer": optax.sgd(1e-3)}
    game = make(**sgd if config.sgd else {})
    if config.poison_from >= 0:
        game = poisoned(game, config)
    if config.stream:
        source = data.Records("streamed", Reader(config, source.arrays), source.num_classes)
    mapped = game.prior is None and "reconstruct" not in game.functions  # reconstructions are of the data themselves
    conditions = (lambda: data.renamed(source, inputs="a", target="b")) if mapped else None
    return Experiment(
        game=game, source=lambda: source, preview=image_grid, conditions=conditions, **run_settings(config)
    )
