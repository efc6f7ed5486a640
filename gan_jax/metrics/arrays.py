"""Types of the metrics' inputs, and the checks that all metrics share."""

import jax
import numpy as np
from jaxtyping import Array, Float

from gan_jax.types import InvalidInputError

Features = Float[Array, "n d"] | Float[np.ndarray, "n d"]
OtherFeatures = Float[Array, "m d"] | Float[np.ndarray, "m d"]


def check_features(least: int, **features: Array | np.ndarray) -> None:
    """Raises InvalidInputError unless all arrays are `[n, d]` with one d, have `least` or more rows, and are finite."""
    widths = {name: x.shape for name, x in features.items()}
    if any(len(shape) != 2 for shape in widths.values()) or len({shape[1] for shape in widths.values()}) > 1:
        raise InvalidInputError(
            f"features of shapes {widths}: expected [samples, features], with the same number of features"
        )
    # A row's sum is finite only if all its values are, so one number per row leaves the device.
    for name, x in features.items():
        if x.shape[0] < least:
            raise InvalidInputError(f"{name} has {x.shape[0]} samples: expected {least} or more")
        if not np.all(np.isfinite(jax.device_get(x.sum(axis=1, dtype=np.promote_types(x.dtype, np.float32))))):
            raise InvalidInputError(f"{name} has values that are not finite: the samples or the network have diverged")
