"""The handwritten digits that scikit-learn carries: real data without a download."""

import numpy as np

from gan_jax.data.sources import Arrays


def digits(*, labels: bool) -> Arrays:
    """1,797 handwritten digits, 8x8 pixels of 17 grey levels, as `'real'` in [-1, 1].

    Args:
      labels: whether to deliver the digit as `'label'`.

    Returns:
      The source.

    References:
      Alpaydin and Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository, 1998; the test
      part, as in `sklearn.datasets.load_digits`.
    """
    from sklearn.datasets import load_digits  # noqa: PLC0415 - takes longer to import than all the rest

    bunch = load_digits()
    arrays = {"real": (bunch.images[..., None] / 8.0 - 1.0).astype(np.float32)}
    if labels:
        arrays["label"] = bunch.target.astype(np.int32)
    return Arrays("digits", arrays, 10 if labels else None)
