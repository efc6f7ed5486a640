"""A linear probe: how much of a label can be read from features by a linear map."""

import numpy as np
from jaxtyping import Array, Float, Int

from gan_jax.types import InvalidInputError


def linear_probe(
    features: Float[Array, "n *rest"] | Float[np.ndarray, "n *rest"],
    labels: Int[Array, " n"] | Int[np.ndarray, " n"],
    held_out_features: Float[Array, "m *rest"] | Float[np.ndarray, "m *rest"],
    held_out_labels: Int[Array, " m"] | Int[np.ndarray, " m"],
    *,
    ridge: float = 1e-2,
) -> float:
    """Fits a linear classifier to features, and returns its accuracy on held-out ones.

    Ridge regression of the one-hot labels on the standardised features, in float64: W = (X^T X + ridge n I)^-1 X^T Y.
    The class with the largest output is chosen. There is nothing random in it, and no step size to choose.

    Args:
      features: features of the training examples, flattened behind the first axis. For the codes of a tokenizer, their
        vectors, not their ids.
      labels: labels of the training examples, from 0.
      held_out_features: features of other examples.
      held_out_labels: their labels.
      ridge: weight of the squared coefficients, relative to the number of examples.

    Returns:
      The share of held-out examples that are classified correctly, from 0 to 1.

    Raises:
      InvalidInputError: if sizes do not match, there are no examples, or `ridge` is not positive.

    References:
      Alain and Bengio, "Understanding intermediate layers using linear classifier probes", arXiv:1610.01644, 2016.
      Their probes minimise the cross-entropy.

    Example:
      >>> x = np.array([[0.0], [1.0], [2.0], [3.0]])
      >>> linear_probe(x, np.array([0, 0, 1, 1]), np.array([[0.4], [2.6]]), np.array([0, 1]))
      1.0
    """
    train, test = (np.asarray(x, np.float64).reshape(len(x), -1) for x in (features, held_out_features))
    known, asked = np.asarray(labels), np.asarray(held_out_labels)
    fits = len(train) == len(known) > 0 and len(test) == len(asked) > 0 and train.shape[1] == test.shape[1]
    if not fits or not ridge > 0:
        raise InvalidInputError(
            f"features {train.shape}, labels {known.shape}, held out {test.shape} and {asked.shape}, ridge={ridge}: "
            "expected one label for each example, the same number of features, and a positive ridge"
        )
    mean, deviation = train.mean(axis=0), train.std(axis=0)
    scale = np.where(deviation > 0, deviation, 1.0)
    x, y = (train - mean) / scale, np.eye(int(known.max()) + 1)[known]
    offset = y.mean(axis=0)
    weights = np.linalg.solve(x.T @ x + ridge * len(x) * np.eye(x.shape[1]), x.T @ (y - offset))
    chosen = np.argmax((test - mean) / scale @ weights + offset, axis=1)
    return float(np.mean(chosen == asked))
