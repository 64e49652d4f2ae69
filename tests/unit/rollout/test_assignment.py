"""Uniform, monotone, sticky, independent between rollouts."""

from collections import Counter
from itertools import product
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chi2_contingency, chisquare

from newshelf.rollout.assignment import (
    HOLDOUT_SALT,
    assign,
    bucket_of,
    draft_propensities,
    new_salt,
    team_draft,
)
from newshelf.rollout.metrics import preference
from newshelf.rollout.sequential import half_width, needed_information
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


rankings = st.lists(st.sampled_from("abcdefgh"), unique=True, max_size=8)


def naive(control: list[str], challenger: list[str], k: int, coins: list[bool]) -> list[tuple]:
    """Radlinski et al. 2008, algorithm 2, word for word; a captain without products passes."""
    shown: list[tuple[str, str]] = []
    coins = list(coins)
    left = {"control": control, "challenger": challenger}
    while len(shown) < k:
        taken = [item for item, _ in shown]
        able = {
            team: [item for item in ranking if item not in taken] for team, ranking in left.items()
        }
        if not any(able.values()):
            break
        sizes = Counter(team for _, team in shown)
        if sizes["control"] == sizes["challenger"]:
            team = "control" if coins.pop(0) else "challenger"
        else:
            team = "control" if sizes["control"] < sizes["challenger"] else "challenger"
        if not able[team]:
            team = "challenger" if team == "control" else "control"
        shown.append((able[team][0], team))
    return shown


class Coins(Random):
    """Falls in a given order; asked only when both variants may choose."""

    def __init__(self, coins: list[bool]) -> None:
        super().__init__()
        self.coins = list(coins)

    def choice(self, seq):
        if len(seq) == 1:
            return seq[0]
        return seq[0] if self.coins.pop(0) else seq[1]


@given(rankings, rankings, st.lists(st.booleans(), min_size=20, max_size=20))
def test_the_draft_is_the_papers_while_both_have_products(
    control: list[str], challenger: list[str], coins: list[bool]
) -> None:
    """Then the coins are asked alike; a list that is used up is another matter."""
    k = min(len(control), len(challenger))
    drafted = team_draft(control, challenger, k, Coins(coins))
    assert [(one.item_id, one.team) for one in drafted] == naive(control, challenger, k, coins)


@given(rankings, rankings, st.integers(0, 12), st.integers(0, 2**32 - 1))
def test_an_answer_has_each_product_once_and_as_many_as_there_are(
    control: list[str], challenger: list[str], k: int, seed: int
) -> None:
    drafted = team_draft(control, challenger, k, Random(seed))
    items = [one.item_id for one in drafted]
    assert len(set(items)) == len(items) == min(k, len({*control, *challenger}))
    ranking = {"control": control, "challenger": challenger}
    assert all(one.item_id in ranking[one.team] for one in drafted)
    assert all(0 < one.propensity <= 1 for one in drafted)


@given(rankings, rankings)
def test_propensities_are_counted_over_all_coins(control: list[str], challenger: list[str]) -> None:
    k = min(len(control), len(challenger))
    flips = (k + 1) // 2
    counts = [Counter() for _ in range(k)]
    for coins in product([True, False], repeat=flips):
        for position, (item, _) in enumerate(naive(control, challenger, k, list(coins))):
            counts[position][item] += 1 / 2**flips
    found = draft_propensities(control, challenger, k)
    assert len(found) == k
    for ours, theirs in zip(found, counts, strict=True):
        assert ours == pytest.approx(dict(theirs))


@given(rankings, rankings, st.integers(1, 12))
def test_each_position_has_one_product(control: list[str], challenger: list[str], k: int) -> None:
    for at_position in draft_propensities(control, challenger, k):
        assert sum(at_position.values()) == pytest.approx(1)


def test_known_propensities() -> None:
    """a|b at 1; then what is left of the other's: by hand."""
    assert draft_propensities(["a", "b"], ["b", "c"], 2) == [
        {"a": 0.5, "b": 0.5},
        {"b": 0.5, "a": 0.5},
    ]
    assert draft_propensities(["a", "b", "c"], ["a", "c", "b"], 3)[1] == {"c": 0.5, "b": 0.5}


