"""Variances against naive loops, published formulae, and what resampling says."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from newshelf.rollout.metric_results import measure_all
from newshelf.rollout.metrics import (
    LEAST_ACTIVE_UNITS,
    METRICS,
    Sample,
    adjusted_ratios,
    cap_of,
    compare,
    log_lift,
    preference,
    ratio_variance,
    relative,
)
from newshelf.store.records import UnitTotals
from tests.unit.rollout.conftest import observation, plan, totals

EMPTY = np.empty((0, 0))


def growthbook_ratio_variance(top: np.ndarray, bottom: np.ndarray) -> float:
    """GrowthBook's RatioStatistic, from sums, as its documentation writes it."""
    n = len(top)
    mean_m, mean_d = top.sum() / n, bottom.sum() / n
    var_m = ((top**2).sum() - top.sum() ** 2 / n) / (n - 1)
    var_d = ((bottom**2).sum() - bottom.sum() ** 2 / n) / (n - 1)
    cov = ((top * bottom).sum() - top.sum() * bottom.sum() / n) / (n - 1)
    return (var_m / mean_d**2 - 2 * mean_m / mean_d**3 * cov + mean_m**2 / mean_d**4 * var_d) / n


def sample(seed: int, covariates: int = 0, units: int = 500) -> Sample:
    random = np.random.default_rng(seed)
    bottom = 1.0 + random.poisson(2, units)
    top = random.binomial(bottom.astype(int), 0.3).astype(float)
    noise = random.normal(size=(units, covariates))
    return Sample(top, bottom, top[:, None] + noise if covariates else np.empty((units, 0)))


def test_the_variance_of_a_ratio_is_growthbooks() -> None:
    one = sample(3)
    moments = np.cov(one.top, one.bottom)
    ours = ratio_variance(
        one.top.mean(), one.bottom.mean(), moments[0, 0], moments[1, 1], moments[0, 1]
    )
    assert ours / 500 == pytest.approx(growthbook_ratio_variance(one.top, one.bottom))


def test_without_covariates_the_linear_form_is_the_delta_method() -> None:
    samples = sample(3), sample(4)
    for one, (ratio, variance) in zip(samples, adjusted_ratios(*samples), strict=True):
        assert ratio == pytest.approx(one.top.sum() / one.bottom.sum())
        assert variance == pytest.approx(growthbook_ratio_variance(one.top, one.bottom))


def test_units_not_products_are_what_is_resampled() -> None:
    """The bootstrap over units agrees; a binomial over products would be far too sure."""
    shoppers = totals(3000, seed=8)
    (ratio, variance), _ = adjusted_ratios(
        *[Sample(shoppers.clicks, shoppers.shown, np.empty((3000, 0)))] * 2
    )
    random = np.random.default_rng(0)
    drawn = random.integers(0, 3000, (2000, 3000))
    resampled = shoppers.clicks[drawn].sum(axis=1) / shoppers.shown[drawn].sum(axis=1)
    assert math.sqrt(variance) == pytest.approx(resampled.std(), rel=0.06)
    assert variance > 1.5 * ratio * (1 - ratio) / shoppers.shown.sum()


def test_the_variance_of_the_log_is_growthbooks_of_the_lift_at_another_scale() -> None:
    a, a_var, b, b_var = 0.2, 0.0004, 0.25, 0.0009
    log, variance = log_lift(a, a_var, b, b_var)
    growthbook = b_var / a**2 + a_var * b**2 / a**4
    assert math.expm1(log) == pytest.approx(0.25)
    assert variance * (b / a) ** 2 == pytest.approx(growthbook)


def test_the_log_treats_both_variants_alike() -> None:
    there, back = log_lift(0.2, 0.0004, 0.25, 0.0009), log_lift(0.25, 0.0009, 0.2, 0.0004)
    assert there[0] == pytest.approx(-back[0])
    assert there[1] == pytest.approx(back[1])


