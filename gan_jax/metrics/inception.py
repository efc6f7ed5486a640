"""The inception score."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Float

from gan_jax.metrics.arrays import check_features
from gan_jax.types import InvalidInputError


class Score(NamedTuple):
    """The inception score over the splits.

    Attributes:
      mean: mean of the scores of the splits.
      std: standard deviation of the scores of the splits, not of their mean.
    """

    mean: float
    std: float


def inception_score(logits: Float[Array, "n c"] | Float[np.ndarray, "n c"], *, splits: int = 10) -> Score:
    """Computes the inception score: exp of the mean over samples of KL(p(y | x) || p(y)).

    p(y) is the mean of p(y | x) over the split.

    Args:
      logits: logits of Inception, `[n, classes]`, without the bias of its last layer.
      splits: number of consecutive splits, equal in size to within one sample.

    Returns:
      Mean and standard deviation over the splits; scores are from 1 to the number of classes.

    Raises:
      InvalidInputError: if there are fewer samples than splits.

    References:
      Salimans et al., "Improved Techniques for Training GANs", arXiv:1606.03498, 2016, whose code leaves the bias out;
      Barratt and Sharma, "A Note on the Inception Score", arXiv:1801.01973, 2018, on the score's limits. torch-fidelity
      shuffles before it splits. With other logits it is a different score and must not be called the inception score.

    Example:
      >>> print(f"{inception_score(100.0 * np.eye(4), splits=1).mean:.3f}")
      4.000
    """
    check_features(1, logits=logits)
    if not 1 <= splits <= len(logits):
        raise InvalidInputError(f"splits={splits} of {len(logits)} samples: expected 1 to {len(logits)}")
    wide = np.asarray(logits, np.float64)
    shifted = wide - wide.max(axis=1, keepdims=True)
    logs = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    scores = []
    for part in np.array_split(logs, splits):
        shares = np.exp(part)
        marginal = shares.mean(axis=0)
        entropy = -np.sum(marginal * np.log(np.where(marginal > 0.0, marginal, 1.0)))
        scores.append(np.exp(np.mean(np.sum(shares * part, axis=1)) + entropy))
    return Score(float(np.mean(scores)), float(np.std(scores)))
