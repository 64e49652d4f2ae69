"""Which events count, and which are in quarantine."""

from collections import Counter

import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from newshelf.catalog.robots import DAY_S, Suspect, counted_events, find_suspects, limit
from newshelf.config import RobotSettings

SETTINGS = RobotSettings(burst_events=20, fixation_days=3)


def shoppers(count: int = 40) -> list[tuple[str, str, str, int]]:
    """Each views three products on two days, and buys one of them."""
    return [
        (f"u{number}", f"i{(number + at) % 30}", kind, day * DAY_S + number)
        for number in range(count)
        for day in (0, 9)
        for at, kind in ((0, "view"), (1, "view"), (2, "view"), (2, "purchase"))
    ]


def table(rows: list[tuple[str, str, str, int]]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["user_id", "item_id", "event_type", "timestamp"])


def suspects(rows: list[tuple[str, str, str, int]]) -> list[Suspect]:
    counts = Counter((unit, item, stamp // DAY_S) for unit, item, _, stamp in sorted(rows))
    return find_suspects([(*key, count) for key, count in sorted(counts.items())], SETTINGS)


def test_shoppers_are_no_robots():
    events = table(shoppers())
    assert suspects(shoppers()) == []
    assert len(counted_events(events, SETTINGS)) == len(events)


def test_a_burst_puts_all_of_a_unit_in_quarantine():
    burst = [("bot", f"i{at % 30}", "view", at) for at in range(100)] + [("bot", "i1", "view", 9)]
    (found,) = suspects(shoppers() + burst)
    assert (found.unit, found.item_id, found.found, found.events) == ("bot", None, 101, 101)
    assert "bot" not in set(counted_events(table(shoppers() + burst), SETTINGS)["user_id"])
    kept = counted_events(
        table(shoppers() + burst), SETTINGS.model_copy(update={"quarantine": False})
    )
    assert (kept["user_id"] == "bot").sum() == 30


def test_a_slow_robot_loses_its_product_and_keeps_the_others():
    slow = [("bot", item, "view", day * DAY_S) for day in range(20) for item in ("i1", f"i{day}")]
    (found,) = suspects(shoppers() + slow)
    assert (found.unit, found.item_id, found.found, found.events) == ("bot", "i1", 20, 21)
    kept = counted_events(table(shoppers() + slow), SETTINGS)
    assert set(kept.loc[kept["user_id"] == "bot", "item_id"]) == {
        f"i{day}" for day in range(20) if day != 1
    }


def test_a_type_counts_once_per_product_and_day():
    rows = [
        ("ann", "a", "view", 1),
        ("ann", "a", "purchase", 2),
        ("ann", "a", "view", 3),
        ("ann", "b", "view", 4),
        ("bob", "a", "view", 5),
        ("ann", "a", "view", DAY_S),
    ]
    assert counted_events(table(rows), SETTINGS).index.tolist() == [0, 1, 3, 4, 5]
    twice = SETTINGS.model_copy(update={"daily": 2})
    assert len(counted_events(table(rows), twice)) == 6


@given(st.lists(st.integers(1, 50), min_size=40, max_size=200), st.integers(50, 10**6))
def test_a_few_robots_cannot_move_the_limit_beyond_what_shoppers_do(numbers, robot):
    counts = pd.Series([*numbers, robot]).value_counts().to_dict()
    assert limit(counts, 2.0, 5) <= max(5, 2.0 * max(numbers))


def test_without_events_the_least_is_the_limit():
    assert limit({}, 3.0, 7) == 7
