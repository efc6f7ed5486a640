"""Images per second of Inception's feature pass at 299x299 pixels, and the time that FID of 50,000 images takes.

The weights have Inception's shapes and random values, since the published ones cannot be downloaded. The pass is that
of `gan_jax.eval`, with images of 32x32 pixels that it resizes and with the transfers between host and device; its
products are always in full float32, whatever the settings, because FID depends on them.
"""

import functools
import importlib
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from benchmarks.accelerator.context import Context
from gan_jax import eval as evals
from gan_jax import metrics
from gan_jax.distributed.mesh import make_mesh

random_weights = importlib.import_module("tests.golden.random_weights")

_SIZE = 32
WANTED = 50_000


def run(context: Context) -> None:
    """Times the pass for several batch sizes, the distance, and both for as many of 50,000 images as time allows."""
    first, *others = (2,) if context.tiny else (256, 1024, 64)
    network = evals.inception()
    params = network.prepare(random_weights.tensors(network.file.used))
    extractor, mesh = evals.placed(evals.Extractor(network.apply, params, {}), make_mesh()), make_mesh()

    def passes(sizes: Sequence[int]) -> dict[str, Callable[[], dict[str, Any]]]:
        return {
            f"feature pass, batches of {size}": functools.partial(feature_pass, extractor, mesh, size, context)
            for size in sizes
        }

    rest: dict[str, Callable[[], dict[str, Any]]] = {
        "distance": lambda: distance(context),
        "whole": lambda: whole(extractor, mesh, context),
    }
    context.each(passes([first]) | rest | passes(others))  # the whole is more important than other batch sizes


def images(count: int, part: int = 0) -> np.ndarray:
    """Makes images; each part has its own."""
    return random_weights.images(f"fid {part}", count, _SIZE, _SIZE)


def feature_pass(extractor: Any, mesh: Any, size: int, context: Context) -> dict[str, Any]:
    """Times the pass, after the compilation."""
    count = size * (1 if context.tiny else max(2, 4096 // size))
    shown = images(size)
    began = time.perf_counter()
    evals.extract({"inception": extractor}, [shown], size, mesh=mesh, batch_size=size)
    compiled = time.perf_counter() - began
    rates = []
    for _ in range(1 if context.tiny else 3):
        began = time.perf_counter()
        parts = (shown for _ in range(count // size))
        evals.extract({"inception": extractor}, parts, count, mesh=mesh, batch_size=size)
        rates.append(count / (time.perf_counter() - began))
    stats = jax.devices()[0].memory_stats() or {}
    return {
        "batch": size, "images_per_second": float(np.median(rates)), "first_seconds": compiled,
        "peak_bytes": stats.get("peak_bytes_in_use"), "seconds_per_50k": WANTED / float(np.median(rates)),
    }  # fmt: skip


def distance(context: Context) -> dict[str, Any]:
    """Times moments and distance of random features of Inception's width, on the host."""
    count, width = (64, 32) if context.tiny else (10_000, 2048)
    random = np.random.default_rng(0)
    features = [random.normal(size=(count, width)).astype(np.float32) for _ in range(2)]
    began = time.perf_counter()
    found = [metrics.moments(x) for x in features]
    moments = time.perf_counter() - began
    began = time.perf_counter()
    value = metrics.frechet_distance(*found)
    return {
        "count": count, "width": width, "moments_seconds_per_50k": moments / 2 / count * WANTED,
        "distance_seconds": time.perf_counter() - began, "value": value,
    }  # fmt: skip


def whole(extractor: Any, mesh: Any, context: Context) -> dict[str, Any]:
    """Runs 50,000 images, or as many as time allows, from the pass to a distance between two parts of them."""
    passes = [line for line in context.lines() if line["name"].startswith("feature pass") and "batch" in line]
    own = [line for line in passes if line["code"] == context.code and line["tiny"] == context.tiny]
    if not own:
        raise RuntimeError("no feature pass has been timed")
    best = max(own, key=lambda line: line["images_per_second"])
    size, width, batch = (4, 64, best["batch"]) if context.tiny else (5000, 2048, best["batch"])
    most = 2 * size if context.tiny else WANTED
    seconds, parts = 0.0, list[metrics.Moments]()
    while len(parts) * size < most and context.left > 3 * size / best["images_per_second"] + 5:
        shown = images(size, len(parts))  # not timed: training would draw them from the generator
        began = time.perf_counter()
        found = evals.extract({"inception": extractor}, [shown], size, mesh=mesh, batch_size=batch)
        parts.append(metrics.moments(found["inception"].features[:, :width]))
        seconds += time.perf_counter() - began
    if len(parts) < 2:
        return {"skipped": f"no time for two parts of {size} images at {best['images_per_second']:.1f} images/s"}
    began = time.perf_counter()
    value = metrics.frechet_distance(parts[0], functools.reduce(metrics.merge, parts[1:]))
    seconds += time.perf_counter() - began
    done = len(parts) * size
    return {"images": done, "wall_seconds": seconds, "images_per_second": done / seconds, "value": value}
