"""GANs and VAEs compared: the same decoder, latents, data order and number of decoder updates for all methods.

A VAE, a beta-VAE, a VAE-GAN, a GAN of the non-saturating loss with R1, and one of the pairing loss with R1 and R2.
Their hyperparameters are the best of equally many points, by the Frechet classifier distance (FCD) of samples of the
prior with two seeds; the best point is then trained with other seeds. Runs that `results/vae_gan.jsonl` has with the
same settings are not trained again, and a stopped run continues from its checkpoint in --workdir.

FCDs compare with the training images; precision and recall (k = 3), density and coverage (k = 5) are of samples of the
prior, as many as training images, at most 2,000. The mean squared error, bits per dimension and inversion (500 steps of
Adam on z, for 64 images) are of images that no method was trained on. Midpoints lie between two encoded training images
or, for a GAN, which has no encoder, between two draws of the prior.

python -m benchmarks.vae_gan --data=digits                          what is missing on digits
python -m benchmarks.vae_gan --data=mnist,cifar10 --data_dir=DIR    on MNIST, and on CIFAR-10 as JPEGs
python -m benchmarks.vae_gan --table                                runs nothing: prints the recorded results
python -m benchmarks.vae_gan --write                                runs nothing: writes tables and pictures into docs/
"""

import functools
import itertools
import json
import pathlib
import time
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags, logging

from benchmarks.measure import RESULTS, own_flags, put, record, recorded, spread, table
from benchmarks.vae_gan_cases import METHODS, POINTS, SETTINGS, Data, Point, opened, unlabelled
from benchmarks.vae_gan_pictures import draw
from gan_jax import eval as evals
from gan_jax import gans, metrics, runtime
from gan_jax.data import to_model
from gan_jax.runtime.environment import cache_directory
from gan_jax.types import Prior

_FLAGS = own_flags(__name__)
_DATA = flags.DEFINE_list("data", ["digits"], f"data sets to run: {', '.join(SETTINGS)}", flag_values=_FLAGS)
_DATA_DIR = flags.DEFINE_string("data_dir", "", "where TFDS prepared mnist and cifar10_jpeg", flag_values=_FLAGS)
_SEEDS = flags.DEFINE_integer("seeds", 5, "seeds of each method's best point", lower_bound=1, flag_values=_FLAGS)
_WORKDIR = flags.DEFINE_string("workdir", "runs/vae_gan", "directory of the runs, for continuing", flag_values=_FLAGS)
_TABLE = flags.DEFINE_bool("table", False, "train nothing: print the recorded results", flag_values=_FLAGS)
_WRITE = flags.DEFINE_bool("write", False, "train nothing: write tables and pictures into docs/", flag_values=_FLAGS)
_DOCS = RESULTS.parents[1] / "docs"
_CHUNK, _INVERTED, _SWEEP = 500, 64, (100, 101)  # the last: seeds of the sweep


def settings(name: str) -> dict[str, Any]:
    """Returns what must be equal for lines of a data set to be comparable."""
    return {key: value for key, value in SETTINGS[name]._asdict().items() if key != "networks"}


def lines(name: str, method: str) -> list[dict[str, Any]]:
    """Returns the recorded lines of a method with today's settings."""
    found = [line for line in recorded("vae_gan") if (line["data"], line["method"]) == (name, method)]
    return [line for line in found if line["settings"] == settings(name) and line["point"] in POINTS[name][method]]


def chosen(name: str, method: str) -> Point | None:
    """Returns the point with the least mean FCD over the seeds of the sweep; None as long as a run is missing."""
    found = [line for line in lines(name, method) if line["seed"] in _SWEEP]
    values = [[x["values"]["fcd_prior"] for x in found if x["point"] == point] for point in POINTS[name][method]]
    if min(map(len, values)) < len(_SWEEP):
        return None
    return POINTS[name][method][min(range(len(values)), key=lambda index: sum(values[index]))]


def finals(name: str, method: str) -> list[dict[str, Any]]:
    """Returns the lines of the chosen point, one for each seed."""
    point = chosen(name, method)
    return [line for line in lines(name, method) if line["seed"] not in _SWEEP and line["point"] == point]


def experiment(name: str, method: str, point: Point, seed: int, opened_data: Data) -> runtime.Experiment:
    """Makes the experiment of a run; equal seeds give all methods the same order of the data."""
    setting = SETTINGS[name]
    return runtime.Experiment(
        game=METHODS[method](setting, **point), source=lambda: unlabelled(opened_data.train),
        preview=runtime.image_grid, seed=seed, batch_size=setting.batch_size, steps=setting.steps,
        steps_per_dispatch=50, report_every=500, sample_every=0, checkpoint_every=500, keep_last=1,
    )  # fmt: skip


def workdir(name: str, method: str, point: Point, seed: int) -> pathlib.Path:
    """Returns the workdir of a run."""
    words = [name, method, *(f"{key}{value:g}" for key, value in point.items()), str(seed)]
    return pathlib.Path(_WORKDIR.value) / "_".join(word.replace(", ", "-") for word in words)