def test_cuped_is_the_textbook_s_for_one_covariate_and_a_mean() -> None:
    """θ = cov(y, x)/var(x) within variants; y - θ(x - mean x): Deng et al. 2013, eq. 4."""
    random = np.random.default_rng(2)
    x = [random.normal(size=400), random.normal(size=600)]
    y = [2 + x[0] + random.normal(size=400), 3 + x[1] + random.normal(size=600)]
    centred_x = np.concatenate([one - one.mean() for one in x])
    centred_y = np.concatenate([one - one.mean() for one in y])
    theta = (centred_x * centred_y).sum() / (centred_x**2).sum()
    grand = np.concatenate(x).mean()
    found = adjusted_ratios(
        *[Sample(b, np.ones(len(b)), a[:, None]) for a, b in zip(x, y, strict=True)]
    )
    # A mean's linear form is in its own unit: the denominator is 1 everywhere.
    for a, b, (value, variance) in zip(x, y, found, strict=True):
        naive = [b_i - theta * (a_i - grand) for a_i, b_i in zip(a, b, strict=True)]
        assert value == pytest.approx(np.mean(naive))
        assert variance == pytest.approx(np.var(naive, ddof=1) / len(naive))


def test_cuped_narrows_the_interval_and_keeps_the_truth() -> None:
    """Over many draws: unbiased, spread as it says, and steadier than without."""
    plain, adjusted, said = [], [], []
    for seed in range(300):
        samples = [sample(2 * seed + side, 1, units=200) for side in (0, 1)]
        bare = [Sample(one.top, one.bottom, np.empty((200, 0))) for one in samples]
        (a, _), (b, _) = adjusted_ratios(*bare)
        plain.append(b - a)
        (a, a_var), (b, b_var) = adjusted_ratios(*samples)
        adjusted.append(b - a)
        said.append(a_var + b_var)
    assert abs(np.mean(adjusted)) < 4 * np.std(adjusted) / math.sqrt(300)
    assert np.std(adjusted) == pytest.approx(math.sqrt(np.mean(said)), rel=0.15)
    assert np.std(adjusted) < 0.9 * np.std(plain)


def test_covariates_that_say_nothing_change_nothing() -> None:
    samples = sample(3), sample(4)
    constant = [Sample(one.top, one.bottom, np.full((500, 2), 7.0)) for one in samples]
    assert adjusted_ratios(*constant) == pytest.approx(adjusted_ratios(*samples))


def test_covariates_of_different_magnitude_are_all_used() -> None:
    samples = [sample(seed, 2) for seed in (3, 4)]
    scaled = [Sample(one.top, one.bottom, one.before * [1e-9, 1e9]) for one in samples]
    found, expected = adjusted_ratios(*scaled), adjusted_ratios(*samples)
    assert np.ravel(found) == pytest.approx(np.ravel(expected), rel=1e-6)


@pytest.mark.parametrize("name", METRICS)
def test_each_metric_against_a_naive_loop(name: str) -> None:
    control, challenger = totals(seed=5), totals(seed=6, ctr=0.12)
    columns = {
        "ctr": ("clicks", "shown"),
        "cvr": ("purchases", "requests"),
        "revenue_per_unit": ("revenue", None),
        "ndcg": ("ndcg", "ndcg_requests"),
    }[name]
    naive = []
    for side in (control, challenger):
        top = bottom = 0.0
        for unit in range(len(side)):
            top += getattr(side, columns[0])[unit]
            bottom += 1 if columns[1] is None else getattr(side, columns[1])[unit]
        naive.append(top / bottom)
    lift = compare(METRICS[name], control, challenger)
    assert lift is not None
    assert (lift.control, lift.challenger) == pytest.approx(naive)
    assert relative(lift.value) == pytest.approx(naive[1] / naive[0] - 1)


def test_what_shoppers_did_before_makes_the_click_through_rate_steadier() -> None:
    known = [totals(seed=seed, before=True) for seed in (1, 2)]
    unknown = [totals(seed=seed) for seed in (1, 2)]
    ctr = METRICS["ctr"]
    with_it, without = compare(ctr, *known), compare(ctr, *unknown)
    assert with_it is not None
    assert without is not None
    assert with_it.variance < 0.9 * without.variance


def test_nothing_is_said_of_a_handful_of_units() -> None:
    few = np.zeros(2000)
    few[: LEAST_ACTIVE_UNITS - 1] = 1
    assert compare(METRICS["ctr"], totals(clicks=few), totals()) is None
    few[LEAST_ACTIVE_UNITS] = 1
    assert compare(METRICS["ctr"], totals(clicks=few), totals()) is not None


def test_equal_units_without_spread_say_nothing() -> None:
    same = {"clicks": np.ones(100), "shown": np.ones(100)}
    assert compare(METRICS["ctr"], totals(100, **same), totals(100, **same)) is None


