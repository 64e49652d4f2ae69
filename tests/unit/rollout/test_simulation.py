"""Thousands of simulated rollouts, looked at every 100 users, through the code that decides."""

import math

import numpy as np
import pytest

from benchmarks.rollout.decisions import called_different
from benchmarks.rollout.sequences import (
    ALPHA,
    LOOK,
    POWER,
    Looks,
    clicks_of,
    needed_units,
    revenue_of,
    simulate,
)
from benchmarks.rollout.worlds import WORLDS
from newshelf.rollout.decide import decide
from newshelf.rollout.metrics import log_lift, ratio_variance
from newshelf.rollout.sequential import half_width, needed_information
from newshelf.store.records import Observation, UnitTotals
from tests.unit.rollout.conftest import COUNTS, observation, plan, state, totals


@pytest.fixture(scope="module")
def equal() -> Looks:
    draw = clicks_of(0.1)
    return simulate(draw, draw, rollouts=1000, looks=100, seed=1)


def test_equal_versions_are_called_different_in_at_most_a_twentieth_of_rollouts(
    equal: Looks,
) -> None:
    for effect in (0.05, 0.1, 0.3, 1.0):
        assert equal.found(effect).any(axis=1).mean() <= ALPHA


def test_a_test_for_one_look_would_call_a_third_of_them_different(equal: Looks) -> None:
    assert equal.found_naively().any(axis=1).mean() > 0.3
    # At its one look it is what it says.
    assert equal.found_naively()[:, -1].mean() == pytest.approx(ALPHA, abs=0.025)


def test_neither_variant_is_favoured(equal: Looks) -> None:
    found = equal.found(0.3)
    worse = (found & (equal.log < 0)).any(axis=1).mean()
    better = (found & (equal.log > 0)).any(axis=1).mean()
    assert abs(worse - better) < 0.02


@pytest.mark.parametrize("effect", [0.2, 0.5, 1.0])
def test_few_and_skewed_purchases_do_not_fool_it(effect: float) -> None:
    draw = revenue_of(0.05)
    looks = simulate(draw, draw, rollouts=1000, looks=200, seed=2)
    assert looks.found(effect).any(axis=1).mean() <= ALPHA


def test_the_relative_lift_without_its_logarithm_calls_low_challengers_worse_too_often() -> None:
    """Why effects are judged on the scale of the logarithm."""
    draw = revenue_of(0.05)
    looks = simulate(draw, draw, rollouts=1000, looks=200, seed=2)
    tuned = needed_information(0.5, alpha=ALPHA, power=POWER)
    relative = np.expm1(looks.log)
    # GrowthBook's: Var(b)/a² + Var(a)·b²/a⁴.
    variance = looks.variance * (1 + relative) ** 2
    width = half_width(variance, 1 / variance, tuned_at=tuned, alpha=ALPHA)
    found = (np.abs(relative) > width) & looks.enough
    assert found.any(axis=1).mean() > ALPHA
    assert (found & (relative > 0)).any(axis=1).mean() < 0.01


def test_needed_units_of_a_yes_or_no() -> None:
    """By hand: ln(1.1) with twice (1-p)/p of variance per unit."""
    needed = needed_units(0.1, relative_variance=0.9 / 0.1, alpha=0.05, power=0.8)
    by_hand = 18 * ((3.0353 + 0.84162) / math.log(1.1)) ** 2
    assert needed == pytest.approx(by_hand, rel=1e-4)