class Subject:
    """A trained game, and the features of what it makes."""

    def __init__(self, run: runtime.Experiment, state: Any, data: Data, judge: runtime.Evaluator, samples: int) -> None:
        self.game, self.state, self.data, self.judge, self.samples = run.game, state, data, judge, samples
        self._sample = jax.jit(lambda state, key, z: self.game.sample(state, key, len(z), inputs=z))
        self._functions = {name: jax.jit(f) for name, f in self.game.functions.items() if name != "sample"}
        self.images = np.asarray(to_model("real", data.train.arrays["real"]))
        self.encodes = "encode" in self.game.functions

    def mapped(self, name: str, inputs: np.ndarray) -> np.ndarray:
        """Applies a function of the game to inputs, in chunks."""
        function = self._sample if name == "sample" else self._functions[name]
        parts = [inputs[low : low + _CHUNK] for low in range(0, len(inputs), _CHUNK)]
        keys = jax.random.split(jax.random.key(7), len(parts))
        return np.concatenate([function(self.state, key, part) for key, part in zip(keys, parts, strict=True)])

    def drawn(self, prior: Prior, seed: int = 1) -> np.ndarray:
        """Draws samples with latents of a prior."""
        return self.mapped("sample", np.asarray(prior.sample(jax.random.key(seed), self.samples)))

    def frechet(self, images: np.ndarray) -> float:
        """Returns the Frechet classifier distance of images to the training images."""
        fake, real = self.judge.features(images)
        return metrics.frechet_distance(metrics.moments(real), metrics.moments(fake))

    @functools.cached_property
    def means(self) -> np.ndarray:
        """The latents of the training images."""
        return self.mapped("encode", self.images)

    @functools.cached_property
    def fitted(self) -> dict[str, Prior]:
        """The priors that are fitted to these latents, by the name of their value."""
        return {"fcd_gaussian": evals.fit_prior(self.means), "fcd_mixture": evals.fit_prior(self.means, 10)}

    def between(self) -> np.ndarray:
        """Returns latents midway between two images or, without an encoder, between two draws of the prior."""
        if self.encodes:
            first, second = np.random.default_rng(0).integers(0, len(self.means), (2, self.samples))
            return (self.means[first] + self.means[second]) / 2
        assert self.game.prior is not None
        first, second = (self.game.prior.sample(jax.random.key(seed), self.samples) for seed in (2, 3))
        return np.asarray(self.game.prior.interpolate(first, second, jnp.full(self.samples, 0.5)))

    def inverted(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns the latents nearest to images, and the errors."""
        found = jax.jit(functools.partial(gans.invert, self.game))(self.state, images, jax.random.key(4))
        return np.asarray(found[0]), np.asarray(found[1])

    def first_values(self) -> dict[str, float]:
        """Returns the value by which points are chosen, and those that cost little beside it."""
        assert self.game.prior is not None
        fake, real = self.judge.features(self.drawn(self.game.prior))
        count = min(len(fake), len(real))
        reals, fakes = (x[(len(x) * np.arange(count)) // count] for x in (real, fake))
        found = {"fcd_prior": metrics.frechet_distance(metrics.moments(real), metrics.moments(fake))}
        four = metrics.precision_recall(reals, fakes)._asdict() | metrics.density_coverage(reals, fakes)._asdict()
        return found | {name: float(value) for name, value in four.items()}

    def more_values(self) -> dict[str, float]:
        """Returns the other values; those that a method has no meaning for are missing."""
        held_out = self.data.held_out
        found = {"fcd_midpoints": self.frechet(self.mapped("sample", self.between()))}
        found["inversion_mse"] = float(self.inverted(held_out[:_INVERTED])[1].mean())
        if self.encodes:
            found |= {name: self.frechet(self.drawn(prior)) for name, prior in self.fitted.items()}
            found["fcd_reconstructions"] = self.frechet(self.mapped("reconstruct", self.images[: self.samples]))
            found["mse"] = float(np.mean((self.mapped("reconstruct", held_out) - held_out) ** 2))
            found["active_units"] = int(metrics.active_units(jnp.asarray(self.means)))
        if "bits_per_dimension" in self.game.functions:
            found["bits_per_dimension"] = float(self.mapped("bits_per_dimension", held_out).mean())
        return found


def measure(name: str, method: str, point: Point, seed: int, data: Data, judge: runtime.Evaluator) -> None:
    """Trains a method, or continues its stopped run, and records the result."""
    home = workdir(name, method, point, seed)
    fresh = not home.exists()
    home.mkdir(parents=True, exist_ok=True)
    run, began = experiment(name, method, point, seed, data), time.process_time()
    result = runtime.train(run, home, log=lambda message: None)
    used = time.process_time() - began
    if result.status == "stopped":
        raise SystemExit(75)  # nothing to record yet; running the same command again continues
    log = [json.loads(line) for line in (home / "metrics.jsonl").read_text().splitlines()]
    images = [0, *(line["images"] for line in log)]
    taken = sum((b - a) / line["images_per_second"] for a, b, line in zip(images, images[1:], log, strict=False))
    values: dict[str, float] = {"fcd_prior": float("inf")}
    if result.trained is not None:
        subject = Subject(run, result.trained.state, data, judge, SETTINGS[name].samples)
        values = subject.first_values() | ({} if seed in _SWEEP else subject.more_values())
    facts = {
        "data": name, "method": method, "point": point, "seed": seed, "settings": settings(name),
        "status": result.status, "values": values, "seconds": round(taken, 1),
        "cpu_seconds": round(used, 1) if fresh else None, "classifier": judge.records["fcd"]["network"],
        "state_sha256": result.state_sha256,
    }  # fmt: skip
    record("vae_gan", facts)
    print(f"{name}, {method}, {point}, seed {seed}: {values}, {taken:.0f} s", flush=True)


def train(name: str) -> None:
    """Runs the sweeps and the seeds that are missing on a data set."""
    data = opened(name, _DATA_DIR.value)
    judge = runtime.Evaluator(["fcd"], data.train, runtime.make_mesh(), cache_directory() / "evaluation")
    for seed, method in itertools.product(_SWEEP, METHODS):
        for point in POINTS[name][method]:
            if not any(line["seed"] == seed and line["point"] == point for line in lines(name, method)):
                measure(name, method, point, seed, data, judge)
    for seed in range(_SEEDS.value):
        for method in METHODS:
            best = chosen(name, method)
            assert best is not None
            if not any(line["seed"] == seed for line in finals(name, method)):
                measure(name, method, best, seed, data, judge)


def finished(name: str) -> dict[str, Subject]:
    """Returns the trained methods of the first seed that are still in the workdirs, for the picture."""
    points = {method: chosen(name, method) for method in METHODS}
    homes = {method: workdir(name, method, point, 0) for method, point in points.items() if point is not None}
    homes = {method: home for method, home in homes.items() if home.exists()}
    if not homes:
        return {}
    data, found = opened(name, _DATA_DIR.value), dict[str, Subject]()
    judge = runtime.Evaluator(["fcd"], data.train, runtime.make_mesh(), cache_directory() / "evaluation")
    for method, home in homes.items():
        run = experiment(name, method, points[method] or {}, 0, data)
        # A finished run is read from its checkpoint: training it again trains nothing.
        trained = runtime.train(run, home, log=lambda message: None).trained
        assert trained is not None
        found[method] = Subject(run, trained.state, data, judge, SETTINGS[name].samples)
    return found


SAMPLES = {
    "fcd_prior": "prior", "fcd_gaussian": "ex-post normal", "fcd_mixture": "ex-post mixture",
    "fcd_reconstructions": "reconstructions", "fcd_midpoints": "midpoints", "precision": "precision",
    "recall": "recall", "density": "density", "coverage": "coverage",
}  # fmt: skip
IMAGES = {
    "mse": "MSE", "inversion_mse": "MSE by inversion", "bits_per_dimension": "bits per dimension",
    "active_units": "active units",
}  # fmt: skip


def page() -> str:
    """Makes the tables of all recorded data sets, in Markdown."""
    parts = []
    for name, setting in SETTINGS.items():
        found = {method: finals(name, method) for method in METHODS}
        found = {method: runs for method, runs in found.items() if runs}
        if not found:
            continue
        seeds = sorted({len(runs) for runs in found.values()})
        parts.append(
            f"**{name}**: {setting.steps:,} updates of the decoder, batches of {setting.batch_size}, "
            f"{setting.latents} latents; {len(POINTS[name]['VAE'])} points per method; "
            f"{' or '.join(map(str, seeds))} seeds."
        )
        first: list[list[Any]] = [["FCD of samples, and neighbours", *SAMPLES.values()]]
        second: list[list[Any]] = [["of images, and cost", *IMAGES.values(), "seconds", "CPU seconds", "chosen"]]
        for method, runs in found.items():
            first.append([method, *(_shown(runs, value) for value in SAMPLES)])
            costs = [spread([line[cost] for line in runs if line[cost]], ".0f") for cost in ("seconds", "cpu_seconds")]
            point = ", ".join(f"{key} {value:g}" for key, value in runs[0]["point"].items())
            second.append([method, *(_shown(runs, value) for value in IMAGES), *costs, point])
        parts += [table(first), table(second)]
    return "\n\n".join(parts)


def _shown(runs: Sequence[dict[str, Any]], value: str) -> str:
    found = [line["values"][value] for line in runs if value in line["values"]]
    return spread(found, ".3g") if found else "—"


def main(argv: Sequence[str]) -> None:
    """Trains what is missing, and prints or writes the results."""
    del argv
    logging.set_verbosity(logging.ERROR)
    if unknown := sorted(set(_DATA.value) - set(SETTINGS)):
        raise SystemExit(f"--data={','.join(unknown)}: expected some of {', '.join(SETTINGS)}")
    if not (_TABLE.value or _WRITE.value):
        for name in _DATA.value:
            train(name)
    print(page())
    if _WRITE.value:
        put(_DOCS / "gans_and_vaes.md", "benchmarks.vae_gan", page())
        for name in SETTINGS:
            if shown := finished(name):
                draw(shown, _DOCS / "images" / f"gans_and_vaes_{name}.png")


if __name__ == "__main__":
    app.run(main)
