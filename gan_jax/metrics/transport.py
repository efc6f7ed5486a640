"""The sliced Wasserstein distance."""

import numpy as np

from gan_jax.metrics.arrays import Features, OtherFeatures, check_features
from gan_jax.types import InvalidInputError

_TOGETHER = 32  # directions per block; both sets are converted to float64 once per block, not once per direction


def sliced_wasserstein(
    real: Features, fake: OtherFeatures, *, projections: int = 512, order: float = 2.0, seed: int = 0
) -> float:
    """Computes the sliced p-Wasserstein distance: (mean over directions u of W_p(u^T real, u^T fake)^p)^(1/p).

    In one dimension W_p^p is the integral over levels t in (0, 1) of |F^-1(t) - G^-1(t)|^p, with F and G the
    distribution functions of the two sets. It is exact for samples of any sizes.

    Args:
      real: features of the reals, `[n, d]`.
      fake: features of the fakes, `[m, d]`.
      projections: number of directions, uniform on the sphere.
      order: the order p, at least 1.
      seed: seed for drawing the directions.

    Returns:
      The distance, in units of the features.

    Raises:
      InvalidInputError: if p is below 1, or there is no direction.

    References:
      Bonneel et al., "Sliced and Radon Wasserstein Barycenters of Measures", 2015; Karras et al., "Progressive Growing
      of GANs", arXiv:1710.10196, 2018. Karras et al. take order 1 on normalised patches of Laplacian pyramids; pass
      such patches as features.

    Example:
      >>> x = np.random.default_rng(0).normal(size=(50, 1))
      >>> print(f"{sliced_wasserstein(x, x + 3.0):.3f}")
      3.000
    """
    check_features(1, real=real, fake=fake)
    if projections < 1 or order < 1.0:
        raise InvalidInputError(f"projections={projections}, order={order}: expected 1 or more for both")
    random = np.random.default_rng(seed)
    n, m = len(real), len(fake)
    # The levels t at which either quantile function steps, as exact integers t n m. Between two levels both functions
    # are constant; of_real and of_fake index the sorted sample that each takes just below a level.
    levels = np.union1d(np.arange(1, n + 1) * m, np.arange(1, m + 1) * n)
    widths = np.diff(levels, prepend=0) / (n * m)
    of_real, of_fake = -(-levels // m) - 1, -(-levels // n) - 1
    total = 0.0
    for low in range(0, projections, _TOGETHER):
        directions = random.normal(size=(min(_TOGETHER, projections - low), real.shape[1]))
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        a, b = (np.sort(directions @ np.asarray(x, np.float64).T, axis=1) for x in (real, fake))
        total += float(np.sum(widths * np.abs(a[:, of_real] - b[:, of_fake]) ** order))
    return (total / projections) ** (1.0 / order)
