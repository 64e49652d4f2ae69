"""Sequential tests of shares and quantiles: exact for independent requests of any distribution."""

import math
from bisect import bisect_left

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad

from newshelf.rollout.sequential import (
    log_evidence_above,
    log_evidence_below,
    lower_bound,
    lower_quantile,
    upper_bound,
    upper_quantile,
)


@given(st.integers(0, 60), st.integers(0, 60), st.floats(0.01, 0.9))
def test_the_evidence_is_the_mixture_s_integral(k: int, missed: int, share: float) -> None:
    n = k + missed
    likelihood, _ = quad(
        lambda theta: (theta / share) ** k * ((1 - theta) / (1 - share)) ** missed,
        share,
        1,
        points=[max(share, k / n)] if n else None,
        epsabs=0,
        epsrel=1e-9,
        limit=200,
    )
    expected = math.log(likelihood / (1 - share))
    assert float(log_evidence_above(k, n, share)) == pytest.approx(expected, abs=1e-6)


@given(st.integers(0, 50), st.integers(1, 50), st.floats(0.01, 0.99))
def test_below_is_above_turned_round(k: int, missed: int, share: float) -> None:
    n = k + missed
    assert float(log_evidence_below(k, n, share)) == pytest.approx(
        float(log_evidence_above(missed, n, 1 - share))
    )


@given(st.integers(1, 500), st.integers(1, 500), st.floats(0.001, 0.2))
def test_the_bounds_are_where_the_evidence_reaches_the_threshold(
    k: int, missed: int, alpha: float
) -> None:
    n = k + missed
    low, high = lower_bound(k, n, alpha), upper_bound(k, n, alpha)
    assert 0 < low < k / n < high < 1
    assert float(log_evidence_above(k, n, low)) == pytest.approx(-math.log(alpha), abs=1e-4)
    assert float(log_evidence_below(k, n, high)) == pytest.approx(-math.log(alpha), abs=1e-4)


def test_the_bounds_at_the_ends() -> None:
    assert lower_bound(0, 0, 0.05) == 0
    assert upper_bound(0, 0, 0.05) == 1
    assert lower_bound(0, 100, 0.05) == 0
    assert 0.9 < lower_bound(100, 100, 0.05) < 1
    assert 3 / 1000 < upper_bound(0, 1000, 0.001) < 10 / 1000
    assert float(log_evidence_above(1, 1000, 0.0)) == math.inf


def fewest_refuting(n: int, share: float, alpha: float) -> int:
    """The evidence grows with what was counted."""
    return bisect_left(
        range(n + 1),
        True,
        lo=math.ceil(share * n),
        key=lambda k: bool(log_evidence_above(k, n, share) >= -math.log(alpha)),
    )


@pytest.mark.parametrize("share", [0.001, 0.02, 0.3])
def test_a_share_at_its_limit_is_refuted_in_at_most_alpha_of_the_runs(share: float) -> None:
    """Looked at after every request. A test for one look would refute it often."""
    runs, requests, alpha = 2000, 3000, 0.05
    drawn = np.random.default_rng(3).random((runs, requests)) < share
    k, n = np.cumsum(drawn, axis=1), np.arange(1, requests + 1)
    fewest = np.array([fewest_refuting(int(of), share, alpha) for of in n])
    assert (k >= fewest).any(axis=1).mean() <= alpha
    z = (k - n * share) / np.sqrt(n * share * (1 - share))
    assert (z[:, 100:] > 1.645).any(axis=1).mean() > 3 * alpha


@pytest.mark.parametrize("share", [0.005, 0.1])
def test_the_bounds_hold_at_every_look(share: float) -> None:
    random = np.random.default_rng(4)
    outside = {"low": 0, "high": 0}
    for _ in range(200):
        k = np.cumsum(random.random(2000) < share)
        looks = range(50, 2000, 250)
        outside["low"] += any(lower_bound(int(k[n - 1]), n, 0.05) > share for n in looks)
        outside["high"] += any(upper_bound(int(k[n - 1]), n, 0.05) < share for n in looks)
    assert max(outside.values()) <= 0.05 * 200


def test_a_broken_service_is_noticed_within_dozens_of_requests() -> None:
    """Every fifth request fails where one in fifty may."""
    runs, alpha = 500, 0.001
    drawn = np.random.default_rng(5).random((runs, 400)) < 0.2
    k, n = np.cumsum(drawn, axis=1), np.arange(1, 401)
    found = log_evidence_above(k, n, 0.02) >= -math.log(alpha)
    assert np.median(np.argmax(found, axis=1)) < 60
    assert found.any(axis=1).all()


@pytest.mark.parametrize("shape", ["lognormal", "pareto", "ties"])
def test_the_quantile_s_bounds_hold_at_every_look(shape: str) -> None:
    random = np.random.default_rng(6)
    draw = {
        "lognormal": lambda size: random.lognormal(3, 1, size),
        "pareto": lambda size: random.pareto(1.2, size),
        "ties": lambda size: random.integers(0, 120, size) / 10,
    }[shape]
    truth = float(np.quantile(draw(2_000_000), 0.9))
    low = high = told = 0
    for _ in range(200):
        values = draw(3000)
        looks = [values[:n] for n in range(100, 3001, 400)]
        low += any(lower_quantile(seen, 0.9, 0.05) > truth for seen in looks)
        high += any(upper_quantile(seen, 0.9, 0.05) < truth for seen in looks)
        told += math.isfinite(upper_quantile(values, 0.9, 0.05))
    assert max(low, high) <= 0.05 * 200
    assert told == 200


@given(st.integers(0, 400), st.integers(0, 2**32 - 1), st.sampled_from([0.5, 0.9, 0.99]))
def test_the_bounds_are_those_of_testing_each_value(n: int, seed: int, quantile: float) -> None:
    """Naively: a value is refuted when too many, or too few, lie above it."""
    values = np.random.default_rng(seed).integers(0, 50, n).astype(float)
    threshold, share = -math.log(0.02), 1 - quantile

    def too_many(x: float) -> bool:
        above = int((values > x).sum())
        return above > share * n and float(log_evidence_above(above, n, share)) >= threshold

    def too_few(x: float) -> bool:
        from_it = int((values >= x).sum())
        return from_it < share * n and float(log_evidence_below(from_it, n, share)) >= threshold

    grid = np.arange(-1, 52) / 1.0
    low, high = lower_quantile(values, quantile, 0.02), upper_quantile(values, quantile, 0.02)
    for x in grid:
        assert too_many(x) == (x < low)
        assert too_few(x) == (x > high)


def test_a_p99_needs_many_values_for_its_upper_end_and_few_for_its_lower() -> None:
    """As the documentation says."""
    values = np.random.default_rng(1).lognormal(3, 0.5, 1200)
    assert upper_quantile(values[:500], 0.99, 0.005) == math.inf
    assert upper_quantile(values, 0.99, 0.005) < math.inf
    assert lower_quantile(values[:500], 0.99, 0.005) > 0