def test_a_long_answer_of_unlike_rankings_is_exact_too() -> None:
    """2^25 ways of the coins, in a few hundred states."""
    random = Random(1)
    control = [str(item) for item in range(60)]
    challenger = random.sample(control, 60)
    found = draft_propensities(control, challenger, 50)
    assert len(found) == 50
    runs = [team_draft(control, challenger, 50, Random(seed)) for seed in range(300)]
    for position in (0, 5, 30, 49):
        seen = Counter(run[position].item_id for run in runs)
        for item, probability in found[position].items():
            assert seen[item] / 300 == pytest.approx(probability, abs=0.12)


def test_a_request_that_is_repeated_is_answered_alike() -> None:
    control, challenger = list("abcdef"), list("fedcba")
    assert team_draft(control, challenger, 5, Random("request-1")) == team_draft(
        control, challenger, 5, Random("request-1")
    )


def test_a_ranking_with_a_product_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="challenger has a product twice"):
        team_draft(["a"], ["b", "b"], 2, Random(1))


def test_each_product_names_the_team_that_drafted_it() -> None:
    drafted = team_draft(list("abc"), list("xyz"), 4, Random(3))
    assert [(one.item_id, one.team) for one in drafted if one.team == "control"] == [
        ("a", "control"),
        ("b", "control"),
    ]
    assert {one.item_id for one in drafted if one.team == "challenger"} == {"x", "y"}


def clicks(better: float, shoppers: int, seed: int) -> dict[str, np.ndarray]:
    """Shoppers click downwards, and ``better`` times as often on what the challenger is right
    about: its first three products."""
    random, coins = np.random.default_rng(seed), Random(seed)
    control, challenger = list("abcdefgh"), list("xyzabcde")
    won = {team: np.zeros(shoppers) for team in ("control", "challenger")}
    for shopper in range(shoppers):
        for _ in range(1 + random.poisson(1.0)):
            drafted = team_draft(control, challenger, 6, coins)
            chances = [
                0.15 / (1 + place) * (better if one.item_id in "xyz" else 1)
                for place, one in enumerate(drafted)
            ]
            for one, chance in zip(drafted, chances, strict=True):
                won[one.team][shopper] += random.random() < chance
    return won


@pytest.mark.parametrize(("better", "sign"), [(1.0, 0), (2.0, 1), (0.4, -1)])
def test_shoppers_preference_is_found(better: float, sign: int) -> None:
    won = clicks(better, 2000, seed=5)
    found = preference(won)
    assert found is not None
    share, variance = found.challenger, found.variance
    planned = needed_information(0.1, alpha=0.05, power=0.8)
    width = half_width(variance, 1 / variance, tuned_at=planned, alpha=0.05)
    assert (share - width > 0.5) == (sign > 0)
    assert (share + width < 0.5) == (sign < 0)


def test_equal_rankings_are_called_different_in_at_most_a_twentieth_of_the_rollouts() -> None:
    """1,000 shoppers, looked at every 100; a coin decides whose product each click was."""
    runs, looks = 200, 10
    random = np.random.default_rng(8)
    taste = random.gamma(2.0, 0.5, (runs, looks * 100))
    clicked = random.poisson(taste)
    won = random.binomial(clicked, 0.5)
    planned = needed_information(0.05, alpha=0.05, power=0.8)
    found = np.zeros(runs, dtype=bool)
    for run in range(runs):
        for n in range(100, looks * 100 + 1, 100):
            sides = won[run, :n].astype(float), (clicked - won)[run, :n].astype(float)
            effect = preference(dict(zip(("challenger", "control"), sides, strict=True)))
            variance = effect.variance
            width = half_width(variance, 1 / variance, tuned_at=planned, alpha=0.05)
            found[run] |= abs(effect.value) > width
    assert found.mean() <= 0.05
