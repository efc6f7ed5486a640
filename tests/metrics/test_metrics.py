"""Metrics against closed forms, brute force in float64, and invariants: tests that need no other package."""

import itertools

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy
from hypothesis import strategies as st
from jax.sharding import NamedSharding, PartitionSpec

from gan_jax import data, metrics
from gan_jax.metrics import blocks, exact
from gan_jax.types import InvalidInputError


def normal(seed, n, d, dtype=np.float32):
    return np.random.default_rng(seed).normal(size=(n, d)).astype(dtype)


def distances(a, b):
    return np.linalg.norm(a[:, None].astype(np.float64) - b[None].astype(np.float64), axis=-1)


# Fréchet distances


@pytest.mark.parametrize("size", [1, 7, 64, 500])
def test_moments_do_not_depend_on_the_batch_size(size):
    x = normal(0, 1001, 17) * np.linspace(0.01, 100, 17) + 1000.0
    whole = metrics.moments(x)
    parts = [metrics.moments(x[i : i + size]) for i in range(0, len(x), size)]
    total = parts[0]
    for part in parts[1:]:
        total = metrics.merge(total, part)
    assert total.size == 1001
    np.testing.assert_allclose(total.mean, x.astype(np.float64).mean(0), rtol=1e-14)
    np.testing.assert_allclose(total.covariance, np.cov(x.astype(np.float64), rowvar=False), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(total.covariance, whole.covariance, rtol=1e-9, atol=1e-9)


def gaussian(mean, covariance, count=2):
    return metrics.Moments(count, np.asarray(mean, float), np.asarray(covariance, float) * (count - 1))


def test_frechet_distance_in_closed_form():
    a, b = gaussian([0, 0], np.diag([4.0, 9.0])), gaussian([1, 2], np.diag([1.0, 25.0]))
    # diagonal: sum of (mean differences)^2 + (std differences)^2
    assert metrics.frechet_distance(a, b) == pytest.approx(5 + 1 + 4)
    assert metrics.frechet_distance(a, a) == pytest.approx(0, abs=1e-12)


def test_frechet_distance_of_covariances_that_do_not_commute():
    rng = np.random.default_rng(1)
    a, b = (x @ x.T for x in rng.normal(size=(2, 6, 6)))
    # the trace of the root of a product, from its real and positive eigenvalues, without symmetrising it
    root = np.sqrt(np.linalg.eigvals(a @ b).real).sum()
    expected = np.trace(a) + np.trace(b) - 2 * root
    assert metrics.frechet_distance(gaussian(np.zeros(6), a), gaussian(np.zeros(6), b)) == pytest.approx(expected)


def test_frechet_distance_is_symmetric_and_rotations_change_nothing():
    x, y = normal(0, 300, 8, float), normal(1, 200, 8, float) * 2 + 1
    q, _ = np.linalg.qr(normal(2, 8, 8, float))
    d = metrics.frechet_distance(metrics.moments(x), metrics.moments(y))
    assert metrics.frechet_distance(metrics.moments(y), metrics.moments(x)) == pytest.approx(d, rel=1e-10)
    assert metrics.frechet_distance(metrics.moments(x @ q), metrics.moments(y @ q)) == pytest.approx(d, rel=1e-10)


def test_frechet_distance_of_singular_covariances_is_real():
    x, y = normal(0, 20, 64, float), normal(1, 20, 64, float)  # rank 19 of 64
    d = metrics.frechet_distance(metrics.moments(x), metrics.moments(y))
    # the trace of the root is the nuclear norm of the product of the centred samples
    nuclear = np.linalg.svd((x - x.mean(0)) @ (y - y.mean(0)).T, compute_uv=False).sum() / 19
    traces = x.var(0, ddof=1).sum() + y.var(0, ddof=1).sum()
    assert d == pytest.approx(np.sum((x.mean(0) - y.mean(0)) ** 2) + traces - 2 * nuclear, rel=1e-6)


def test_frechet_infinity_takes_the_bias_away():
    reference, fake = metrics.moments(normal(0, 60_000, 64)), normal(1, 3000, 64)  # from the same distribution
    plain = metrics.frechet_distance(reference, metrics.moments(fake))
    assert abs(metrics.frechet_infinity(reference, fake, smallest=600)) < plain / 5


# Kernels


def test_kernel_distance_by_hand():
    r, f = normal(0, 30, 3, float), normal(1, 30, 3, float) + 0.5

    def kernel(a, b):
        return (sum(p * q for p, q in zip(a, b, strict=True)) / 3 + 1) ** 3

    apart = [kernel(s[i], s[j]) / (30 * 29) for s in (r, f) for i, j in itertools.permutations(range(30), 2)]
    expected = sum(apart) - 2 * sum(kernel(a, b) for a in r for b in f) / 900
    found = metrics.kernel_distance(r, f, subsets=3, subset_size=30)
    assert found.mean == pytest.approx(expected, rel=1e-10)
    assert found.std == pytest.approx(0, abs=1e-12)  # every subset is the whole set


def test_kernel_distance_is_unbiased():
    found = metrics.kernel_distance(normal(0, 5000, 4), normal(1, 5000, 4), subsets=100, subset_size=200)
    assert abs(found.mean) < 4 * found.std / np.sqrt(100 / 4)  # the subsets overlap


def test_cmmd_against_float64():
    x, y = normal(0, 300, 12), normal(1, 200, 12) + 0.2
    x, y = (z / np.linalg.norm(z, axis=1, keepdims=True) for z in (x, y))

    def mean(a, b):
        return np.exp(-(distances(a, b) ** 2) / 200).mean()

    expected = 1000 * (mean(x, x) + mean(y, y) - 2 * mean(x, y))
    assert metrics.cmmd(x, y) == pytest.approx(expected, rel=1e-4)


# Neighbours


@pytest.mark.parametrize("pairs", [1, 1000, 2**26])
def test_neighbours_by_brute_force_in_blocks_of_any_size(pairs, monkeypatch):
    monkeypatch.setattr(blocks.in_blocks, "__kwdefaults__", {"pairs": pairs})
    jax.clear_caches()
    q, r = normal(0, 37, 5) + 10.0, normal(1, 53, 5) + 10.0
    found, index = metrics.nearest(q, r, 4)
    truth = distances(q, r)
    np.testing.assert_allclose(found, np.sort(truth, axis=1)[:, :4], rtol=1e-4)
    assert (index == np.argsort(truth, axis=1)[:, :4]).all()


def radii(x, k):
    return np.sort(distances(x, x), axis=1)[:, k]


@pytest.mark.parametrize("k", [1, 3, 5])
def test_precision_recall_density_coverage_by_brute_force(k):
    r, f = normal(0, 150, 4), normal(1, 120, 4) * 0.7 + 0.3
    d = distances(f, r)
    in_real, in_fake = d <= radii(r, k), radii(f, k) >= d.T
    assert metrics.precision_recall(r, f, k=k) == pytest.approx((in_real.any(1).mean(), in_fake.any(1).mean()))
    expected = in_real.sum() / (k * len(f)), (d.min(0) <= radii(r, k)).mean()
    assert metrics.density_coverage(r, f, k=k) == pytest.approx(expected)


def test_a_point_on_the_surface_of_a_ball_is_inside():
    """The paper's manifold (arXiv:1904.06991, equation 1) includes every point that is at most a radius away."""
    real = np.array([[0.0], [2.0], [4.0], [6.0]], np.float32)  # radii of 2: of the fakes, only 8 is in a ball
    fake = np.array([[8.0], [12.0]], np.float32)  # radii of 4: the ball around 8 has the reals 4 and 6
    assert metrics.precision_recall(real, fake, k=1) == (1 / 2, 2 / 4)
    assert metrics.density_coverage(real, fake, k=1) == (1 / 2, 1 / 4)


def test_a_set_and_its_copy_cover_each_other():
    x = normal(0, 100, 3)
    assert metrics.precision_recall(x, x.copy()) == (1.0, 1.0)
    assert metrics.density_coverage(x, x.copy()).coverage == 1.0
    assert metrics.precision_recall(x, x + 100.0) == (0.0, 0.0)
    twice = np.concatenate([x, x])  # each point's neighbour is its copy, at distance 0
    assert metrics.density_coverage(twice, x, k=1).coverage == 1.0


def adversarial(draw_from, count, centers, std, copies):
    """Clusters, one point far away, and copies of some points."""
    points = centers[draw_from.integers(len(centers), size=count)] + std * draw_from.normal(
        size=(count, centers.shape[1])
    )
    points[0] *= 10.0 ** draw_from.integers(0, 7)
    points[count - copies :] = points[1 : 1 + copies]
    return points


@hypothesis.given(
    seed=st.integers(0, 2**32 - 1),
    spread=st.integers(0, 6),
    std=st.integers(-6, 0),
    offset=st.sampled_from([0.0, 1e2, 1e5]),
    copies=st.sampled_from([0, 3, 12]),
    dtype=st.sampled_from([np.float16, np.float32, np.float64]),
    x64=st.booleans(),
)
@hypothesis.settings(max_examples=40, deadline=None)
def test_metrics_are_those_of_float64(seed, spread, std, offset, copies, dtype, x64):
    """Whatever cancels in float32: clusters far apart, points far away, copies, offsets, ties at a ball's surface."""
    rng = np.random.default_rng(seed)
    limit = 6e4 if dtype == np.float16 else 1e30
    centers = offset + 10.0**spread * rng.normal(size=(rng.integers(1, 4), 3))
    real, fake = (
        np.clip(adversarial(rng, n, centers, 10.0**std, copies), -limit, limit).astype(dtype) for n in (40, 30)
    )
    real[:3] = fake[:3]

    def squared(a, b):
        return ((a[:, None].astype(np.float64) - b.astype(np.float64)) ** 2).sum(-1)

    within, across, k = (squared(real, real), squared(fake, fake)), squared(fake, real), 3
    balls = [np.sort(x, axis=1)[:, k] for x in within]
    expected = (across <= balls[0]).any(1).mean(), (balls[1] >= across.T).any(1).mean()
    with jax.enable_x64(x64):
        assert metrics.precision_recall(real, fake, k=k) == expected
        truth = ((across <= balls[0]).sum() / (k * len(fake)), (across.min(0) <= balls[0]).mean())
        assert metrics.density_coverage(real, fake, k=k) == truth
        np.testing.assert_array_equal(metrics.nearest(fake, real, 4)[0], np.sqrt(np.sort(across, axis=1)[:, :4]))
        sigma = 10.0**spread
        kernels = [np.expm1(-x / (2 * sigma**2)).mean() for x in (*within, across)]
        assert metrics.cmmd(real, fake, sigma=sigma) == pytest.approx(
            1000 * (kernels[0] + kernels[1] - 2 * kernels[2]), abs=1e-3
        )


@pytest.mark.parametrize("ground", [0.9, -1000.0])
def test_ssim_of_flat_images_is_that_of_float64(ground):
    """Their variances are small beside the squares of their values."""
    x, y = (ground + 1e-3 * np.random.default_rng(seed).normal(size=(2, 16, 16, 1)) for seed in (0, 1))
    x, y = x.astype(np.float32), y.astype(np.float32)
    with jax.enable_x64(True):
        expected = np.asarray(metrics.ssim(jnp.asarray(x, np.float64), jnp.asarray(y, np.float64)))
    np.testing.assert_allclose(metrics.ssim(jnp.asarray(x), jnp.asarray(y)), expected, atol=1e-5)


def test_numbers_beyond_the_squares_of_float32():
    """Their squares overflow, or vanish."""
    for scale in (1e-30, 1e-21, 1e25):
        r, f = normal(0, 50, 3), normal(1, 40, 3)
        assert metrics.density_coverage(r * scale, f * scale) == metrics.density_coverage(
            (r * scale).astype(np.float64), (f * scale).astype(np.float64)
        )
        assert metrics.precision_recall(r * scale, f * scale).recall == pytest.approx(
            metrics.precision_recall(r, f).recall, abs=0.05
        )


@pytest.mark.parametrize("devices", [8])
def test_values_are_those_of_one_device_on_eight(devices):
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:devices]), ("data",))
    rows = NamedSharding(mesh, PartitionSpec("data"))
    r, f = normal(0, 160, 6), normal(1, 160, 6) + 0.1
    there = jax.device_put(r, rows), jax.device_put(f, rows)
    assert metrics.precision_recall(*there) == metrics.precision_recall(r, f)
    assert metrics.density_coverage(*there) == metrics.density_coverage(r, f)
    assert metrics.cmmd(*there) == pytest.approx(metrics.cmmd(r, f), rel=1e-6)


