"""Selection of samples from known densities, for which the correct result is known."""

import numpy as np
import pytest

from gan_jax import eval as evals
from gan_jax.types import InvalidInputError

# Reals are N(1, 1), fakes N(0, 1), so log(p / q) = x - 1/2.
RANDOM = np.random.default_rng(0)
FAKES = RANDOM.normal(size=40_000)
REALS = RANDOM.normal(size=40_000) + 1.0


def logits(x):
    return x - 0.5


def test_calibration_finds_the_ratio_behind_any_slope_and_shift():
    fitted = evals.calibrate(3.0 * logits(REALS) + 7.0, 3.0 * logits(FAKES[:5000]) + 7.0)
    x = np.linspace(-3, 3, 7)
    np.testing.assert_allclose(fitted(3.0 * logits(x) + 7.0), logits(x), atol=0.12)


def test_calibration_of_separated_logits_is_refused():
    with pytest.raises(InvalidInputError, match="separated by a threshold"):
        evals.calibrate(np.arange(10.0) + 5.0, -np.arange(10.0))


def test_rejection_moves_samples_to_the_reals_and_a_lower_percentile_keeps_more():
    strict = evals.reject(logits(FAKES), percentile=99.0)
    mild = evals.reject(logits(FAKES), percentile=50.0)
    assert strict.rate < mild.rate and 0 < strict.rate < 0.2
    assert FAKES[strict.indices].mean() == pytest.approx(1.0, abs=0.15)
    assert 0 < FAKES[mild.indices].mean() < FAKES[strict.indices].mean()
    assert strict.indices.min() >= 1000
    assert (evals.reject(logits(FAKES), percentile=99.0).indices == strict.indices).all()


def test_metropolis_hastings_ends_at_the_reals():
    proposals = FAKES.reshape(1000, 40)
    chosen = evals.metropolis_hastings(logits(proposals), logits(REALS[:1000]))
    x = FAKES[chosen.indices]
    assert x.mean() == pytest.approx(1.0, abs=0.15) and x.std() == pytest.approx(1.0, abs=0.1)
    assert 0.2 < chosen.rate < 0.8
    assert (chosen.indices // 40 == np.arange(1000)).all()


def test_a_chain_that_never_moves_gives_its_first_proposal():
    chosen = evals.metropolis_hastings(np.full((2, 3), -1e9), np.zeros(2))
    assert chosen.indices.tolist() == [0, 3] and chosen.rate == 0


def test_top():
    chosen = evals.top(FAKES, 0.1)
    assert len(chosen.indices) == 4000 and (np.diff(chosen.indices) > 0).all()
    assert FAKES[chosen.indices].min() >= np.quantile(FAKES, 0.9) - 1e-3
    for share in (0.0, 1.1):
        with pytest.raises(InvalidInputError, match="share="):
            evals.top(FAKES, share)
    with pytest.raises(InvalidInputError, match="burn_in=1000 of 5"):
        evals.reject(FAKES[:5])
    with pytest.raises(InvalidInputError, match="chains"):
        evals.metropolis_hastings(np.zeros((2, 3)), np.zeros(3))


def test_values_that_are_not_finite_are_refused():
    good, bad = np.zeros(4), np.array([0.0, np.nan, 0.0, 0.0])
    for call in (
        lambda: evals.calibrate(good, bad),
        lambda: evals.calibrate(good[:0], good),
        lambda: evals.reject(bad, burn_in=1),
        lambda: evals.metropolis_hastings(good[None], bad[:1] + np.nan),
    ):
        with pytest.raises(InvalidInputError, match="expected 1 or more, all finite"):
            call()
