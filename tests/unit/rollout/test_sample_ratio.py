"""A sample-ratio mismatch is found, and seldom imagined."""

from bisect import bisect_left

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.rollout.mismatch import simulate_mismatches
from newshelf.rollout.sequential import log_evidence, sample_ratio


@given(st.integers(0, 10**6), st.integers(0, 10**6))
def test_neither_side_is_favoured(a: int, b: int) -> None:
    found = sample_ratio(a, b)
    assert found.mismatch == (found.sequential_p < 0.001)
    assert 0 <= found.sequential_p <= 1
    assert sample_ratio(b, a).sequential_p == pytest.approx(found.sequential_p)


def test_nobody_is_no_mismatch() -> None:
    assert not sample_ratio(0, 0).mismatch


@pytest.mark.parametrize(("a", "b"), [(16, 0), (60, 20), (6000, 5000), (100_000, 97_000)])
def test_lost_units_are_noticed(a: int, b: int) -> None:
    assert sample_ratio(a, b).mismatch


@pytest.mark.parametrize(("a", "b"), [(1, 0), (5, 0), (5000, 5100), (100_000, 100_500)])
def test_chance_is_not_called_a_mismatch(a: int, b: int) -> None:
    assert not sample_ratio(a, b).mismatch


def test_looking_at_every_unit_imagines_hardly_any() -> None:
    """Chi-square at its .001, looked at as often, does ten times as often as it says."""
    runs, units = 4000, 5000
    first = np.cumsum(np.random.default_rng(7).random((runs, units)) < 0.5, axis=1, dtype=np.int32)
    n = np.arange(1, units + 1)
    apart = np.abs(2 * first - n)
    fewest = [
        bisect_left(
            range(of + 1),
            True,
            key=lambda d, of=of: sample_ratio((of + d) // 2, (of - d) // 2).mismatch,
        )
        for of in n[::25]
    ]
    assert (apart[:, ::25] >= fewest).any(axis=1).mean() <= 0.001 + 0.0015
    chi_square = (apart[:, 50:] ** 2 / n[50:] > 10.828).any(axis=1).mean()
    assert chi_square > 0.008


@pytest.mark.parametrize(("units", "returning"), [(20_000, 0.1), (50_000, 0.05), (50_000, 0.1)])
def test_returning_shoppers_are_not_called_a_mismatch(units: int, returning: float) -> None:
    """In whole rollouts with a sound assignment. A test of who came in the stage would be wrong
    in a tenth of them, or in nearly all."""
    found = simulate_mismatches(units=units, returning=returning, rollouts=2000)
    assert found.since_began <= 0.001 + 0.0015
    assert found.of_stage > 0.1


def test_a_twentieth_lost_of_one_side_is_found() -> None:
    assert simulate_mismatches(units=50_000, lost=0.05, rollouts=500).since_began >= 0.8


def test_the_evidence_of_many_is_that_of_each() -> None:
    control, challenger = np.array([[10, 0], [500, 70]]), np.array([[12, 9], [400, 70]])
    found = log_evidence(control, challenger)
    assert found.shape == (2, 2)
    for place in np.ndindex(2, 2):
        p = sample_ratio(int(control[place]), int(challenger[place])).sequential_p
        assert p == pytest.approx(min(1.0, np.exp(-found[place])))
