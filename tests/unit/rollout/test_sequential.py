"""GrowthBook's published formulae, written out, and what they promise."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from newshelf.rollout.sequential import (
    half_width,
    needed_information,
    needed_units,
    p_value,
    tuning_rho,
)

alphas = st.floats(0.001, 0.3)


def fixed_information(effect: float) -> float:
    """At which a test with one look finds it, at 5 % and 80 % (Chow, Shao & Wang 2008, ch. 3)."""
    return float((norm.ppf(0.975) + norm.ppf(0.8)) / effect) ** 2


def naive_half_width(variance: float, n: float, n_star: float, alpha: float) -> float:
    """Δ ± σ̂·√N · √( 2(Nρ²+1)/(N²ρ²) · ln(√(Nρ²+1)/α) ), as in GrowthBook's documentation."""
    rho = math.sqrt((-2 * math.log(alpha) + math.log(-2 * math.log(alpha) + 1)) / n_star)
    inner = 2 * (n * rho**2 + 1) / (n**2 * rho**2) * math.log(math.sqrt(n * rho**2 + 1) / alpha)
    return math.sqrt(variance) * math.sqrt(n) * math.sqrt(inner)


@given(st.floats(1e-6, 1e3), st.floats(1, 1e7), st.floats(1, 1e6), alphas)
def test_the_half_width_is_growthbooks(v: float, n: float, n_star: float, alpha: float) -> None:
    expected = naive_half_width(v, n, n_star, alpha)
    assert half_width(v, n, tuned_at=n_star, alpha=alpha) == pytest.approx(expected, rel=1e-9)


def test_rho_at_growthbooks_default() -> None:
    assert tuning_rho(5000, 0.05) == pytest.approx(math.sqrt((5.99146 + 1.94469) / 5000), rel=1e-5)


@given(st.floats(0.01, 1e4), st.floats(1, 1e6), alphas)
def test_it_is_tightest_where_it_is_tuned(n: float, n_star: float, alpha: float) -> None:
    def width(tuned_at: float) -> float:
        return half_width(1.0, n_star, tuned_at=tuned_at, alpha=alpha)

    # The published tuning is an approximation of the best one, good to a thousandth.
    assert width(n_star) <= width(n * n_star) * 1.001


@given(st.floats(-10, 10), st.floats(0.01, 4), st.floats(1, 1e6), st.floats(1, 1e6), alphas)
def test_p_is_below_alpha_just_when_zero_is_outside(
    effect: float, variance: float, n: float, n_star: float, alpha: float
) -> None:
    p = p_value(effect, variance, n, tuned_at=n_star, alpha=alpha)
    width = half_width(variance, n, tuned_at=n_star, alpha=alpha)
    if abs(abs(effect) - width) > 1e-9:
        assert (p < alpha) == (abs(effect) > width)
    assert 0 <= p <= 1


@given(st.floats(1, 1e6), alphas)
def test_one_look_has_a_tighter_interval(n: float, alpha: float) -> None:
    assert half_width(1.0, n, tuned_at=n, alpha=alpha) > norm.ppf(1 - alpha / 2)


def paths(rollouts: int, looks: int, drift: float, seed: int) -> np.ndarray:
    """``(rollouts, looks)`` means of unit normals, after each one more."""
    steps = np.random.default_rng(seed).normal(drift, 1.0, (rollouts, looks))
    return np.cumsum(steps, axis=1) / np.arange(1, looks + 1)


def test_of_2000_sequences_at_most_a_twentieth_ever_misses_the_truth() -> None:
    n = np.arange(1, 3001.0)
    means = paths(2000, 3000, 0.3, seed=11)
    missed = np.abs(means - 0.3) > half_width(1 / n, n, tuned_at=500, alpha=0.05)
    assert missed.any(axis=1).mean() <= 0.05
    # The interval that is meant for one look misses it in most.
    assert (np.abs(means - 0.3) > 1.96 / np.sqrt(n)).any(axis=1).mean() > 0.4


def test_the_textbook_s_sample_size() -> None:
    """15.7 / (effect / sd)² per group at 5 % and 80 %, of a difference with variance 2/n."""
    assert 2 * fixed_information(0.5) == pytest.approx(62.79, abs=0.01)


def test_the_planned_power_is_kept_at_the_planned_information() -> None:
    for effect, power in [(0.1, 0.8), (-0.02, 0.9), (1.0, 0.95)]:
        needed = needed_information(effect, alpha=0.05, power=power)
        drawn = np.random.default_rng(5).normal(effect, needed**-0.5, 20_000)
        found = np.abs(drawn) > half_width(1 / needed, needed, tuned_at=needed, alpha=0.05)
        assert found.mean() == pytest.approx(power, abs=0.01)


def test_looking_always_costs_about_twice_the_units() -> None:
    needed = needed_information(0.1, alpha=0.05, power=0.8)
    assert needed / fixed_information(0.1) == pytest.approx(1.91, abs=0.01)


def test_needed_units_of_a_yes_or_no() -> None:
    """By hand: ln(1.1) with twice (1-p)/p of variance per unit."""
    needed = needed_units(0.1, relative_variance=0.9 / 0.1, alpha=0.05, power=0.8)
    by_hand = 18 * ((3.0353 + 0.84162) / math.log(1.1)) ** 2
    assert needed == pytest.approx(by_hand, rel=1e-4)
