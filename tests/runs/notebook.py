"""An experiment as written in a notebook, in no experiment file: `python -m tests.runs.notebook WORKDIR STEPS`."""

import sys

import numpy as np

from gan_jax import core, data, gans, losses, nets, runtime


def experiment(width=8, **options):
    """Builds an experiment of closures and lambdas, as in a cell of a notebook."""
    scale = 0.5
    game = gans.adversarial(
        nets.from_linen(nets.MLPGenerator((2,), (width,), bounded=False)), nets.from_linen(nets.MLPDiscriminator((8,))),
        core.normal(2), loss=losses.non_saturating, penalties=(gans.r1(scale),),
        generator_optimizer=core.adam(1e-3), discriminator_optimizer=core.adam(1e-3),
    )  # fmt: skip
    options = {"report_every": 2, "checkpoint_every": 2, "sample_every": 0, "preview": runtime.scatter} | options
    return runtime.Experiment(game=game, source=lambda: data.ring(), seed=1, batch_size=8, **options)


if __name__ == "__main__":
    workdir, steps = sys.argv[1:]
    result = runtime.train(experiment(steps=int(steps)), workdir)
    np.save(f"{workdir}/samples.npy", result.sample(16, seed=3))
