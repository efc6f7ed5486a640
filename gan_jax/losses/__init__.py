"""Losses for adversarial training: pure, unweighted functions of arrays that depend on jax and jaxtyping only.

The adversarial losses are pairs of unreduced functions of logits (`GANLoss`). The other losses return one value per
element, one value per example, or a scalar if they compare distributions.
"""

from gan_jax.losses.adversarial import hinge, least_squares, minimax, non_saturating, wasserstein
from gan_jax.losses.auxiliary import (
    auxiliary_classifier,
    auxiliary_discriminative,
    auxiliary_discriminative_generator,
    discrete_mutual_information,
    gaussian_mutual_information,
    mode_seeking,
    multi_hinge,
)
from gan_jax.losses.base import GANLoss
from gan_jax.losses.contrastive import conditional_contrastive, data_to_data_cross_entropy, patch_nce
from gan_jax.losses.distance import (
    energy_distance,
    gaussian_kernel,
    maximum_mean_discrepancy,
    rational_quadratic_kernel,
)
from gan_jax.losses.divergence import energy_based, f_divergence
from gan_jax.losses.reconstruction import (
    charbonnier,
    cycle_consistency,
    feature_matching,
    identity_mapping,
    l1,
    l2,
    mean_feature_matching,
    perceptual,
)
from gan_jax.losses.relativistic import (
    relativistic_average,
    relativistic_average_hinge,
    relativistic_average_least_squares,
    relativistic_pairing,
)
from gan_jax.losses.variational import bernoulli_nll, gaussian_kl, gaussian_nll
from gan_jax.losses.weighting import (
    BalancerState,
    adaptive_weight,
    balance,
    init_balancer,
    normalize_gradient,
    output_gradients,
    ramp,
    steer,
    top_k,
)

__all__ = [
    "BalancerState",
    "GANLoss",
    "adaptive_weight",
    "auxiliary_classifier",
    "auxiliary_discriminative",
    "auxiliary_discriminative_generator",
    "balance",
    "bernoulli_nll",
    "charbonnier",
    "conditional_contrastive",
    "cycle_consistency",
    "data_to_data_cross_entropy",
    "discrete_mutual_information",
    "energy_based",
    "energy_distance",
    "f_divergence",
    "feature_matching",
    "gaussian_kernel",
    "gaussian_kl",
    "gaussian_mutual_information",
    "gaussian_nll",
    "hinge",
    "identity_mapping",
    "init_balancer",
    "l1",
    "l2",
    "least_squares",
    "maximum_mean_discrepancy",
    "mean_feature_matching",
    "minimax",
    "mode_seeking",
    "multi_hinge",
    "non_saturating",
    "normalize_gradient",
    "output_gradients",
    "patch_nce",
    "perceptual",
    "ramp",
    "rational_quadratic_kernel",
    "relativistic_average",
    "relativistic_average_hinge",
    "relativistic_average_least_squares",
    "relativistic_pairing",
    "steer",
    "top_k",
    "wasserstein",
]