def test_ten_per_cent_more_clicks_are_found_with_the_planned_power() -> None:
    """By the planned units at the latest; earlier looks find some sooner."""
    control, challenger = clicks_of(0.1), clicks_of(0.11)
    random = np.random.default_rng(9)
    top, bottom = control(random, (1, 200_000))
    relative_variance = (
        ratio_variance(
            top.mean(), bottom.mean(), top.var(), bottom.var(), np.cov(top, bottom)[0, 1]
        )
        / (top.sum() / bottom.sum()) ** 2
    )
    units = needed_units(0.1, relative_variance=relative_variance, alpha=ALPHA, power=POWER)
    looks = simulate(control, challenger, rollouts=1000, looks=-(-2 * units // LOOK), seed=3)
    found = looks.found(0.1)
    right = found & (looks.log > 0)
    assert right[:, -1].mean() == pytest.approx(POWER, abs=0.05)
    assert right.any(axis=1).mean() >= POWER
    assert (found & (looks.log < 0)).any(axis=1).mean() < 0.01
    # A third of the units would not have done.
    assert right[:, : right.shape[1] // 3].any(axis=1).mean() < 0.5


def test_shoppers_who_come_back_do_not_fool_it() -> None:
    """The same 800 shoppers, answered again and again: nobody new, but news at every look."""
    rollouts, looks, units = 500, 100, 400
    random = np.random.default_rng(4)
    logs, variances = np.empty((2, rollouts, looks))
    sides = []
    for _ in range(2):
        taste = random.beta(2, 18, (rollouts, units))
        sides.append([taste, np.zeros((rollouts, units)), np.zeros((rollouts, units))])
    for look in range(looks):
        estimates = []
        for side in sides:
            taste, top, bottom = side
            shown = 10 * (random.random((rollouts, units)) < 0.3)
            np.add(top, random.binomial(shown, taste), out=top)
            np.add(bottom, shown, out=bottom)
            tops, bottoms = top.mean(axis=1), bottom.mean(axis=1)
            centred = top - tops[:, None], bottom - bottoms[:, None]
            moments = [
                (one * other).sum(axis=1) / (units - 1)
                for one, other in [(centred[0],) * 2, (centred[1],) * 2, centred]
            ]
            variance = ratio_variance(tops, bottoms, *moments) / units
            estimates += [tops / bottoms, variance]
        logs[:, look], variances[:, look] = log_lift(*estimates)
    tuned = needed_information(np.log1p(0.2), alpha=ALPHA, power=POWER)
    width = half_width(variances, 1 / variances, tuned_at=tuned, alpha=ALPHA)
    assert (np.abs(logs) > width).any(axis=1).mean() <= ALPHA
    assert (np.abs(logs) > 1.96 * np.sqrt(variances)).any(axis=1).mean() > 0.15


def test_whole_rollouts_of_equal_versions_are_seldom_decided() -> None:
    """The decision itself, with what shoppers did before, looked at every 200 users."""
    last = state("ramp", step=1)
    rule = plan(success=[{"metric": "ctr", "minimum_effect": 0.3}], signals=[])
    decided = []
    for seed in range(120):
        sides = [totals(1500, seed=2 * seed + side, before=True) for side in (0, 1)]
        outcomes = (decide(rule, last, _first(sides, n)).phase for n in range(100, 1501, 100))
        decided.append(next((phase for phase in outcomes if phase != "ramp"), None))
    assert sum(phase is not None for phase in decided) <= 0.05 * 120


def test_whole_rollouts_of_a_better_version_are_promoted() -> None:
    last = state("ramp", step=1)
    rule = plan(success=[{"metric": "ctr", "minimum_effect": 0.3}], signals=[])
    promoted = 0
    for seed in range(30):
        sides = [
            totals(1500, 0.1 + 0.03 * side, seed=2 * seed + side, before=True) for side in (0, 1)
        ]
        outcomes = (decide(rule, last, _first(sides, n)).phase for n in range(100, 1501, 100))
        promoted += next((phase for phase in outcomes if phase != "ramp"), "") == "promoting"
    assert promoted >= 0.8 * 30


def _first(sides: list[UnitTotals], n: int) -> Observation:
    """What is seen of the first n units of each variant."""
    cut = [
        UnitTotals(
            **{name: getattr(side, name)[:n] for name in COUNTS},
            before={name: column[:n] for name, column in side.before.items()},
        )
        for side in sides
    ]
    named = dict(zip(("control", "challenger"), cut, strict=True))
    return observation(totals=named, seconds_in_step=300.0)


@pytest.mark.parametrize("name", WORLDS)
def test_no_shop_makes_equal_versions_different(name: str) -> None:
    """Robots, bursts, loyal and few buyers, looked at every 100 visits."""
    assert called_different(name, 40) <= ALPHA * 40
