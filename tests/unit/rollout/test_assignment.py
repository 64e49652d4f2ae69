"""Uniform, monotone, sticky, independent between rollouts."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chi2_contingency, chisquare

from newshelf.rollout.assignment import HOLDOUT_SALT, assign, bucket_of, new_salt
from newshelf.store.records import BUCKETS, TrafficSplit

UNITS = [f"shopper-{number}" for number in range(100_000)]
units = st.text(min_size=1, max_size=40) | st.text(
    st.characters(categories=["Cs"]), min_size=1, max_size=3
)
shares = st.integers(0, BUCKETS // 2).map(lambda buckets: buckets / BUCKETS)


def split(share: float = 0.1, **changes: object) -> TrafficSplit:
    return TrafficSplit.model_validate(
        {"rollout": "r", "salt": "s", "control": "1", "challenger": "2", "share": share} | changes
    )


@pytest.mark.parametrize("salt", ["first", "second", "", HOLDOUT_SALT])
def test_units_spread_evenly_over_the_buckets(salt: str) -> None:
    buckets = [bucket_of(salt, unit) for unit in UNITS]
    assert min(buckets) >= 0
    assert max(buckets) < BUCKETS
    assert chisquare(np.bincount(buckets, minlength=BUCKETS)).pvalue > 1e-3


def test_consecutive_names_are_as_good_as_random_ones() -> None:
    """Names of one shop resemble each other; neighbours must not fall together."""
    first = [bucket_of("s", unit) * 10 // BUCKETS for unit in UNITS]
    pairs = np.zeros((10, 10))
    np.add.at(pairs, (first[:-1], first[1:]), 1)
    assert chi2_contingency(pairs).pvalue > 1e-3


def test_rollouts_are_independent_of_each_other_and_of_the_holdout() -> None:
    salts = [new_salt(), new_salt(), HOLDOUT_SALT]
    assert len(set(salts)) == 3
    for one, other in [(0, 1), (0, 2), (1, 2)]:
        table = np.zeros((10, 10))
        for unit in UNITS[:20_000]:
            places = (bucket_of(salts[which], unit) * 10 // BUCKETS for which in (one, other))
            table[tuple(places)] += 1
        assert chi2_contingency(table).pvalue > 1e-4


@given(units, units)
def test_salt_and_unit_are_not_run_together(salt: str, unit: str) -> None:
    moved = bucket_of(salt + unit[:1], unit[1:])
    assert bucket_of(salt, unit) in range(BUCKETS)
    # Equal by chance once in 10,000; equal for a longer text too would be a fault.
    more = bucket_of(salt + unit[:1], unit[1:] + "x") == bucket_of(salt, unit + "x")
    assert moved != bucket_of(salt, unit) or not more


@given(units, shares, shares, st.sampled_from([0.0, 0.01, 0.3]))
def test_a_ramp_only_adds_units(unit: str, a: float, b: float, holdout: float) -> None:
    low, high = sorted((a, b))
    before = assign(split(low, holdout=holdout), unit)
    after = assign(split(high, holdout=holdout), unit)
    assert before.bucket == after.bucket
    if before.variant != "default":
        assert after.variant == before.variant
        assert after.version == before.version


@given(units, shares)
def test_every_replica_says_the_same(unit: str, share: float) -> None:
    again = TrafficSplit.model_validate_json(split(share).model_dump_json())
    assert assign(again, unit) == assign(split(share), unit)


def test_known_buckets_do_not_move_with_a_new_release() -> None:
    """A running rollout outlives an update of the gateway."""
    assert [bucket_of("pepper", unit) for unit in ("a", "b", "Ä", "\ud800")] == KNOWN


KNOWN = [918, 228, 460, 8810]


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5])
def test_control_is_as_large_as_the_challenger(share: float) -> None:
    seen = Counter(assign(split(share), unit).variant for unit in UNITS)
    assert seen["challenger"] == pytest.approx(share * len(UNITS), rel=0.1)
    assert chisquare([seen["control"], seen["challenger"]]).pvalue > 1e-3
    assert seen["default"] == len(UNITS) - seen["control"] - seen["challenger"]


def test_propensities_are_the_frequencies() -> None:
    rule = split(0.2, holdout=0.1)
    assigned = [assign(rule, unit) for unit in UNITS]
    seen = Counter(one.variant for one in assigned)
    expected = {one.variant: one.propensity for one in assigned}
    assert sum(expected.values()) == pytest.approx(1)
    for variant, propensity in expected.items():
        assert seen[variant] / len(UNITS) == pytest.approx(propensity, rel=0.03)


def test_the_holdout_is_the_same_for_every_rollout_and_sees_what_is_served_now() -> None:
    rules = [split(0.5, holdout=0.05, salt=new_salt()) for _ in range(3)]
    outside = [
        {unit for unit in UNITS[:20_000] if assign(rule, unit).variant == "default"}
        for rule in rules
    ]
    assert outside[0] == outside[1] == outside[2]
    assert len(outside[0]) == pytest.approx(1000, rel=0.15)
    assert {assign(rules[0], unit).version for unit in outside[0]} == {"1"}


def test_testers_see_what_they_ask_for_and_do_not_count() -> None:
    rule = split(0.0, overrides={"me": "challenger", "you": "control"})
    mine, yours = assign(rule, "me"), assign(rule, "you")
    assert (mine.variant, mine.version, mine.counted) == ("challenger", "2", False)
    assert (yours.variant, yours.version, yours.counted) == ("control", "1", False)


def test_in_shadow_nobody_is_answered_by_the_challenger() -> None:
    rule = split(0.5, shadow=True)
    assigned = [assign(rule, unit) for unit in UNITS[:5000]]
    seen = {(one.variant, one.version, one.counted) for one in assigned}
    assert seen == {("default", "1", False)}


def test_interleaved_units_are_those_of_the_challenger() -> None:
    for unit in UNITS[:2000]:
        plain, both = assign(split(0.3), unit), assign(split(0.3, interleave=True), unit)
        assert (both.variant == "interleaved") == (plain.variant == "challenger")
        assert (both.variant == "control") == (plain.variant == "control")


def test_without_a_share_all_are_outside() -> None:
    assert {assign(split(0.0), unit).variant for unit in UNITS[:1000]} == {"default"}
