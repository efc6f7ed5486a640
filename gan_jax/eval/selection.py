"""Selection of samples by the discriminator: rejection sampling, Metropolis-Hastings, and the highest logits.

All functions take logits of the discriminator, log(D / (1 - D)). For a calibrated D this is the log-density ratio of
reals to fakes, log(p(x) / q(x)). A discriminator is seldom calibrated: fit `calibrate` to held-out reals and fakes
first.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from gan_jax.types import InvalidInputError

Logits = Float[np.ndarray, " n"]
_NEWTON_STEPS = 50


class Chosen(NamedTuple):
    """The selected samples.

    Attributes:
      indices: indices of the selected among the proposed samples, in order; for chains, one index per chain.
      rate: share of the proposed samples that were selected; for chains, share of the moves that were accepted.
    """

    indices: Int[np.ndarray, " m"]
    rate: float


def calibrate(real_logits: Logits, fake_logits: Float[np.ndarray, " m"]) -> Callable[[Logits], Logits]:
    """Fits a logistic regression of real against fake on the logit: calibrated(l) = a l + b.

    The two sets have the same total weight, whatever their sizes, so that the result estimates log(p(x) / q(x)).

    Args:
      real_logits: logits of reals that the discriminator was not trained on.
      fake_logits: logits of samples.

    Returns:
      A function from logits to calibrated logits.

    Raises:
      InvalidInputError: if a threshold on the logit separates the two sets, so that no finite slope fits.

    References:
      Turner et al., "Metropolis-Hastings Generative Adversarial Networks", arXiv:1811.11357, 2019. The paper uses
      isotonic regression. A single slope preserves the order of the samples and the support of the ratio.
    """
    _check_finite(real_logits=real_logits, fake_logits=fake_logits)
    x = np.concatenate([real_logits, fake_logits]).astype(np.float64)
    y = np.concatenate([np.ones(len(real_logits)), np.zeros(len(fake_logits))])
    weight = np.where(y == 1.0, 0.5 / len(real_logits), 0.5 / len(fake_logits))
    center, scale = x.mean(), x.std() + 1e-12
    design = np.stack([(x - center) / scale, np.ones_like(x)])
    ab = np.zeros(2)
    for _ in range(_NEWTON_STEPS):
        p = 1.0 / (1.0 + np.exp(-(ab @ design)))
        gradient = design @ (weight * (p - y))
        hessian = (design * (weight * p * (1.0 - p))) @ design.T + 1e-12 * np.eye(2)
        step = np.linalg.solve(hessian, gradient)
        ab = ab - np.clip(step, -5.0, 5.0)
        if np.abs(step).max() < 1e-10:
            break
    else:
        raise InvalidInputError(
            f"logits of {len(real_logits)} reals and {len(fake_logits)} fakes are separated by a threshold: no "
            "calibration fits; the discriminator has memorised the reals (pass reals that it was not trained on), or "
            "the samples are far from the data"
        )
    slope, shift = ab[0] / scale, ab[1] - ab[0] * center / scale
    return lambda logits: slope * np.asarray(logits, np.float64) + shift


def reject(logits: Logits, *, percentile: float = 80.0, burn_in: int = 1000, seed: int = 0) -> Chosen:
    """Selects samples by discriminator rejection sampling.

    With l the logit of a sample and M the largest logit so far, F = (l - M) - log(1 - exp(l - M - 1e-8)) - g. The
    sample is kept with probability sigmoid(F). g is the given percentile of F (without g) over the first samples, which
    are not kept themselves.

    Args:
      logits: calibrated logits of the proposed samples.
      percentile: percentile from 0 to 100; a larger one keeps fewer samples.
      burn_in: number of first samples, from which M and g are estimated.
      seed: seed for the random decisions.

    Returns:
      The samples kept among those after the first `burn_in`.

    Raises:
      InvalidInputError: if there are not more samples than `burn_in`, or the percentile is out of range.

    References:
      Azadi et al., "Discriminator Rejection Sampling", arXiv:1810.06758, 2019.

    Example:
      >>> logits = np.random.default_rng(0).normal(size=3000)
      >>> bool(logits.mean() < logits[reject(logits).indices].mean())
      True
    """
    if not 0.0 <= percentile <= 100.0 or not 1 <= burn_in < len(logits):
        raise InvalidInputError(
            f"percentile={percentile}, burn_in={burn_in} of {len(logits)} samples: expected percentile from 0 to 100, "
            "and burn_in from 1 to less than the number of samples"
        )
    _check_finite(logits=logits)
    wide = np.asarray(logits, np.float64)
    maxima = np.maximum.accumulate(wide)
    gamma = np.percentile(_rejection_logit(wide[:burn_in], wide[:burn_in].max()), percentile)
    odds = _rejection_logit(wide[burn_in:], maxima[burn_in:]) - gamma
    draws = np.random.default_rng(seed).random(len(odds))
    kept = np.log(draws) - np.log1p(-draws) < odds  # the same as draws < sigmoid(odds)
    return Chosen(burn_in + np.flatnonzero(kept), float(kept.mean()))


def _check_finite(**logits: np.ndarray) -> None:
    for name, x in logits.items():
        if x.size == 0 or not np.isfinite(x).all():
            raise InvalidInputError(f"{name}: {x.size} values: expected 1 or more, all finite; has training diverged?")


def _rejection_logit(logits: np.ndarray, maximum: np.ndarray | float) -> np.ndarray:
    """Returns F without g; the 1e-8 keeps it finite for the largest logit."""
    difference = logits - maximum
    return difference - np.log(-np.expm1(difference - 1e-8))


def metropolis_hastings(
    logits: Float[np.ndarray, "m k"], real_logits: Float[np.ndarray, " m"], *, seed: int = 0
) -> Chosen:
    """Selects samples by Metropolis-Hastings (MH-GAN): m independent chains over k proposals each, started at reals.

    A move from x to x' is accepted with probability min(1, exp(l(x') - l(x))). This leaves p invariant if l is
    log(p / q). The sample of a chain is its last state; a chain that never left its real gives its first proposal.

    Args:
      logits: calibrated logits of the generator's proposals, `[m, k]`.
      real_logits: calibrated logits of the reals at which the chains start, `[m]`.
      seed: seed for the random decisions.

    Returns:
      For each chain the index of its sample in `logits.ravel()`.

    Raises:
      InvalidInputError: if the number of reals is not the number of chains.

    References:
      Turner et al., "Metropolis-Hastings Generative Adversarial Networks", arXiv:1811.11357, 2019, with k = 640. The
      paper restarts a chain that never moved from a fake.

    Example:
      >>> metropolis_hastings(np.array([[0.0, 90.0, 0.0]]), np.array([0.0])).indices.tolist()
      [1]
    """
    if logits.ndim != 2 or logits.shape[:1] != real_logits.shape or logits.shape[1] < 1:
        raise InvalidInputError(
            f"logits {logits.shape}, real_logits {real_logits.shape}: expected [chains, proposals], with 1 or more "
            "proposals, and [chains]"
        )
    _check_finite(logits=logits, real_logits=real_logits)
    chains, proposals = logits.shape
    random = np.random.default_rng(seed)
    at = np.full(chains, -1)
    current = np.asarray(real_logits, np.float64)
    moves = 0
    for index in range(proposals):
        accepted = np.log(random.random(chains)) < logits[:, index] - current
        at = np.where(accepted, index, at)
        current = np.where(accepted, logits[:, index], current)
        moves += int(accepted.sum())
    return Chosen(np.arange(chains) * proposals + np.maximum(at, 0), moves / logits.size)


def top(logits: Logits, share: float) -> Chosen:
    """Selects the samples with the highest logits.

    Args:
      logits: logits of the proposed samples; any order-preserving map of them gives the same selection.
      share: share of the samples to keep, in (0, 1].

    Returns:
      The kept samples in their original order: round(share n) of n, at least one.

    Raises:
      InvalidInputError: if the share is out of range.

    References:
      Sinha et al., "Top-k Training of GANs", arXiv:2002.06224, 2020. The paper selects during training; this function
      selects among finished samples.

    Example:
      >>> top(np.array([3.0, 1.0, 2.0]), 2 / 3).indices.tolist()
      [0, 2]
    """
    if not 0.0 < share <= 1.0 or len(logits) == 0:
        raise InvalidInputError(f"share={share} of {len(logits)} samples: expected a share in (0, 1] of 1 or more")
    kept = max(1, round(share * len(logits)))
    chosen = np.sort(np.argsort(-np.asarray(logits), kind="stable")[:kept])
    return Chosen(chosen, kept / len(logits))
