"""Statistics against independent computations, and their false alarms."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.spatial.distance import cdist, pdist

from newshelf.evaluation.distribution_shift import calibration_error, mmd, psi


def test_mmd_equals_the_definition():
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(30, 5)), rng.normal(0.5, 1, size=(40, 5))
    scale = np.median(pdist(np.concatenate([x, y]), "sqeuclidean"))

    def kernel(a, b):
        return np.exp(-cdist(a, b, "sqeuclidean") / scale)

    def within(a):
        return (kernel(a, a).sum() - len(a)) / (len(a) * (len(a) - 1))

    expected = within(x) + within(y) - 2 * kernel(x, y).mean()
    found = mmd(x.astype(np.float32), y.astype(np.float32))
    assert found.size == pytest.approx(expected, rel=1e-5)
    assert found.p_value < 0.01


def test_mmd_of_equal_distributions_is_about_0_and_not_significant():
    p_values = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        found = mmd(*(rng.normal(size=(n, 8)).astype(np.float32) for n in (120, 60)), seed=seed)
        assert abs(found.size) < 0.05
        p_values.append(found.p_value)
    assert np.mean(np.array(p_values) < 0.05) <= 0.15


def test_mmd_of_identical_rows_is_0():
    same = np.ones((20, 4), dtype=np.float32)
    found = mmd(same, same)
    assert found.size == pytest.approx(0, abs=1e-9)
    assert found.p_value == 1


def test_psi_equals_a_worked_example():
    # 50/30/20 % became 40/30/30 %: .1·ln(.5/.4) + .1·ln(.3/.2)
    found = psi(np.array([50_000, 30_000, 20_000]), np.array([40_000, 30_000, 30_000]))
    assert found.size == pytest.approx(0.1 * math.log(1.25) + 0.1 * math.log(1.5), rel=1e-3)
    assert found.p_value < 1e-9


def test_psi_of_one_bin_is_none_and_an_empty_bin_is_finite():
    assert psi(np.array([7]), np.array([3])) == (0.0, 1.0)
    assert math.isfinite(psi(np.array([10, 0]), np.array([0, 10])).size)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(0, 500), min_size=2, max_size=12).filter(sum),
    st.lists(st.integers(0, 500), min_size=12, max_size=12).filter(lambda one: sum(one[:2])),
)
def test_psi_is_never_negative_and_symmetric(before, now):
    one, other = np.array(before), np.array(now[: len(before)])
    assert psi(one, other).size >= 0
    assert psi(one, other).size == pytest.approx(psi(other, one).size)
    assert psi(one, one).size == pytest.approx(0)


def test_psi_raises_few_false_alarms():
    p_values = []
    for seed in range(300):
        rng = np.random.default_rng(seed)
        shares = rng.dirichlet(np.full(11, 2.0))
        p_values.append(psi(rng.multinomial(1300, shares), rng.multinomial(100, shares)).p_value)
    assert np.mean(np.array(p_values) < 0.05) <= 0.07
    assert np.mean(np.array(p_values) < 0.01) <= 0.02


def test_psi_of_dependent_values_counts_their_draws():
    before, now = np.array([300, 700]), np.array([400, 600])
    free, bound = psi(before, now), psi(before, now, draws=(30, 30))
    assert free.size == bound.size
    assert free.p_value < 0.001
    assert bound.p_value == pytest.approx(stats.chi2.sf(bound.size * 15, 1))


def clicks(rng, scores, scale=1.0):
    return rng.random(len(scores)) < scale * 0.1 / (1 + np.exp(-scores))


def test_calibration_error_is_the_definition():
    old_scores, new_scores = np.array([0.0, 0, 1, 1]), np.array([0.0, 0, 0, 1])
    found = calibration_error(
        (old_scores, np.array([True, False, True, True])),
        (new_scores, np.array([False, False, True, False])),
        bins=2,
    )
    # Rates before: 1/2 and 1; now: 1/3 and 0. Mean rate before: 3/4.
    assert found.size == pytest.approx((3 / 4 * (1 / 2 - 1 / 3) + 1 / 4 * 1) / (3 / 4))


def test_calibration_drifts_when_clicks_halve_and_not_otherwise():
    found = []
    for scale in (1.0, 0.4):
        for seed in range(40):
            rng = np.random.default_rng(seed)
            old, new = rng.normal(size=20_000), rng.normal(size=15_000)
            before, now = (old, clicks(rng, old)), (new, clicks(rng, new, scale))
            found.append(calibration_error(before, now))
    same, halved = found[:40], found[40:]
    assert np.mean([one.p_value < 0.05 for one in same]) <= 0.15
    assert all(one.size < 0.3 for one in same)
    assert all(one.size > 0.4 and one.p_value < 1e-4 for one in halved)
