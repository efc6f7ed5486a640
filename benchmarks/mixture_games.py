"""Games on mixtures of Gaussians, one for each cell of `benchmarks.mixtures`; all seeds of a game train together."""

import dataclasses
import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import measure
from benchmarks.zoo import all_losses, positive
from gan_jax import core, data, gans, metrics, nets
from gan_jax.runtime import duration
from gan_jax.types import Game

DATA = {"ring": data.ring(), "grid": data.grid()}
GAMMA = {"ring": 0.01, "grid": 0.2}
REGULARIZERS = ("none", "r1", "r2", "r1+r2", "gradient_penalty", "spectral_norm")
RULES = {
    "alternating": core.alternating,
    "simultaneous": core.simultaneous,
    "extragradient": core.extragradient,
    "consensus": core.consensus(0.1),
    "unrolled": core.unrolled(5),
}
UNDER_RULES = (("minimax", "none"), ("non_saturating", "none"), ("relativistic_pairing", "r1+r2"))
PICTURED = (
    ("non_saturating", "none"),
    ("wasserstein", "gradient_penalty"),
    ("hinge", "spectral_norm"),
    ("relativistic_pairing", "none"),
    ("relativistic_pairing", "r1"),
    ("relativistic_pairing", "r1+r2"),
)
LONG = {"iterations": 40_000, "batch_size": 128}
UNDER_LONG = (("relativistic_pairing", "r1+r2"), ("non_saturating", "r1+r2"), ("relativistic_pairing", "r1"))
SAMPLES, SHOWN, REPORTS = 2500, 500, 20
Line = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Setup:
    """The hyperparameters that all settings share."""

    iterations: int = 10_000
    seeds: int = 5
    batch_size: int = 64
    width: int = 64
    layers: int = 6
    latents: int = 2
    learning_rate: float = 2e-3
    constant: float = 0.5  # share of the iterations before the learning rate decays linearly to 0
    b1: float = 0.0
    b2: float = 0.99
    ema_halflife_images: float = 20_000.0
    gradient_penalty_weight: float = 0.1


class Setting(NamedTuple):
    """One cell of the table: a combination of data set, loss, regulariser and update rule."""

    data: str
    loss: str
    regularizer: str
    rule: str = "alternating"

    def __str__(self) -> str:
        return ", ".join(self)


def all_settings() -> list[Setting]:
    """Returns all settings of the table, the main ones first."""
    found = [
        Setting(mixture, loss, regularizer)
        for regularizer in ("r1+r2", "r1", "none", "gradient_penalty", "spectral_norm", "r2")
        for loss in all_losses()
        for mixture in DATA
    ]
    found.sort(key=lambda setting: setting[1:3] != ("relativistic_pairing", "r1+r2"))
    more = [Setting(mixture, *cell, rule) for rule in RULES for cell in UNDER_RULES for mixture in DATA]
    return found + [setting for setting in more if setting not in found]


def long_settings() -> list[Setting]:
    """Returns the settings that also run on a longer budget, on which only the networks limit the best of them."""
    return [Setting(mixture, *cell) for cell in UNDER_LONG for mixture in DATA]


def build(setting: Setting, setup: Setup) -> Game:
    """Makes the game of a setting."""
    hidden, spectral = (setup.width,) * setup.layers, setting.regularizer == "spectral_norm"
    critic = nets.from_linen(nets.MLPDiscriminator(hidden, norm="spectral" if spectral else "none"))
    r1, r2 = gans.r1(GAMMA[setting.data]), gans.r2(GAMMA[setting.data])
    penalties = {
        "r1": (r1,),
        "r2": (r2,),
        "r1+r2": (r1, r2),
        "gradient_penalty": (gans.gradient_penalty(setup.gradient_penalty_weight),),
    }
    # Unrolling differentiates through Adam: the gradient of sqrt(v) at v = 0 would be infinite.
    root = 1e-12 if setting.rule == "unrolled" else 0.0
    adam = core.adam(setup.learning_rate, setup.b1, setup.b2, eps_root=root)
    return gans.adversarial(
        nets.from_linen(nets.MLPGenerator((2,), hidden, bounded=False)),
        positive(critic) if setting.loss == "energy_based" else critic,
        core.normal(setup.latents),
        loss=all_losses()[setting.loss],
        penalties=penalties.get(setting.regularizer, ()),
        generator_optimizer=adam,
        discriminator_optimizer=adam,
        ema_halflife_images=setup.ema_halflife_images,
    )


def make_iteration(setting: Setting, setup: Setup, game: Game) -> Callable[[core.GANState, jax.Array], core.GANState]:
    """Makes `(state, peak) -> state`, one iteration of one member on its own data; `peak` is its peak learning rate."""
    rule, mixture = RULES[setting.rule], DATA[setting.data]
    step, draws = core.make_step(game, rule), core.batches_per_iteration(game, rule)
    falling = max(1.0, setup.iterations * (1 - setup.constant))

    def iteration(state: core.GANState, peak: jax.Array) -> core.GANState:
        rate = peak * jnp.clip((setup.iterations - state.step) / falling, 0.0, 1.0)
        state = core.set_hparams(state, {f"{player}/learning_rate": rate for player in state.players})
        key = jax.random.fold_in(jax.random.fold_in(state.key, 0xDA7A), state.step)
        batches = jax.tree.map(
            lambda x: x.reshape(draws, setup.batch_size, *x.shape[1:]), mixture.draw(key, draws * setup.batch_size)
        )
        return step(state, batches)[0]

    return iteration


