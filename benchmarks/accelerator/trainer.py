"""Trains a small DCGAN of random images in a workdir, and prints each line of its log: what `resume` starts and kills.

The images are random, so that no data set is needed. The networks are convolutional, because the convolutions of GPUs,
and the gradients of these, are what differs from run to run.
"""

import pathlib
import sys

import numpy as np

from benchmarks.accelerator.supervise import die_with_parent
from gan_jax import core, data, gans, nets, runtime

SIZES = {  # image size, width, batch size, steps, steps between reports and checkpoints
    False: (32, 64, 64, 3000, 250),
    True: (8, 4, 16, 60, 10),
}


def experiment(tiny: bool) -> runtime.Experiment:
    """Makes the experiment."""
    size, width, batch_size, steps, every = SIZES[tiny]
    images = np.random.default_rng(0).integers(0, 256, (1024, size, size, 3), np.uint8)
    game = gans.dcgan(
        nets.from_linen(nets.DCGANGenerator(size, 3, width)),
        nets.from_linen(nets.DCGANDiscriminator(width)),
        core.normal(64),
        penalties=(gans.r1(0.1),),
    )
    return runtime.Experiment(
        game=game, source=lambda: data.Arrays("random images", {"real": images}), preview=runtime.image_grid, seed=0,
        batch_size=batch_size, steps=steps, steps_per_dispatch=10, report_every=every, sample_every=0,
        checkpoint_every=every, keep_last=2,
    )  # fmt: skip


def main() -> None:
    """Trains, from the newest checkpoint in the workdir if there is one."""
    die_with_parent()
    workdir, tiny = pathlib.Path(sys.argv[1]), bool(int(sys.argv[2]))
    workdir.mkdir(parents=True, exist_ok=True)
    result = runtime.train(
        experiment(tiny),
        workdir,
        log=lambda message: None,
        watch=lambda line: print(f"step {line['step']}", flush=True),
    )
    print(f"{result.status} {result.state_sha256}", flush=True)


if __name__ == "__main__":
    main()
