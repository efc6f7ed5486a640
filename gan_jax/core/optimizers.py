"""Optimisers that keep their hyperparameters as arrays in the optimiser state."""

import optax

from gan_jax.types import InvalidInputError


def adam(
    learning_rate: float,
    b1: float = 0.9,
    b2: float = 0.999,
    *,
    eps: float = 1e-8,
    eps_root: float = 0.0,
    lazy_interval: int | float = 0,
) -> optax.GradientTransformation:
    """Creates Adam with its learning rate, betas and eps as arrays in the optimiser state.

    This uses `optax.inject_hyperparams`, so that the values can change without recompilation.

    Args:
      learning_rate: step size.
      b1: decay of the first moment.
      b2: decay of the second moment.
      eps: added to the square root of the second moment.
      eps_root: added under the square root. Above 0 the update is differentiable where gradients are 0, which
        `unrolled` needs.
      lazy_interval: interval k of a lazy penalty: one that runs every k-th step in its own phase and shares this
        optimiser. The learning rate is then multiplied by c = k / (k + 1), and the betas are raised to the power c.
        For several lazy penalties with intervals k_i, pass 1 / sum(1 / k_i). 0 if there are none.

    Returns:
      An optax transformation.

    Raises:
      InvalidInputError: for a negative learning rate, or a beta outside [0, 1).

    References:
      Kingma and Ba, "Adam", arXiv:1412.6980, 2014; Karras et al., "Analyzing and Improving the Image Quality of
      StyleGAN", arXiv:1912.04958, 2020, appendix B (the lazy correction).
    """
    if not learning_rate >= 0 or not (0 <= b1 < 1 and 0 <= b2 < 1):
        raise InvalidInputError(
            f"adam with learning_rate={learning_rate}, b1={b1}, b2={b2}: expected a learning rate of at least 0 and "
            "betas from 0 to below 1"
        )
    c = lazy_interval / (lazy_interval + 1) if lazy_interval else 1.0
    return optax.inject_hyperparams(optax.adam, static_args=("eps_root", "nesterov", "mu_dtype"))(
        learning_rate=c * learning_rate, b1=b1**c, b2=b2**c, eps=eps, eps_root=eps_root
    )
