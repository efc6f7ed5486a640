"""The dependence of FID on the batch size and the number of devices.

Inception runs with the random weights of `tests/golden/random_weights.py`, so that nothing needs to be downloaded. The
same generated images pass through the network in batches of 7, 64 and 500, on one device and on eight (simulated on
CPUs), each combination in its own process. The result is the largest relative difference from the distance of batches
of 64 on one device. With fewer images than features the covariance is singular, and the distance is most sensitive to
rounding.

On CPUs XLA's convolutions copy all patches: a batch of 500 does not fit into 24 GB, a batch of 200 does.

python -m benchmarks.fid_batches                     appends to results/fid_batches.jsonl
python -m benchmarks.fid_batches --count=3000        uses more images than features
python -m benchmarks.fid_batches --batches=7,64,200  for machines with less memory
"""

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from absl import app, flags

from benchmarks.measure import record, table
from gan_jax import eval as evals
from gan_jax import metrics, runtime
from tests.golden import random_weights

_COUNT = flags.DEFINE_integer("count", 500, "number of real and of fake images", lower_bound=2)
_SIZE = flags.DEFINE_integer("size", 32, "height and width of the images in pixels", lower_bound=8)
_PASS = flags.DEFINE_list(
    "one_pass", [], "FILE,IMAGES,DEVICES,BATCH: only write the features of these images; used internally"
)
_BATCHES = flags.DEFINE_list("batches", ["7", "64", "500"], "batch sizes; must include 64, the reference")
_DEVICES = (1, 8)


def write_features(file: str, name: str, devices: int, batch_size: int) -> None:
    """Computes the features of the images of a name, and saves them to a file."""
    network = evals.inception()
    params = network.prepare(random_weights.tensors(network.file.used))
    extractor = evals.Extractor(network.apply, params, {})
    images = random_weights.images(name, _COUNT.value, _SIZE.value, _SIZE.value)
    mesh = runtime.make_mesh(jax.devices()[:devices])
    found = evals.extract({name: extractor}, [images], len(images), mesh=mesh, batch_size=batch_size)
    np.save(file, found[name].features)


def main(argv: Sequence[str]) -> None:
    """Runs the benchmark, or one pass over the images."""
    del argv
    if _PASS.value:
        file, name, *numbers = _PASS.value
        write_features(file, name, *map(int, numbers))
        return
    values: dict[tuple[int, int], float] = {}
    with tempfile.TemporaryDirectory() as room:

        def moments(name: str, devices: int, batch_size: int) -> metrics.Moments:
            file = f"{room}/features.npy"
            options = [f"--count={_COUNT.value}", f"--size={_SIZE.value}"]
            one_pass = f"--one_pass={file},{name},{devices},{batch_size}"
            subprocess.run([sys.executable, "-m", "benchmarks.fid_batches", *options, one_pass], check=True)
            return metrics.moments(np.load(file))

        reference = moments("real", 1, 64)
        for devices in _DEVICES:
            for batch_size in map(int, _BATCHES.value):
                values[devices, batch_size] = metrics.frechet_distance(reference, moments("fake", devices, batch_size))
                print(f"{devices} devices, batches of {batch_size}: {values[devices, batch_size]!r}", flush=True)
    first = values[1, 64]
    rows: list[list[Any]] = [["devices", "batch", "distance", "relative difference"]]
    rows += [[*key, repr(value), f"{abs(value / first - 1):.1e}"] for key, value in values.items()]
    print(table(rows))
    worst = max(abs(value / first - 1) for value in values.values())
    lines = [{"devices": key[0], "batch_size": key[1], "distance": value} for key, value in values.items()]
    record("fid_batches", {"count": _COUNT.value, "size": _SIZE.value, "values": lines, "worst_relative": worst})


if __name__ == "__main__":
    jax.config.update("jax_num_cpu_devices", max(_DEVICES))
    app.run(main)
