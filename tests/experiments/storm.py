"""The experiment file of `benchmarks.storm`: small games that remember something, with a metric that takes a while."""

import time

import numpy as np

from benchmarks.storm_events import EVALUATING
from gan_jax import augment, core, data, gans, losses
from gan_jax.eval import Comparison, Metric
from gan_jax.gans import terms
from gan_jax.runs import Config, run_config, run_settings
from gan_jax.runtime import Experiment, image_grid
from gan_jax.runtime.progress import log
from gan_jax.sweep.space import LogUniform, Space
from gan_jax.types import Game
from tests.conformance import games
from tests.experiments.conformance import poisoned


def get_config() -> Config:
    return run_config(
        game="vanilla",  # vanilla, lecam, or a game of tests/conformance/games.py
        learning_rate=1e-3,  # Adam's learning rate for both players of vanilla and lecam
        poison_from=-1,  # the step from which the last phase's loss is NaN, with the run's first root key only
        poison_all=False,
        pause=0.05,  # seconds that the metric takes
        batch_size=games.BATCH,
        steps=240,
        steps_per_dispatch=5,
        report_every=10,
        sample_every=60,
        checkpoint_every=20,
        sample_count=16,
        metrics="spread",
        evaluate_every=20,
        best_metric="eval/spread",
    )


def sweep() -> Space:
    return {"learning_rate": LogUniform(3e-4, 3e-2)}


def _game(config: Config) -> Game:
    optimizers = {f"{player}_optimizer": core.adam(config.learning_rate) for player in ("generator", "discriminator")}
    if config.game == "vanilla":
        return gans.vanilla(games.mlp(), games.mlp_critic(), games.Z, **optimizers)
    if config.game == "lecam":
        memory = terms.lecam(0.3, decay=0.9, begin=40 * config.batch_size)
        return gans.adversarial(
            games.mlp(), games.mlp_critic(), games.Z, loss=losses.hinge, terms=(memory,), **optimizers
        )
    if config.game == "stylegan2":
        pipeline = augment.ada_pipeline(["x_flip", "integer_translation", "brightness"])
        return games.stylegan2(augment=gans.Augmentation(pipeline, target=0.6, speed_images=2000.0, interval=2))
    return games.GAMES[config.game][0]()


def build(config: Config) -> Experiment:
    game = _game(config)
    if config.poison_from >= 0:
        game = poisoned(game, config)
    source = games.GAMES[config.game][1] if config.game in games.GAMES else games.REAL

    def spread(found: Comparison) -> dict[str, float]:
        log(EVALUATING)
        time.sleep(config.pause)
        return {"": float(np.std(found.fake.outputs.features, dtype=np.float64))}

    conditions = None if game.prior is not None else lambda: data.renamed(source, inputs="a", target="b")
    return Experiment(
        game=game,
        source=lambda: source,
        preview=image_grid,
        conditions=conditions,
        own_metrics={"spread": Metric("", spread, {"": "max"}, samples=48, compares=False)},
        **run_settings(config),
    )
