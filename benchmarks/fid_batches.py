"""Whether FID depends on batch size or number of devices: Inception with the random weights of the golden files.

The weights are those of `tests/golden/random_weights.py`, so that nothing need be downloaded. The same generated images
go through the network in batches of 7, 64 and 500, on one device and on eight (CPUs: simulated); the largest relative
difference of the distance from that of batches of 64 on one device is what counts. With fewer images than features the
covariance is singular, where a distance is most sensitive to rounding.

python -m benchmarks.fid_batches               appends to results/fid_batches.jsonl
python -m benchmarks.fid_batches --count=3000  more images than features
"""

import time
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from absl import app, flags

from benchmarks.measure import record, table
from gan_jax import eval as networks
from gan_jax import metrics, runtime
from tests.golden import random_weights

_COUNT = flags.DEFINE_integer("count", 500, "images on each side", lower_bound=2)
_SIZE = flags.DEFINE_integer("size", 32, "pixels of their side", lower_bound=8)
_DEVICES, _BATCHES = (1, 8), (7, 64, 500)


def main(argv: Sequence[str]) -> None:
    """See the module."""
    del argv
    network = networks.inception()
    params = network.prepare(random_weights.tensors(network.file.used))
    extractor = networks.Extractor(network.apply, params, {})
    real, fake = (random_weights.images(name, _COUNT.value, _SIZE.value, _SIZE.value) for name in ("real", "fake"))
    fake = (fake * 0.8).astype(np.uint8)

    def moments(images: np.ndarray, devices: int, batch_size: int) -> metrics.Moments:
        mesh = runtime.make_mesh(jax.devices()[:devices])
        found = networks.extract({"inception": extractor}, [images], len(images), mesh=mesh, batch_size=batch_size)
        return metrics.moments(found["inception"].features)

    reference, values, began = moments(real, 1, 64), {}, time.monotonic()
    for devices in (count for count in _DEVICES if count <= jax.device_count()):
        for batch_size in _BATCHES:
            distance = metrics.frechet_distance(reference, moments(fake, devices, batch_size))
            values[devices, batch_size] = distance
            print(
                f"{devices} devices, batches of {batch_size}: {distance!r}, {time.monotonic() - began:.0f} s",
                flush=True,
            )
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