# Inception score, sliced Wasserstein, modes


def test_inception_score_by_hand():
    logits = normal(0, 103, 7) * 3
    p = np.exp(logits.astype(np.float64))
    p /= p.sum(1, keepdims=True)
    scores = []
    for part in np.array_split(p, 10):
        kl = (part * (np.log(part) - np.log(part.mean(0)))).sum(1)
        scores.append(np.exp(kl.mean()))
    assert metrics.inception_score(logits) == pytest.approx((np.mean(scores), np.std(scores)))
    assert metrics.inception_score(logits + 1000.0).mean == pytest.approx(np.mean(scores), rel=1e-4)


def test_inception_score_of_one_sure_class_and_of_all():
    sure = np.where(np.eye(10, dtype=bool), 0.0, -1e9)
    assert metrics.inception_score(np.repeat(sure, 10, 0)[np.arange(100) * 37 % 100]).mean > 7
    assert metrics.inception_score(np.tile(sure[0], (50, 1))).mean == pytest.approx(1)


def test_sliced_wasserstein_in_one_dimension():
    x, y = np.array([[0.0], [1.0], [5.0]]), np.array([[2.0], [3.0]])
    # differences of the quantile functions over (0, 1): 0-2 up to 1/3, 1-2 up to 1/2, 1-3 up to 2/3, 5-3 up to 1
    for order in (1.0, 2.0, 3.0):
        expected = (2**order / 3 + 1 / 6 + 2**order / 6 + 2**order / 3) ** (1 / order)
        assert metrics.sliced_wasserstein(x, y, projections=2, order=order) == pytest.approx(expected)


