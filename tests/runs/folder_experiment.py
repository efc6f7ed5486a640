"""An experiment file on a folder of images, with a metric of its own, for the tests of records."""

from gan_jax import data
from gan_jax import eval as evals
from gan_jax.runs import Config, run_config, run_settings
from gan_jax.runtime import Experiment, image_grid
from tests.conformance.games import GAMES
from tests.runtime.test_protocol import MEAN


def get_config() -> Config:
    return run_config(
        data_dir="", batch_size=8, steps=4, steps_per_dispatch=2, report_every=2, checkpoint_every=2, sample_every=0,
        metrics="mean", evaluate_every=2, best_metric="eval/mean",
    )  # fmt: skip


def build(config: Config) -> Experiment:
    mean = evals.Metric(
        MEAN.network, lambda found: {"": float(found.fake.outputs.features.mean())}, {"": "max"}, samples=16
    )
    return Experiment(
        game=GAMES["vanilla"][0](),
        source=lambda: data.image_folder(config.data_dir, image_size=8, labels=False, channels=1),
        preview=image_grid,
        own_metrics={"mean": mean},
        **run_settings(config),
    )
