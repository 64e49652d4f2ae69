"""Intervals and tests, against closed forms, simulation and scipy."""

import numpy as np
import pytest
from scipy import stats

from newshelf.evaluation.metrics import coverage
from newshelf.evaluation.significance import (
    case_groups,
    draws,
    exposure_interval,
    mean_intervals,
    paired_test,
)
from newshelf.evaluation.types import Case

ONE = np.array([0])


def test_cases_without_a_group_are_groups_of_their_own():
    given = [7, None, 3, 7, None]
    groups = case_groups([Case(ONE, ONE + 1, group) for group in given])
    assert groups.tolist() == [1, 2, 0, 1, 3]


def test_the_interval_of_independent_cases_is_that_of_the_normal_theory():
    values = np.random.default_rng(0).normal(5, 2, size=400)
    ((low, high),) = mean_intervals(values[None, :], np.arange(400))
    error = values.std(ddof=1) / np.sqrt(400)
    assert low == pytest.approx(values.mean() - 1.96 * error, abs=0.15 * error * 1.96)
    assert high == pytest.approx(values.mean() + 1.96 * error, abs=0.15 * error * 1.96)


def test_cases_of_one_group_count_as_one():
    few = np.random.default_rng(1).random(40)
    ((low, high),) = mean_intervals(few[None, :], np.arange(40))
    copied = mean_intervals(np.repeat(few, 10)[None, :], np.repeat(np.arange(40), 10))
    assert copied[0] == pytest.approx((low, high))
    ((low_10, high_10),) = mean_intervals(np.repeat(few, 10)[None, :], np.arange(400))
    assert high_10 - low_10 < 0.5 * (high - low)


def test_cluster_intervals_cover_the_truth_as_often_as_they_say():
    generator = np.random.default_rng(2)
    covering = 0
    groups = np.repeat(np.arange(40), 5)
    for _ in range(200):
        values = generator.normal(size=40)[groups] + generator.normal(size=200)
        ((low, high),) = mean_intervals(values[None, :], groups)
        covering += low <= 0 <= high
    assert 178 <= covering <= 200  # 95 % of 200, 4 standard errors down


def test_groups_of_unequal_size_weigh_by_their_cases():
    values = np.array([0.0, *[1.0] * 9, *[0.0] * 10])
    groups = np.array([0] * 10 + list(range(1, 11)))
    ((low, high),) = mean_intervals(values[None, :], groups)
    assert low == 0
    assert high > values.mean()


def test_few_groups_have_no_interval():
    assert mean_intervals(np.ones((1, 12)), np.repeat(np.arange(4), 3)) is None
    top = np.zeros((4, 1), dtype=np.int64)
    assert exposure_interval(top, np.arange(4), np.ones(3, dtype=bool), coverage) is None


def test_draws_are_shared_and_cannot_be_changed():
    assert draws(6) is draws(6)
    assert (draws(6).sum(axis=1) == 6).all()
    with pytest.raises(ValueError, match="read-only"):
        draws(6)[0, 0] = 9


def test_the_jackknife_of_a_share_is_its_standard_error():
    # Which of two items each list shows: with 50 blocks of equal size, the textbook's error.
    generator = np.random.default_rng(3)
    top = (generator.random(1000) < 0.3).astype(np.int64)[:, None]

    def share(shown):
        return float(shown[1] / shown.sum())

    low, high = exposure_interval(top, np.arange(1000), np.ones(2, dtype=bool), share)
    p = top.mean()
    assert (low + high) / 2 == pytest.approx(p)
    expected = 2 * stats.t.ppf(0.975, 49) * np.sqrt(p * (1 - p) / 1000)
    assert high - low == pytest.approx(expected, rel=0.3)


def test_the_interval_of_coverage_holds_its_value():
    # A bootstrap's would lie below it.
    top = np.random.default_rng(4).integers(0, 300, size=(200, 2))
    low, high = exposure_interval(top, np.arange(200), np.ones(300, dtype=bool), coverage)
    assert low < len(np.unique(top)) / 300 < high


def test_the_p_value_equals_that_of_scipys_permutation_test():
    generator = np.random.default_rng(5)
    first, second = generator.normal(0.3, 1, 12), generator.normal(0, 1, 12)
    exact = stats.permutation_test(
        (first, second),
        lambda a, b: np.mean(a - b),
        permutation_type="samples",
        n_resamples=np.inf,
    )
    found = paired_test(first, second, np.arange(12))
    assert found.p_value == pytest.approx(exact.pvalue, abs=0.02)
    assert found.difference == pytest.approx((first - second).mean())


def test_cases_of_one_group_change_sign_together():
    gain = np.random.default_rng(6).normal(0.5, 1, 10)
    alone = paired_test(gain, np.zeros(10), np.arange(10))
    copies = paired_test(np.repeat(gain, 50), np.zeros(500), np.repeat(np.arange(10), 50))
    blind = paired_test(np.repeat(gain, 50), np.zeros(500), np.arange(500))
    assert copies.p_value == pytest.approx(alone.p_value)
    assert blind.p_value < 0.1 * alone.p_value


@pytest.mark.parametrize(("sign", "verdict"), [(1, "better"), (-1, "worse")])
def test_a_clear_difference_has_a_verdict(sign, verdict):
    base = np.random.default_rng(7).random(100)
    found = paired_test(base + 0.2 * sign, base, np.arange(100))
    assert (found.verdict, found.p_value) == (verdict, pytest.approx(1 / 10_001))
    assert found.interval == pytest.approx((0.2 * sign, 0.2 * sign))


def test_equal_models_are_never_told_apart():
    same = np.random.default_rng(8).random(50).astype(np.float32)
    found = paired_test(same, same, np.arange(50))
    assert (found.p_value, found.verdict, found.interval) == (1.0, "not told apart", (0.0, 0.0))


def test_false_alarms_are_as_rare_as_promised():
    generator = np.random.default_rng(9)
    alarms = sum(
        paired_test(*generator.random((2, 30)), np.arange(30), permutations=200).p_value < 0.05
        for _ in range(300)
    )
    assert alarms <= 30  # 5 % of 300 is 15; 4 standard errors above


def test_lengths_that_differ_are_refused():
    with pytest.raises(ValueError, match="3 and 2 cases"):
        paired_test(np.ones(3), np.ones(2), np.arange(3))
