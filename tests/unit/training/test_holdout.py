"""What the weights are fitted on must be unseen by the signals."""

from collections import Counter

import numpy as np
import pytest

from newshelf.catalog.interactions import Sequences
from newshelf.config import BlendSettings
from newshelf.evaluation.splits import Holdout
from newshelf.training.signals import hold_out

DAY = 86_400
ITEMS = 60
RNG = np.random.default_rng(4)


def shoppers() -> tuple[list[np.ndarray], list[np.ndarray]]:
    """80 shoppers over 100 days; some come back to what they took."""
    sequences, stamps = [], []
    for at in range(80):
        count = 1 + at % 9
        sequences.append(RNG.integers(0, ITEMS - 5, count))
        stamps.append(np.sort(RNG.integers(0, 100 * DAY, count)))
    return sequences, stamps


SHOPPERS, STAMPS = shoppers()
BASKETS = [RNG.permutation(ITEMS - 5)[: 1 + at % 6].astype(np.int64) for at in range(100)]


def held(sequences=SHOPPERS, stamps=STAMPS, seed=0, **changed) -> Holdout:
    settings = BlendSettings(
        **{"held_out": 0.25, "dropped_items": 0.2, "max_cases": 10_000} | changed
    )
    return hold_out(Sequences(sequences, stamps), ITEMS, settings, np.random.default_rng(seed))


def items_of(sequences) -> set[int]:
    return {int(item) for sequence in sequences for item in sequence}


def test_time_is_cut_and_the_past_is_all_that_came_before():
    found = held(dropped_items=0.0)
    cut = np.quantile(np.concatenate(STAMPS), 0.75, method="higher")
    past = [(s[t < cut], t[t < cut]) for s, t in zip(SHOPPERS, STAMPS, strict=True)]
    past = [(s, t) for s, t in past if len(s)]
    train, timestamps = found.train.sequences, found.train.timestamps
    assert len(train) == len(timestamps) == len(past)
    for sequence, times, (items, stamps) in zip(train, timestamps, past, strict=True):
        np.testing.assert_array_equal(sequence, items)
        np.testing.assert_array_equal(times, stamps)
    total = sum(len(s) for s in SHOPPERS)
    later = total - len(found.train.items)
    assert 0.2 * total < later <= 0.25 * total + 1


def test_a_case_asks_for_what_a_shopper_took_after_the_cut_and_not_before():
    cases = iter(held(dropped_items=0.0).cases)
    cut = np.quantile(np.concatenate(STAMPS), 0.75, method="higher")
    for sequence, times in zip(SHOPPERS, STAMPS, strict=True):
        before, after = sequence[times < cut].tolist(), set(sequence[times >= cut].tolist())
        if not before or not after - set(before):
            continue
        case = next(cases)
        assert set(case.relevant.tolist()) == after - set(before)
        # Each item once, where it was met last.
        expected = sorted(set(before), key=lambda item: len(before) - before[::-1].index(item))
        assert case.history.tolist() == expected
    assert next(cases, None) is None


@pytest.mark.parametrize(("sequences", "stamps"), [(SHOPPERS, STAMPS), (BASKETS, None)])
def test_dropped_items_are_asked_for_and_nowhere_else(sequences, stamps):
    found = held(sequences, stamps)
    known = items_of(sequences)
    lost = known - items_of(found.train.sequences)
    plain = held(sequences, stamps, dropped_items=0.0)
    assert len(lost) >= int(0.2 * len(known))
    assert not lost & items_of(case.history for case in found.cases)
    asked = items_of(case.relevant for case in found.cases)
    assert len(lost & asked) > 5
    # Some had no behaviour but after the cut; the others were taken away.
    assert len(lost - (known - items_of(plain.train.sequences))) > 5


@pytest.mark.parametrize(("sequences", "stamps"), [(SHOPPERS, STAMPS), (BASKETS, None)])
def test_every_case_can_be_answered(sequences, stamps):
    for case in held(sequences, stamps).cases:
        assert len(case.history)
        assert len(case.relevant)
        assert len(set(case.history.tolist())) == len(case.history)
        assert not set(case.history.tolist()) & set(case.relevant.tolist())


def test_a_basket_is_held_out_whole_and_each_of_its_items_asked_for():
    found = held(BASKETS, None, dropped_items=0.0)
    assert found.train.timestamps is None
    away = Counter(tuple(s.tolist()) for s in BASKETS)
    away.subtract(tuple(s.tolist()) for s in found.train.sequences)
    assert 20 <= away.total() <= 30
    expected = sorted(
        (s[:place] + s[place + 1 :], s[place])
        for s in away.elements()
        for place in range(len(s))
        if len(s) > 1
    )
    asked = sorted((tuple(c.history.tolist()), int(c.relevant[0])) for c in found.cases)
    assert asked == expected
    assert all(len(case.relevant) == 1 for case in found.cases)


def test_near_copies_stay_on_one_side():
    """Ten rooms, each shown five times with one thing more or less."""
    baskets = []
    for room in range(10):
        whole = np.arange(room * 6, room * 6 + 6)
        baskets += [whole, *(np.delete(whole, place) for place in range(4))]
    for seed in range(5):
        found = held(baskets, None, seed, dropped_items=0.0, held_out=0.3)
        rooms = {int(s[0]) // 6 for s in found.train.sequences}
        asked = {int(case.relevant[0]) // 6 for case in found.cases}
        assert not rooms & asked
        assert len(asked) == 3
        assert len(found.train.sequences) == 5 * 7


def test_baskets_that_share_little_are_told_apart():
    """Two of three things in common are no copy, nor are three of five."""
    baskets = []
    for at in range(10):
        first = at * 6
        baskets += [np.array([first, first + 1, first + 2]), np.array([first, first + 1])]
        baskets += [
            np.arange(first, first + 5),
            np.array([first + 5, *range(first, first + 3), 59]),
        ]
    pairs = set()
    for seed in range(10):
        found = held(baskets, None, seed, dropped_items=0.0, held_out=0.5)
        kept = {tuple(s.tolist()) for s in found.train.sequences}
        pairs |= {
            (tuple(small.tolist()) in kept, tuple(large.tolist()) in kept)
            for small, large in zip(baskets[1::4], baskets[2::4], strict=True)
        }
        # Three of three things are in the five.
        for room, large in zip(baskets[0::4], baskets[2::4], strict=True):
            assert (tuple(room.tolist()) in kept) == (tuple(large.tolist()) in kept)
    assert pairs == {(True, True), (True, False), (False, True), (False, False)}


def test_of_many_cases_a_random_part_is_kept():
    every = [tuple(case.relevant.tolist()) for case in held().cases]
    some = held(max_cases=10).cases
    assert len(some) == 10 < len(every)
    assert {tuple(case.relevant.tolist()) for case in some} <= set(every)
    other = held(seed=1, max_cases=10).cases
    assert [c.relevant.tolist() for c in other] != [c.relevant.tolist() for c in some]


@pytest.mark.parametrize(("sequences", "stamps"), [(SHOPPERS, STAMPS), (BASKETS, None)])
def test_the_generator_decides(sequences, stamps):
    def told(found: Holdout) -> list[list[list[int]]]:
        cases = [[*case.history.tolist(), -1, *case.relevant.tolist()] for case in found.cases]
        return [[s.tolist() for s in found.train.sequences], cases]

    assert told(held(sequences, stamps, 3)) == told(held(sequences, stamps, 3))
    assert told(held(sequences, stamps, 3)) != told(held(sequences, stamps, 4))
