"""The handwritten digits that are part of scikit-learn: real data without a download."""

import numpy as np

from gan_jax.data.sources import Arrays


def digits(*, labels: bool) -> Arrays:
    """Returns 1,797 images of handwritten digits, 8x8 pixels of 17 grey levels, as `'real'` in [-1, 1].

    Args:
      labels: whether to deliver the digits' values as `'label'`.

    Returns:
      The source.

    References:
      Alpaydin and Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository, 1998. The
      images are its test set, from `sklearn.datasets.load_digits`.
    """
    from sklearn.datasets import load_digits  # noqa: PLC0415 - slow to import

    bunch = load_digits()
    arrays = {"real": (bunch.images[..., None] / 8.0 - 1.0).astype(np.float32)}
    if labels:
        arrays["label"] = bunch.target.astype(np.int32)
    return Arrays("digits", arrays, 10 if labels else None)