def test_cuped_leaves_a_mean_alone_that_it_would_take_to_nothing() -> None:
    """Shoppers who bought before happen to be in one variant: the shift is as large as the mean."""
    random = np.random.default_rng(4)
    spent = [random.lognormal(3, 1, 60) * (np.arange(60) < buyers) for buyers in (40, 45)]
    before = [spent[0][:, None], 60 + spent[1][:, None]]
    samples = [Sample(y, np.ones(60), x) for y, x in zip(spent, before, strict=True)]
    bare = [Sample(y, np.ones(60), np.empty((60, 0))) for y in spent]
    assert bare[1].top.mean() < 60 / 2
    assert adjusted_ratios(*samples) == adjusted_ratios(*bare)


@given(
    st.lists(st.floats(0, 1e300), min_size=1, max_size=300).map(np.array),
    st.sampled_from([0.9, 0.99, 0.999]),
)
def test_a_cap_is_a_quantile_that_leaves_most_as_they_are(
    values: np.ndarray, quantile: float
) -> None:
    cap = cap_of(values, quantile)
    above = (values > cap).sum()
    assert above <= max(1, (1 - quantile) * len(values) + 1e-9)
    assert above <= max(1, 0.05 * (values > 0).sum())
    assert cap_of(values, 1) == math.inf
    if (values > 0).sum() > 1:
        assert cap in values
        assert cap > 0
    # The order does not matter, nor what the largest is.
    assert cap_of(values[::-1], quantile) == cap
    assert cap_of(np.where(values > cap, math.inf, values), quantile) == cap


def test_one_unit_is_always_capped_and_not_a_number_is_refused() -> None:
    assert cap_of(np.array([1.0, 2.0, 3.0, 1e9]), 0.999) == 3
    # 20 of 20,000 are a tenth of the 200 buyers, and a twentieth is enough.
    few = np.concatenate([np.zeros(19_800), np.arange(1.0, 201.0)])
    assert cap_of(few, 0.999) == 190
    with pytest.raises(ValueError, match="not a number"):
        cap_of(np.array([1.0, math.nan]), 0.999)


@given(st.integers(0, 2**32 - 1))
def test_preference_is_a_share_of_the_clicks(seed: int) -> None:
    random = np.random.default_rng(seed)
    won = {team: random.poisson(1.0, 200).astype(float) for team in ("control", "challenger")}
    found = preference(won)
    assert found is not None
    clicked = sum(one.sum() for one in won.values())
    assert found.challenger == pytest.approx(won["challenger"].sum() / clicked)
    swapped = preference({"control": won["challenger"], "challenger": won["control"]})
    assert swapped is not None
    assert swapped.challenger == pytest.approx(1 - found.challenger)
    assert swapped.variance == pytest.approx(found.variance)


def test_preference_needs_shoppers_who_click() -> None:
    assert preference({}) is None
    assert preference({"control": np.ones(29), "challenger": np.zeros(29)}) is None


def clickers(number: int) -> UnitTotals:
    return totals(2000, clicks=(np.arange(2000) < number).astype(float))


@pytest.mark.parametrize(
    "seen",
    [
        {"control": totals(seed=1), "challenger": totals(seed=2)},
        {"control": totals(seed=1), "challenger": totals(clicks=np.zeros(2000), seed=2)},
        *({"control": clickers(n), "challenger": clickers(0)} for n in range(6, 16)),
    ],
)
@pytest.mark.parametrize("number", [1, 2, 4])
def test_alpha_is_shared_by_the_success_metrics(seen: dict[str, UnitTotals], number: int) -> None:
    """Each is judged as if it were the only one, at its part of the level."""
    names = ("ctr", "cvr", "revenue_per_unit", "ndcg")[:number]
    success = [{"metric": name, "minimum_effect": 0.1} for name in names]
    together = measure_all(plan(alpha=0.08, success=success), observation(totals=seen))
    for one, rule in zip(together, success, strict=True):
        (alone,) = measure_all(plan(alpha=0.08 / number, success=[rule]), observation(totals=seen))
        assert repr(one) == repr(alone)


def test_the_first_metric_of_four_needs_more_evidence_than_a_single_one() -> None:
    seen = observation(totals={"control": totals(seed=1), "challenger": totals(seed=2)})
    widths = []
    for names in (["ctr"], ["ctr", "cvr", "revenue_per_unit", "ndcg"]):
        success = [{"metric": name, "minimum_effect": 0.1} for name in names]
        first, *_ = measure_all(plan(success=success), seen)
        widths.append(first.high - first.low)
    assert widths[1] > 1.05 * widths[0]