def test_sliced_wasserstein_of_a_shift():
    x = normal(0, 500, 3, float)
    # E (u . v)^2 = |v|^2 / d for random unit vectors u
    found = metrics.sliced_wasserstein(x, x + np.array([3.0, 0, 0]), projections=4000)
    assert found == pytest.approx(3 / np.sqrt(3), rel=0.03)
    assert metrics.sliced_wasserstein(x, np.repeat(x, 2, axis=0)) == pytest.approx(0, abs=1e-7)


def test_mode_coverage():
    everything = np.arange(1000).repeat(26)
    assert metrics.mode_coverage(everything, 1000) == (1000, pytest.approx(0, abs=1e-12))
    assert metrics.mode_coverage(np.zeros(50, int), 1000) == (1, pytest.approx(np.log(1000)))
    reference = np.array([0.5, 0.25, 0.25])
    half = metrics.mode_coverage(np.array([0, 1]), 3, reference)
    assert half == (2, pytest.approx(0.5 * np.log(1.0) + 0.5 * np.log(2.0)))
    assert metrics.mode_coverage(np.array([0, 1]), 2, np.array([1.0, 0.0])).kl == np.inf


def test_mode_coverage_of_the_reference_itself_has_the_bias_that_is_said():
    predictions = np.random.default_rng(0).integers(0, 1000, 26_000)
    assert metrics.mode_coverage(predictions, 1000).kl == pytest.approx(999 / 52_000, rel=0.1)


