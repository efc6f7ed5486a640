"""Samples chosen by the discriminator, as a stream like that of `stream_samples`."""

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from gan_jax import eval as evals
from gan_jax.core import GANState
from gan_jax.runtime.experiment import Experiment
from gan_jax.runtime.sampling import CHUNK, stream_samples
from gan_jax.types import InvalidInputError

_POOL = 4096  # samples that are judged together, except for Metropolis-Hastings
_CHAINS = 64  # Metropolis-Hastings chains that run in parallel
_CALIBRATED = 4096  # number of samples, and maximum number of reals, that calibration is fitted to
_WAYS = {"top": 0.5, "reject": 80.0, "mh": 64}  # the methods, with the default of their parameter


def parse_choice(how: str) -> tuple[str, float]:
    """Parses `top:SHARE`, `reject:PERCENTILE` or `mh:PROPOSALS` into name and number; the number has a default.

    Raises:
      InvalidInputError: for any other text, or a number out of range.
    """
    name, _, number = how.partition(":")
    try:
        value = float(number) if number else _WAYS[name]
        good = {"top": 0 < value <= 1, "reject": 0 <= value <= 100, "mh": value in range(1, _POOL + 1)}[name]
    except (KeyError, ValueError):
        good = False
    if not good:
        raise InvalidInputError(
            f"choice {how!r}: expected top:SHARE (the best share, in (0, 1], of each {_POOL:,}), reject:PERCENTILE "
            "(discriminator rejection sampling; the larger, the fewer are kept), or mh:PROPOSALS (Metropolis-Hastings, "
            f"1 to {_POOL:,})"
        )
    return name, value


def check_choice(experiment: Experiment, how: str) -> tuple[str, float]:
    """Parses a choice, and checks that the game's discriminator can make it.

    Raises:
      InvalidInputError: as `parse_choice`, and for a conditional game, or one without logits.
    """
    game = experiment.game
    if "logits" not in game.functions or game.num_classes is not None:
        raise InvalidInputError(
            f"choice {how!r}: expected an unconditional game whose function 'logits' scores single samples"
        )
    return parse_choice(how)


def choose_samples(
    experiment: Experiment,
    state: GANState,
    seed: int,
    how: str,
    reals: np.ndarray,
    *,
    truncation: float | None = None,
) -> Iterator[np.ndarray]:
    """Draws endless samples that the discriminator finds likely; the methods are in `gan_jax.eval.selection`.

    Args:
      experiment: experiment whose game is sampled.
      state: state to sample from; its discriminator judges the samples.
      seed: seed of the latents and of the draws that choose.
      how: method and its parameter, as in `parse_choice`.
      reals: real examples as the game sees them, preferably not used in training. The logits are calibrated on them,
        and Metropolis-Hastings chains start at them.
      truncation: truncation of the prior.

    Yields:
      Samples, in arrays of varying length.

    Raises:
      InvalidInputError: for a conditional game or one without logits, a discriminator that no calibration fits, or a
        percentile that rejects nearly all samples.
    """
    name, value = check_choice(experiment, how)
    judge = jax.jit(experiment.game.functions["logits"])

    def logits(samples: np.ndarray) -> np.ndarray:
        parts = [samples[low : low + CHUNK] for low in range(0, len(samples), CHUNK)]
        return np.concatenate([np.asarray(judge(state, part)) for part in parts])

    stream = stream_samples(experiment, state, seed, truncation=truncation)

    def pool(size: int) -> np.ndarray:
        return np.concatenate([next(stream) for _ in range(-(-size // CHUNK))])

    of_reals = logits(reals[:_CALIBRATED])
    # `top` looks only at the order of the logits, so it needs no calibration.
    calibrated = (lambda x: x) if name == "top" else evals.calibrate(of_reals, logits(pool(_CALIBRATED)))
    draws, seen, kept = np.random.default_rng(seed), 0, 0
    while True:
        samples = pool(_CHAINS * int(value) if name == "mh" else _POOL)
        found = calibrated(logits(samples))
        options: dict[str, Any] = {"seed": int(draws.integers(2**31))}
        if name == "top":
            chosen = evals.top(found, value)
        elif name == "reject":
            chosen = evals.reject(found, percentile=value, **options)
        else:
            chains = found[: len(found) // int(value) * int(value)].reshape(-1, int(value))
            starts = draws.choice(calibrated(of_reals), len(chains))
            chosen = evals.metropolis_hastings(chains, starts, **options)
        seen, kept = seen + found.size, kept + len(chosen.indices)
        if name == "reject" and seen >= 25 * _POOL and kept < seen / 1000:  # else the loop might never yield
            raise InvalidInputError(f"choice {how!r} keeps {kept} of {seen:,} samples: choose a lower percentile")
        if len(chosen.indices):
            yield samples[chosen.indices]
