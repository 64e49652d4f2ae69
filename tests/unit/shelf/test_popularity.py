"""Popularity by live feedback."""

from datetime import UTC, datetime, timedelta

import pytest

from newshelf.config import EventWeights, RobotSettings
from newshelf.shelf import popularity
from newshelf.shelf.popularity import LivePopularity
from newshelf.store.records import Feedback
from newshelf.store.store import EventStore
from newshelf.store.write import WriteBatch

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds since the epoch, which a test may change."""
    seconds = [NOW.timestamp()]
    monkeypatch.setattr(popularity.time, "time", lambda: seconds[0])
    return seconds


def write(
    store: EventStore, *events: tuple[str, float], unit: str = "", kind: str = "click"
) -> None:
    """Store events: a product, and the hours since then; each of another unit without ``unit``."""
    count = len([*store.feedback()])
    clicks = [
        Feedback(
            event_id=f"e{count + number}",
            event_type=kind,
            item_id=item,
            at=NOW - timedelta(hours=hours),
            unit=unit or f"u{count + number}",
        )
        for number, (item, hours) in enumerate(events)
    ]
    store.write(WriteBatch(feedback=clicks))


def test_events_lose_half_their_weight_per_half_life(store: EventStore, clock) -> None:
    write(store, ("old", 48), ("ring", 24), ("ring", 0), ("lamp", 0), ("ancient", 24 * 30))
    live = LivePopularity(store.database, half_life_hours=24)
    assert live.update() == {"old": 0.25, "ring": 1.5, "lamp": 1}
    clock[0] += 24 * 3600
    assert live.update() == {"old": 0.125, "ring": 0.75, "lamp": 0.5}


def test_only_new_events_are_added(store: EventStore, clock) -> None:
    live = LivePopularity(store.database, half_life_hours=24)
    assert live.update() == {}
    write(store, ("ring", 0))
    assert live.update() == {"ring": 1}
    assert live.update() == {"ring": 1}
    write(store, ("ring", 0), ("lamp", 0))
    assert live.update() == {"ring": 2, "lamp": 1}


def test_old_events_are_skipped_and_forgotten(store: EventStore, clock) -> None:
    write(store, *((f"old-{number}", 500 - number) for number in range(9)), ("ring", 1))
    assert LivePopularity(store.database, half_life_hours=2).update() == {"ring": 0.707}
    live = LivePopularity(store.database, half_life_hours=2)
    live.update()
    clock[0] += 100 * 3600
    assert live.update() == {}


def test_events_of_an_erased_unit_count_no_more(store: EventStore, clock) -> None:
    live = LivePopularity(store.database, half_life_hours=24)
    write(store, ("ring", 0), ("lamp", 0), unit="ann")
    assert live.update() == {"ring": 1, "lamp": 1}
    store.units.erase("ann")
    assert live.update() == {}


def test_types_count_by_weight_and_once_a_day(store: EventStore, clock) -> None:
    weights = EventWeights(view=0, purchase=3)
    live = LivePopularity(store.database, 1e6, weights, RobotSettings(daily=1))
    for kind in ("view", "click", "click", "purchase", "purchase"):
        write(store, ("ring", 0), unit="ann", kind=kind)
    assert live.update() == {"ring": 4}
    write(store, ("ring", -24), ("ring", -25), unit="ann")
    assert live.update() == {"ring": 5}


def test_an_event_that_comes_more_than_a_day_late_does_not_count(store: EventStore, clock) -> None:
    write(store, ("ring", 0), ("lamp", 24), ("lamp", 60))
    assert LivePopularity(store.database, 1e6).update() == {"ring": 1, "lamp": 1}


def test_robots_are_left_out_once_they_are_found(store: EventStore, clock) -> None:
    live = LivePopularity(store.database, 1e4, robots=RobotSettings(burst_events=5))
    write(store, *(("lamp", 2) for _ in range(40)))
    write(store, *((f"i{at}", 1) for at in range(30)), unit="bot")
    assert len(live.update()) == 31
    live.find_robots()
    assert live.update().keys() == {"lamp"}
    store.units.release("bot")
    live.find_robots()
    assert len(live.update()) == 31


def test_a_keys_burst_is_left_out_and_its_other_days_count(store: EventStore, clock) -> None:
    settings = RobotSettings(key_burst_events=3, key_burst_factor=2)
    live = LivePopularity(store.database, 1e4, robots=settings)
    clicks = [("ring", 96), ("ring", 72), *[("lamp", 48)] * 4, ("lamp", 24), ("ring", 0)]
    events = [
        Feedback(
            event_id=f"k{at}",
            event_type="click",
            item_id=item,
            at=NOW - timedelta(hours=hours),
            unit=f"u{at}",
            key_name="web",
        )
        for at, (item, hours) in enumerate(clicks)
    ]
    store.write(WriteBatch(feedback=events))
    assert live.update() == pytest.approx({"ring": 3, "lamp": 5}, rel=0.01)
    live.find_robots()
    assert live.update() == pytest.approx({"ring": 3, "lamp": 1}, rel=0.01)
