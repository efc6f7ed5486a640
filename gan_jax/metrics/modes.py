"""Mode coverage: the modes of a known distribution that samples reach."""

from typing import NamedTuple

import numpy as np
from jax.scipy.special import gammainc
from jaxtyping import Array, Float, Int

from gan_jax.types import InvalidInputError


class Coverage(NamedTuple):
    """Coverage of the modes of a distribution by samples.

    Attributes:
      modes: number of modes with at least one sample.
      kl: KL(histogram of the samples || reference), in nats; infinite if samples hit a mode that the reference lacks.
    """

    modes: int
    kl: float


class MixtureCoverage(NamedTuple):
    """Coverage of a mixture of Gaussians by samples.

    A sample is of high quality if it lies within three standard deviations of a mode.

    Attributes:
      modes: number of modes with at least one high-quality sample.
      kl: KL(histogram of the high-quality samples over their nearest modes || equal shares), in nats; NaN if there are
        no high-quality samples.
      high_quality: share of high-quality samples.
      js: Jensen-Shannon divergence between two histograms, that of the samples and that of the mixture itself, in nats,
        from 0 to log 2. The bins are the modes, each with its high-quality samples, and one bin for all other samples.
        Missing modes and samples between modes both increase it. It is blind to the shape within three standard
        deviations. It is meant for modes that are six or more standard deviations apart.
    """

    modes: int
    kl: float
    high_quality: float
    js: float


def mode_coverage(
    predictions: Int[Array, " n"] | Int[np.ndarray, " n"],
    n_modes: int,
    reference: Float[np.ndarray, " n_modes"] | None = None,
) -> Coverage:
    """Counts the modes that samples are classified into, and computes the divergence of their histogram.

    KL(q || p) = sum over modes of q log(q / p), with q the histogram of the samples and p the reference. Papers on
    Stacked-MNIST call it "reverse KL".

    Args:
      predictions: mode of each sample, from 0 to n_modes - 1.
      n_modes: number of modes of the distribution.
      reference: shares of the modes, which sum to 1; equal by default.

    Returns:
      The number of modes and the divergence. For n samples of p itself the KL is about (n_modes - 1) / (2 n).

    Raises:
      InvalidInputError: if there are no samples, a mode is out of range, or the reference is not a distribution.

    References:
      Metz et al., "Unrolled Generative Adversarial Networks", arXiv:1611.02163, 2017; Srivastava et al., "VEEGAN",
      arXiv:1705.07761, 2017.

    Example:
      >>> mode_coverage(np.array([0, 0, 2, 2]), 4)
      Coverage(modes=2, kl=0.6931471805599453)
    """
    found = np.asarray(predictions)
    if found.size == 0 or found.min() < 0 or found.max() >= n_modes:
        raise InvalidInputError(
            f"{found.size} predictions from {found.min(initial=0)} to {found.max(initial=0)}: expected 1 or more, from "
            f"0 to n_modes - 1 = {n_modes - 1}"
        )
    shares = np.full(n_modes, 1.0 / n_modes) if reference is None else np.asarray(reference, np.float64)
    if shares.shape != (n_modes,) or shares.min() < 0 or abs(shares.sum() - 1.0) > 1e-6:
        raise InvalidInputError(
            f"reference of shape {shares.shape}, sum {shares.sum()}: expected {n_modes} non-negative shares of sum 1"
        )
    counts = np.bincount(found, minlength=n_modes)
    hit = counts > 0
    histogram = counts[hit] / counts.sum()
    with np.errstate(divide="ignore"):
        kl = np.sum(histogram * (np.log(histogram) - np.log(shares[hit])))
    return Coverage(int(hit.sum()), float(kl))


def mixture_coverage(
    samples: Float[Array, "n d"] | Float[np.ndarray, "n d"], means: Float[np.ndarray, "k d"], std: float
) -> MixtureCoverage:
    """Measures how well samples cover a mixture of Gaussians: modes reached, their shares, and high-quality samples.

    JS(q, p) = KL(q || m) / 2 + KL(p || m) / 2 with m = (q + p) / 2. For n samples of the mixture itself, which has k
    modes, it is about k / (8 n).

    Args:
      samples: points, `[n, d]`.
      means: means of the modes, `[k, d]`; the modes have equal shares.
      std: standard deviation of every mode, in each direction.

    Returns:
      The number of modes, the KL of their shares, the share of high-quality samples, and the JS of the whole histogram.

    Raises:
      InvalidInputError: if there are no samples, or their dimension is not that of the modes.

    References:
      Srivastava et al., "VEEGAN: Reducing Mode Collapse in GANs using Implicit Variational Learning", arXiv:1705.07761,
      2017: 2,500 samples; a mode counts if it is the nearest mode of at least one high-quality sample. The JS of the
      shares of bins is from Richardson and Weiss, "On GANs and GMMs", arXiv:1805.12462, 2018, whose bins are clusters
      of the data.

    Example:
      >>> mixture_coverage(np.array([[0.0], [0.1], [5.0]]), np.array([[0.0], [1.0]]), 0.1)
      MixtureCoverage(modes=1, kl=0.6931471805599453, high_quality=0.6666666666666666, js=0.28...)
    """
    points = np.asarray(samples, np.float64)
    if points.ndim != 2 or len(points) == 0 or points.shape[1:] != means.shape[1:]:
        raise InvalidInputError(f"samples of shape {points.shape}: expected [1 or more, {means.shape[1]}]")
    distances = np.linalg.norm(points[:, None] - means, axis=-1)
    good, nearest = distances.min(axis=1) <= 3.0 * std, distances.argmin(axis=1)
    found = mode_coverage(nearest[good], len(means)) if good.any() else Coverage(0, float("nan"))
    # Share of a mode's own samples within three standard deviations (chi-squared CDF at 9): 0.989 in two dimensions.
    within = float(gammainc(means.shape[1] / 2, 4.5))
    bins = np.bincount(np.where(good, nearest, len(means)), minlength=len(means) + 1) / len(points)
    js = _jensen_shannon(bins, np.append(np.full(len(means), within / len(means)), 1.0 - within))
    return MixtureCoverage(*found, float(good.mean()), js)


def _jensen_shannon(q: np.ndarray, p: np.ndarray) -> float:
    """Returns the Jensen-Shannon divergence of two histograms, in nats; empty bins contribute 0."""
    halves = np.stack([q, p]) / 2
    middle = halves.sum(axis=0)
    return float(sum(np.sum(x[x > 0] * np.log(2 * x[x > 0] / middle[x > 0])) for x in halves))
