"""A program for one or several processes: prints hashes of the batches that they send to the compiled step together."""

import hashlib
import json
import sys

import jax
import numpy as np
from jax.experimental import multihost_utils

from gan_jax import runtime
from gan_jax.distributed import hosts
from tests.experiments import conformance


def digests(stream):
    config = conformance.get_config()
    config.update({"game": "cgan", "stream": stream})
    experiment, mesh = conformance.build(config), runtime.make_mesh()
    with jax.set_mesh(mesh):
        source = experiment.open_source()
        start = runtime.build_start(experiment, source.spec, mesh)
        sent = runtime.build_program(experiment, source, mesh, start, 10).stream(10)
        for _ in range(2):  # dispatches of 10 iterations: several epochs of 48 examples
            leaves = jax.tree.leaves(multihost_utils.process_allgather(next(sent), tiled=True))
            yield [hashlib.sha256(np.asarray(x).tobytes()).hexdigest() for x in leaves]


if __name__ == "__main__":
    if sys.argv[1:]:
        hosts.join("on", coordinator=sys.argv[1], num_processes=int(sys.argv[2]), process_id=int(sys.argv[3]), log=id)
    found = {kind: list(digests(kind == "stored")) for kind in ("resident", "stored")}
    if hosts.is_primary():
        print(json.dumps(found))
    hosts.part()