def test_mixture_coverage():
    means = np.array([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
    samples = np.array([[0.0, 2.9], [0.0, 3.1], [10.0, 1.0], [9.0, 0.0]])
    found = metrics.mixture_coverage(samples, means, 1.0)
    within = 1 - np.exp(-4.5)  # three standard deviations in the plane
    js = scipy.spatial.distance.jensenshannon([1, 2, 0, 1], [within / 3, within / 3, within / 3, 1 - within]) ** 2
    kl = np.log(3) + (1 / 3) * np.log(1 / 3) + (2 / 3) * np.log(2 / 3)
    assert found == (2, pytest.approx(kl), 0.75, pytest.approx(js, rel=1e-6))
    nothing = metrics.mixture_coverage(samples + 100, means, 1.0)
    assert nothing.modes == 0 and nothing.high_quality == 0 and np.isnan(nothing.kl) and 0.6 < nothing.js < np.log(2)


def test_the_divergence_of_a_mixture_is_least_for_the_mixture():
    """A single mode fools the share of good samples, and points everywhere fool the divergence over modes."""
    random, ring = np.random.default_rng(0), data.ring()
    drawn = ring.centers[random.integers(0, 8, 4000)] + ring.std * random.normal(size=(4000, 2))
    one, everywhere = ring.centers[:1], random.uniform(-1.2, 1.2, (20_000, 2))
    itself, collapsed, spread = (metrics.mixture_coverage(x, ring.centers, ring.std) for x in (drawn, one, everywhere))
    assert collapsed.high_quality > itself.high_quality and spread.kl < 0.05
    assert min(collapsed.js, spread.js) > 0.3
    parts = drawn.reshape(10, 400, 2)
    own = np.mean([metrics.mixture_coverage(part, ring.centers, ring.std).js for part in parts])
    assert own == pytest.approx(8 / (8 * 400), rel=0.5) and itself.js < own


# Refusals


def test_bad_features_are_refused():
    good, bad = normal(0, 20, 4), normal(0, 20, 4)
    bad[3, 2] = np.nan
    for call in (
        lambda: metrics.moments(bad),
        lambda: metrics.cmmd(good, bad),
        lambda: metrics.precision_recall(good, bad),
        lambda: metrics.kernel_distance(bad, good, subset_size=10),
        lambda: metrics.sliced_wasserstein(good, bad),
        lambda: metrics.inception_score(bad),
    ):
        with pytest.raises(InvalidInputError, match="not finite"):
            call()
    with pytest.raises(InvalidInputError, match="the same number of features"):
        metrics.precision_recall(good, good[:, :3])
    with pytest.raises(InvalidInputError, match="3 samples: expected 4 or more"):
        metrics.precision_recall(good, good[:3])
    with pytest.raises(InvalidInputError, match="subset_size=1000, of 20 samples"):
        metrics.kernel_distance(good, good)
    with pytest.raises(InvalidInputError, match="smallest=5000 of 20 samples"):
        metrics.frechet_infinity(metrics.moments(good), good)
    with pytest.raises(InvalidInputError, match="4 and 3 features"):
        metrics.frechet_distance(metrics.moments(good), metrics.moments(good[:, :3]))
    with pytest.raises(InvalidInputError, match="n_modes - 1 = 9"):
        metrics.mode_coverage(np.array([10]), 10)
    with pytest.raises(InvalidInputError, match="splits=10 of 4"):
        metrics.inception_score(good[:4])


def test_half_and_double_precision_are_welcome():
    """A sum over features must not overflow, as half precision would at 65,504. Doubles narrow without a warning."""
    real, fake = (np.abs(normal(seed, 40, 512)) for seed in (0, 1))
    expected = metrics.precision_recall(real, fake, k=3), metrics.frechet_distance(*map(metrics.moments, (real, fake)))
    for dtype in (np.float16, np.float64):
        a, b = real.astype(dtype) * 128, fake.astype(dtype) * 128
        assert metrics.precision_recall(a, b, k=3) == pytest.approx(expected[0], abs=0.03)
        distance = metrics.frechet_distance(*map(metrics.moments, (a, b)))
        assert distance == pytest.approx(expected[1] * 128**2, rel=1e-3)


def test_directions_by_blocks():
    real, fake = normal(0, 30, 4), normal(1, 20, 4)
    random = np.random.default_rng(0)
    total = 0.0
    for _ in range(100):
        direction = random.normal(size=4)
        direction /= np.linalg.norm(direction)
        total += (
            metrics.sliced_wasserstein((real @ direction)[:, None], (fake @ direction)[:, None], projections=1) ** 2
        )
    assert metrics.sliced_wasserstein(real, fake, projections=100) == pytest.approx((total / 100) ** 0.5, rel=1e-6)


def test_ordinary_features_are_decided_on_the_devices(monkeypatch):
    """Few of their rows take float64, which would be slow for 50,000."""
    rows, centered = [], exact._centered
    monkeypatch.setattr(exact, "_centered", lambda x, y: rows.append(len(x)) or centered(x, y))
    features = [np.maximum(normal(seed, 400, 512) + normal(9, 1, 512), 0) for seed in (0, 1)]
    metrics.precision_recall(*features)
    metrics.cmmd(*(x / np.linalg.norm(x, axis=1, keepdims=True) for x in features))
    assert sum(rows) < 0.05 * 400 * 7  # of two searches of neighbours, two counts and three means


def test_linear_probe():
    """Against the best accuracy for two normal clouds, and for features without information."""
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, 4000)
    clouds = random.normal(size=(4000, 2, 3)) + 2.0 * labels[:, None, None] * np.array([1.0, 0.0, 0.0])
    half = slice(0, 2000), slice(2000, 4000)
    found = metrics.linear_probe(clouds[half[0]], labels[half[0]], clouds[half[1]], labels[half[1]])
    assert abs(found - 0.9214) < 0.02  # Phi(sqrt(2)): the means are 2 sqrt(2) apart
    noise = random.normal(size=(4000, 5))
    blind = metrics.linear_probe(noise[half[0]], labels[half[0]], noise[half[1]], labels[half[1]])
    assert abs(blind - 0.5) < 0.05
    constant = metrics.linear_probe(np.ones((4, 2)), labels[:4], np.ones((4, 2)), labels[:4])
    assert 0.0 <= constant <= 1.0
    with pytest.raises(InvalidInputError, match="one label for each"):
        metrics.linear_probe(noise, labels[:-1], noise, labels)
