"""The sliced Wasserstein distance."""

import numpy as np

from gan_jax.metrics.arrays import Features, OtherFeatures, check_features
from gan_jax.types import InvalidInputError

_TOGETHER = 32  # directions, so that both sets are widened to float64 that much more rarely


def sliced_wasserstein(
    real: Features, fake: OtherFeatures, *, projections: int = 512, order: float = 2.0, seed: int = 0
) -> float:
    """The sliced p-Wasserstein distance: (mean over directions u of W_p(uᵀ real, uᵀ fake)^p)^(1/p).

    In one dimension W_p^p is the integral over levels t in (0, 1) of |F⁻¹(t) - G⁻¹(t)|^p, exact for samples of any
    sizes.

    Args:
      real: `[n, d]`.
      fake: `[m, d]`.
      projections: directions, uniform on the sphere.
      order: p, at least 1.
      seed: of the directions.

    Returns:
      The distance, in units of the features.

    Raises:
      InvalidInputError: for p below 1, or no direction.

    References:
      Bonneel et al., "Sliced and Radon Wasserstein Barycenters of Measures", 2015; Karras et al., "Progressive Growing
      of GANs", arXiv:1710.10196, 2018, who take order 1 of normalised patches of Laplacian pyramids: give those as
      features.

    Example:
      >>> x = np.random.default_rng(0).normal(size=(50, 1))
      >>> print(f"{sliced_wasserstein(x, x + 3.0):.3f}")
      3.000
    """
    check_features(1, real=real, fake=fake)
    if projections < 1 or order < 1.0:
        raise InvalidInputError(f"projections={projections}, order={order}: expected 1 or more of both")
    random = np.random.default_rng(seed)
    n, m = len(real), len(fake)
    # Levels at which either quantile function steps, as integers over n m; and which sample is met below each.
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
