"""How many modes of a distribution the samples reach, where the modes are known."""

from typing import NamedTuple

import numpy as np
from jax.scipy.special import gammainc
from jaxtyping import Array, Float, Int

from gan_jax.types import InvalidInputError


class Coverage(NamedTuple):
    """Of modes by samples.

    Attributes:
      modes: with at least one sample.
      kl: KL(histogram of the samples || reference), in nats; infinite where samples hit what the reference lacks.
    """

    modes: int
    kl: float


class MixtureCoverage(NamedTuple):
    """Of a mixture of Gaussians by samples.

    Attributes:
      modes: with at least one sample of high quality.
      kl: KL(histogram over the nearest modes of the samples of high quality || equal shares), in nats; NaN if none is.
      high_quality: share of samples within three standard deviations of a mode.
      js: Jensen-Shannon divergence between the histogram over the modes, of samples of high quality, and all others,
        and what the mixture itself has there; from 0 to log 2, in nats. Missing modes make it worse, and so do samples
        between them; to the shape within three standard deviations it is blind. Of modes six or more apart.
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
    """Modes that samples are classified into, and the divergence of their histogram.

    KL(q || p) = sum over modes of q log(q / p), the "reverse KL" of papers on Stacked-MNIST.

    Args:
      predictions: mode of each sample, from 0 to n_modes - 1.
      n_modes: of the distribution.
      reference: shares of the modes, which sum to 1; equal by default.

    Returns:
      Modes and divergence. The histogram of n samples of p itself has a KL of about (n_modes - 1) / (2 n).

    Raises:
      InvalidInputError: for no samples, modes out of range, or a reference that is no distribution.

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
            f"reference of shape {shares.shape}, sum {shares.sum()}: expected {n_modes} shares of 1"
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
    """Modes of a mixture of Gaussians that samples reach, and the share of samples of high quality.

    JS(q, p) = KL(q || m) / 2 + KL(p || m) / 2 with m = (q + p) / 2; n samples of the mixture itself, which has k
    modes, have about k / (8 n).

    Args:
      samples: points.
      means: of the modes, which have equal shares.
      std: of every mode, in each direction.

    Returns:
      Modes, divergence of their shares, share of high quality, divergence of it all.

    Raises:
      InvalidInputError: for no samples, or other dimensions than the modes have.

    References:
      Srivastava et al., "VEEGAN: Reducing Mode Collapse in GANs using Implicit Variational Learning", arXiv:1705.07761,
      2017: 2,500 samples; a mode counts when one sample of high quality is nearest to it. JS of the shares of bins:
      Richardson and Weiss, "On GANs and GMMs", arXiv:1805.12462, 2018; theirs are clusters of the data.

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
    within = float(gammainc(means.shape[1] / 2, 4.5))  # of a mode's samples, this share: 0.989 in two dimensions
    bins = np.bincount(np.where(good, nearest, len(means)), minlength=len(means) + 1) / len(points)
    js = _jensen_shannon(bins, np.append(np.full(len(means), within / len(means)), 1.0 - within))
    return MixtureCoverage(*found, float(good.mean()), js)


def _jensen_shannon(q: np.ndarray, p: np.ndarray) -> float:
    halves = np.stack([q, p]) / 2
    middle = halves.sum(axis=0)
    return float(sum(np.sum(x[x > 0] * np.log(2 * x[x > 0] / middle[x > 0])) for x in halves))