def finite(state: core.GANState) -> jax.Array:
    """Whether all parameters of a member are finite, including the averaged ones."""
    leaves = jax.tree.leaves(({name: player.params for name, player in state.players.items()}, state.ema))
    return jnp.stack([jnp.all(jnp.isfinite(x)) for x in leaves]).all()


class Population(NamedTuple):
    """The result of training a population.

    Attributes:
      samples: samples of the averaged generators, `[members, n, 2]`; NaN for members that failed.
      raw: samples of the generators themselves, in the same form.
      failed_by: for each member, the iteration at which it was found to be non-finite, or None.
    """

    samples: np.ndarray
    raw: np.ndarray
    failed_by: list[int | None]


def train(
    setting: Setting,
    setup: Setup,
    seeds: Sequence[int],
    hparams: Mapping[str, Sequence[float]] | None = None,
    log: Callable[[str], None] = lambda message: None,
) -> Population:
    """Trains a population and samples it.

    Args:
      setting: the setting of all members.
      setup: the hyperparameters of all members.
      seeds: one seed for each member.
      hparams: hyperparameters by the names of `core.get_hparams`, with one value for each member; `learning_rate` is
        the peak learning rate of both players.
      log: function that is called with progress messages.

    Returns:
      The samples, and the members that failed.
    """
    game, values = build(setting, setup), {name: jnp.asarray(x, jnp.float32) for name, x in (hparams or {}).items()}
    peaks = values.pop("learning_rate", jnp.full(len(seeds), setup.learning_rate))
    iteration = make_iteration(setting, setup, game)

    def start(seed: jax.Array, values: dict[str, jax.Array]) -> core.GANState:
        key = jax.random.key(seed)
        return core.set_hparams(game.init(key, DATA[setting.data].draw(key, setup.batch_size)), values)

    def run(states: core.GANState, peaks: jax.Array, count: jax.Array) -> tuple[core.GANState, jax.Array]:
        states = jax.lax.fori_loop(0, count, lambda _, states: jax.vmap(iteration)(states, peaks), states)
        return states, jax.vmap(finite)(states)

    def sample(state: core.GANState) -> tuple[jax.Array, jax.Array]:
        key = jax.random.fold_in(state.key, 0x5A3B1E)
        return game.sample(state, key, SAMPLES), game.sample(state.replace(ema={}), key, SAMPLES)

    states = jax.jit(jax.vmap(start))(jnp.asarray(seeds), values)
    program = jax.jit(run, donate_argnums=0)
    failed_by: list[int | None] = [None] * len(seeds)
    done, began = 0, time.monotonic()
    while done < setup.iterations:
        count = min(max(1, setup.iterations // REPORTS), setup.iterations - done)
        states, well = program(states, peaks, jnp.int32(count))
        done += count
        for member, fine in enumerate(jax.device_get(well)):
            if not fine and failed_by[member] is None:
                failed_by[member] = done
        left = (time.monotonic() - began) / done * (setup.iterations - done)
        log(f"{done:,} of {setup.iterations:,} iterations, {duration(left)} left")
        if None not in failed_by:
            break
    fine = np.array([step is None for step in failed_by])[:, None, None]
    samples, raw = (np.where(fine, x, np.nan) for x in jax.device_get(jax.jit(jax.vmap(sample))(states)))
    return Population(samples, raw, failed_by)


def scores(samples: np.ndarray, mixture: data.Mixture) -> dict[str, list[Any]]:
    """Computes modes, high-quality share and KL of each member; 0, 0 and None if its samples are not finite."""
    found = [
        metrics.mixture_coverage(points, mixture.centers, mixture.std)
        if np.isfinite(points).all()
        else metrics.MixtureCoverage(0, float("nan"), 0.0, float("nan"))
        for points in samples
    ]
    return {
        "modes": [x.modes for x in found],
        "high_quality": [round(x.high_quality, 4) for x in found],
        "kl": [None if np.isnan(x.kl) else round(x.kl, 4) for x in found],
    }


def describe(setting: Setting, setup: Setup) -> Line:
    """Returns the setting and the setup as one record, with a hash that identifies them."""
    whole = {**setting._asdict(), "setup": {**dataclasses.asdict(setup), "gamma": GAMMA[setting.data]}}
    return {**whole, "hash": hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()[:12]}


def evaluate(setting: Setting, setup: Setup, log: Callable[[str], None]) -> Line:
    """Trains all seeds of a setting, and returns its line for the results."""
    began, began_cpu = time.monotonic(), time.process_time()
    mixture, seeds = DATA[setting.data], range(setup.seeds)
    population = train(setting, setup, seeds, log=log)
    averaged, raw = scores(population.samples, mixture), scores(population.raw, mixture)
    line = {
        **describe(setting, setup),
        **averaged,
        "raw": raw,
        "failed": sum(step is not None for step in population.failed_by),
        "failed_by": population.failed_by,
        "interval": {name: measure.bootstrap(averaged[name]) for name in ("modes", "high_quality")},
        "seconds": round(time.monotonic() - began, 1),
        "cpu_seconds": round(time.process_time() - began_cpu, 1),
    }
    if setting.rule == "alternating" and setting[1:3] in PICTURED and population.failed_by[0] is None:
        line["samples"] = np.round(population.samples[0, :SHOWN].astype(np.float64), 3).tolist()
    return line
