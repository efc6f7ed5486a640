"""Auxiliary, contrastive, reconstruction and distance terms against formulas written out with loops, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gan_jax import losses
from gan_jax.types import InvalidInputError

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(5, 4))
LABEL = np.array([0, 3, 1, 1, 2])
A, B = RNG.normal(size=(2, 6, 3))
KIND = np.array([0, 1, 0, 2, 1, 0])
RAYS = np.random.default_rng(1).normal(size=(2, 2, 4, 3))  # queries and positives of two images, four places each


def softmax(x):
    return np.exp(x) / np.exp(x).sum(-1, keepdims=True)


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def contrastive(t):
    f, v = unit(A), unit(B)
    result = []
    for i in range(6):
        own = np.exp(f[i] @ v[i] / t)
        same = sum(np.exp(f[i] @ f[k] / t) for k in range(6) if k != i and KIND[k] == KIND[i])
        every = sum(np.exp(f[i] @ f[k] / t) for k in range(6) if k != i)
        result.append(-np.log((own + same) / (own + every)))
    return result


def data_to_data(t, positive, negative):
    f, v = unit(A), unit(B)
    result = []
    for i in range(6):
        own = np.exp(min(0, f[i] @ v[i] - positive) / t)
        others = sum(np.exp(max(0, f[i] @ f[j] - negative) / t) for j in range(6) if KIND[j] != KIND[i])
        result.append(-np.log(own / (own + others)))
    return result


def patches(t):
    q, k = unit(RAYS[0]), unit(RAYS[1])
    return [
        [-np.log(np.exp(a[i] @ b[i] / t) / sum(np.exp(a[i] @ other / t) for other in b)) for i in range(len(a))]
        for a, b in zip(q, k, strict=True)
    ]


def hinge():
    return [
        max(0, 1 - row[y] + max(value for j, value in enumerate(row) if j != y))
        for row, y in zip(LOGITS, LABEL, strict=True)
    ]


def pair_means(kernel):
    n = len(A)
    within = sum(kernel(x[i] - x[j]) for x in (A, B) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    across = sum(kernel(A[i] - B[j]) for i in range(n) for j in range(n)) / n**2
    return within - 2 * across


def rational_quadratic(d):
    return sum((1 + d @ d / (2 * a)) ** -a for a in (0.2, 0.5, 1, 2, 5))


def gaussian(d):
    return sum(np.exp(-d @ d / (2 * s**2)) for s in (1, 2, 4, 8, 16))


XA, XB = jnp.asarray(A), jnp.asarray(B)
CODE, MEAN, LOG_STD = RNG.normal(size=(3, 5, 2))
IMAGE_1, IMAGE_2 = RNG.normal(size=(2, 6, 4, 4, 2))
PICKED = LOGITS[np.arange(5), LABEL]
TWICE = np.concatenate([LOGITS, LOGITS[::-1]], axis=-1)

VALUES = {
    "auxiliary_classifier": (losses.auxiliary_classifier, (LOGITS, LABEL), -np.log(softmax(LOGITS)[range(5), LABEL])),
    "multi_hinge": (losses.multi_hinge, (LOGITS, LABEL), hinge()),
    "patch_nce": (losses.patch_nce, (unit(RAYS[0]), unit(RAYS[1])), patches(0.07)),
    "adc_real": (
        lambda x, y: losses.auxiliary_discriminative(x, y, real=True),
        (TWICE, LABEL),
        -np.log(softmax(TWICE)[range(5), LABEL]),
    ),
    "adc_fake": (
        lambda x, y: losses.auxiliary_discriminative(x, y, real=False),
        (TWICE, LABEL),
        -np.log(softmax(TWICE)[range(5), LABEL + 4]),
    ),
    "adc_generator": (
        losses.auxiliary_discriminative_generator,
        (TWICE, LABEL),
        np.log(softmax(TWICE)[range(5), LABEL + 4]) - np.log(softmax(TWICE)[range(5), LABEL]),
    ),
    "discrete_mutual_information": (
        losses.discrete_mutual_information,
        (LOGITS, LABEL),
        -np.log(softmax(LOGITS)[range(5), LABEL]),
    ),
    "gaussian_mutual_information": (
        losses.gaussian_mutual_information,
        (MEAN, LOG_STD, CODE),
        -np.log(
            np.prod(np.exp(-(((CODE - MEAN) / np.exp(LOG_STD)) ** 2) / 2) / np.exp(LOG_STD) / np.sqrt(2 * np.pi), -1)
        ),
    ),
    "mode_seeking": (
        losses.mode_seeking,
        (IMAGE_1, IMAGE_2, A, B),
        1 / (np.abs(IMAGE_1 - IMAGE_2).mean((1, 2, 3)) / np.abs(A - B).mean(1) + 1e-5),
    ),
    "conditional_contrastive": (
        lambda a, b, y: losses.conditional_contrastive(a, b, y, temperature=0.3),
        (A, B, KIND),
        contrastive(0.3),
    ),
    "data_to_data_cross_entropy": (
        lambda a, b, y: losses.data_to_data_cross_entropy(
            a, b, y, temperature=0.4, positive_margin=0.9, negative_margin=0.1
        ),
        (A, B, KIND),
        data_to_data(0.4, 0.9, 0.1),
    ),
    "maximum_mean_discrepancy": (losses.maximum_mean_discrepancy, (A, B), pair_means(rational_quadratic)),
    "maximum_mean_discrepancy_gaussian": (
        lambda a, b: losses.maximum_mean_discrepancy(a, b, kernel=losses.gaussian_kernel()),
        (A, B),
        pair_means(gaussian),
    ),
    "energy_distance": (losses.energy_distance, (A, B), -pair_means(np.linalg.norm)),
    "charbonnier": (losses.charbonnier, (A, B), np.sqrt((A - B) ** 2 + 1e-6)),
    "l1": (losses.l1, (A, B), np.abs(A - B)),
    "l2": (losses.l2, (A, B), (A - B) ** 2),
    "cycle_consistency": (losses.cycle_consistency, (A, B), np.abs(A - B)),
    "identity_mapping": (losses.identity_mapping, (A, B), np.abs(A - B)),
    "feature_matching": (
        lambda a, b, c, d: losses.feature_matching([a, b], [c, d]),
        (A, IMAGE_1, B, IMAGE_2),
        (np.abs(A - B).mean(1) + np.abs(IMAGE_1 - IMAGE_2).mean((1, 2, 3))) / 2,
    ),
    "mean_feature_matching": (losses.mean_feature_matching, (A, B), np.sum((A.mean(0) - B.mean(0)) ** 2)),
    "perceptual": (
        lambda a, b, c, d: losses.perceptual([a, b], [c, d]),
        (A, IMAGE_1, B, IMAGE_2),
        ((A - B) ** 2).mean(1) + ((IMAGE_1 - IMAGE_2) ** 2).mean((1, 2, 3)),
    ),
    "perceptual_lpips": (
        lambda a, b: losses.perceptual([a], [b], weights=[jnp.array([0.3, 0.7])], normalize=True),
        (IMAGE_1, IMAGE_2),
        ((unit(IMAGE_1) - unit(IMAGE_2)) ** 2 @ [0.3, 0.7]).mean((1, 2)),
    ),
    "top_k": (lambda x: losses.top_k(x, 2), (np.array([1.0, 5.0, -2.0, 5.0, 0.0]),), [0, 2.5, 0, 2.5, 0]),
    "adaptive_weight": (
        losses.adaptive_weight,
        ({"a": A, "b": B}, {"a": 2 * A, "b": 2 * B}),
        0.5,
    ),
    "output_gradients": (lambda y: losses.output_gradients({"cube": lambda y: y**3}, y)[1]["cube"], (A,), A**2 / 6),
    "gaussian_kl": (
        losses.gaussian_kl,
        (A, B),
        [sum((m * m + np.exp(v) - 1 - v) / 2 for m, v in zip(*each, strict=True)) for each in zip(A, B, strict=True)],
    ),
    "gaussian_nll": (
        losses.gaussian_nll,
        (A, B),
        ((A - B) ** 2 / (2 * np.mean((A - B) ** 2)) + np.log(2 * np.pi * np.mean((A - B) ** 2)) / 2).sum(1),
    ),
    "bernoulli_nll": (
        losses.bernoulli_nll,
        (A, np.sign(B)),
        -np.log(1 / (1 + np.exp(-A * np.sign(B)))).sum(1),
    ),
    "steer": (losses.steer, (A, B), (A * B).sum()),
    "balance": (
        lambda a, b: losses.balance(
            {"a": a, "b": b}, {"a": 1.0, "b": 3.0}, losses.init_balancer({"a": 1.0, "b": 3.0}), epsilon=0.5
        )[0],
        (A, B),
        0.25 * A / (0.5 + np.linalg.norm(A, axis=1).mean()) + 0.75 * B / (0.5 + np.linalg.norm(B, axis=1).mean()),
    ),
    "normalize_gradient": (
        lambda a: losses.normalize_gradient(a, jnp.zeros(()), epsilon=0.5)[0],
        (A,),
        A / (np.sqrt(0.1 * 18 * (A**2).sum()) + 0.5),
    ),
    "ramp": (lambda step: losses.ramp(step, 2, 4), (np.array([0, 2, 3, 9]),), [0, 0, 0.25, 1]),
}


@pytest.mark.parametrize("name", sorted(VALUES))
def test_values(name):
    function, arguments, expected = VALUES[name]
    with jax.enable_x64(True):
        np.testing.assert_allclose(function(*jax.tree.map(jnp.asarray, arguments)), expected, rtol=1e-6)


def test_every_loss_that_is_no_pair_has_a_value_by_hand():
    plain = {name for name in losses.__all__ if not isinstance(getattr(losses, name), losses.GANLoss)}
    makers = {"GANLoss", "energy_based", "f_divergence", "gaussian_kernel", "rational_quadratic_kernel"}
    makers |= {"BalancerState", "init_balancer"}
    adc = {"auxiliary_discriminative", "auxiliary_discriminative_generator"}
    assert plain - makers - adc <= set(VALUES)


def test_mutual_information_is_the_log_density_of_a_normal_distribution():
    expected = -jax.scipy.stats.norm.logpdf(CODE, MEAN, np.exp(LOG_STD)).sum(-1)
    np.testing.assert_allclose(
        losses.gaussian_mutual_information(*map(jnp.asarray, (MEAN, LOG_STD, CODE))), expected, rtol=1e-5
    )


def test_perfect_embeddings_cost_little_and_one_label_costs_nothing():
    kind = jnp.asarray(KIND)
    directions = jnp.eye(3)[kind]
    close = losses.data_to_data_cross_entropy(directions, directions, kind, temperature=0.1, negative_margin=0.5)
    assert float(close.max()) < np.log(1 + 5) + 1e-6  # all repulsions are at their floor, exp(0)
    np.testing.assert_allclose(losses.data_to_data_cross_entropy(directions, directions, 0 * kind), 0.0, atol=1e-6)
    assert float(losses.conditional_contrastive(directions, directions, kind, temperature=0.05).max()) < 1e-6


@pytest.mark.parametrize("distance", [losses.maximum_mean_discrepancy, losses.energy_distance])
def test_distances_of_equal_and_of_moved_distributions(distance):
    key = jax.random.key(0)
    x, y = jax.random.normal(key, (2, 400, 2))
    same, near, far = (float(distance(x, y + move)) for move in (0.0, 0.5, 1.0))
    assert abs(same) < 0.05 < near < far
    assert float(distance(x, x, unbiased=False)) == pytest.approx(0.0, abs=1e-5)
    np.testing.assert_allclose(distance(x + 1e3, y + 1e3 + 0.5), near, rtol=2e-2)  # far from the origin too


def test_equal_points_give_the_energy_distance_no_nan():
    x = jnp.ones((3, 2))
    assert bool(jnp.all(jnp.isfinite(jax.grad(losses.energy_distance)(x, x))))


def test_top_k_with_a_traced_k_compiles_once_and_breaks_ties():
    traces = []

    @jax.jit
    def weights(k):
        traces.append(k)
        return losses.top_k(jnp.zeros(6), k)

    for k in range(1, 7):
        w = weights(k)
        assert int(jnp.sum(w > 0)) == k and float(jnp.mean(w)) == pytest.approx(1.0)
    assert len(traces) == 1


def test_labels_of_one_byte_do_not_wrap_round():
    logits = jnp.zeros((1, 400)).at[0, 399].set(20.0)
    for dtype in (jnp.int32, jnp.uint8, jnp.int16):
        label = jnp.array([199], dtype)
        assert float(losses.auxiliary_discriminative(logits, label, real=False)[0]) < 1e-5
        assert float(losses.auxiliary_discriminative_generator(logits, label)[0]) == 20.0


def test_charbonnier_is_smooth_where_difference_and_epsilon_are_equal():
    second = jax.grad(jax.grad(lambda d: losses.charbonnier(d, jnp.zeros(()), epsilon=0.5)))
    np.testing.assert_allclose(second(0.5), 0.25 / 0.5**1.5, rtol=1e-5)  # epsilon^2 / (d^2 + epsilon^2)^(3/2)


def test_an_annealed_k_is_rounded_down_and_clipped():
    w = jax.jit(lambda k: losses.top_k(jnp.arange(8.0), k))
    for k, kept in ((4.5, 4), (0, 1), (99, 8)):
        assert int(jnp.sum(w(k) > 0)) == kept and float(jnp.mean(w(k))) == pytest.approx(1.0)


def test_the_adaptive_weight_is_bounded():
    assert float(losses.adaptive_weight(jnp.ones(3), jnp.zeros(3))) == 1e4
    assert float(losses.adaptive_weight(jnp.zeros(3), jnp.zeros(3))) == 0.0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: losses.feature_matching([XA], [XA, XB]), r"features differ"),
        (lambda: losses.feature_matching([], []), r"there are none"),
        (lambda: losses.perceptual([XA], [jnp.asarray(IMAGE_1)]), r"shapes \[\(6, 3\)\] and \[\(6, 4, 4, 2\)\]"),
        (lambda: losses.mean_feature_matching([], []), "there are none"),
        (lambda: losses.mean_feature_matching([XA], [XA[:, :1]]), "features differ"),
        (lambda: losses.top_k(XA[:, 0], 0), "k=0: expected 1 to 6"),
        (lambda: losses.maximum_mean_discrepancy(XA[:1], XB), "a batch of 1: the unbiased estimate"),
        (lambda: losses.conditional_contrastive(XA, XB, jnp.asarray(KIND), temperature=0.0), "temperature=0.0"),
        (lambda: losses.auxiliary_discriminative(XA, jnp.asarray(KIND), real=False), "3 classes: expected k of reals"),
        (lambda: losses.perceptual([XA], [XB], weights=[jnp.ones(3)] * 2), "weights for 2 layers"),
    ],
)
def test_trees_that_differ_are_refused(call, message):
    with pytest.raises(InvalidInputError, match=message):
        call()
