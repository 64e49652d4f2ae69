"""Quarantine: what the database finds, and what counts no more."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from newshelf.config import RobotSettings
from newshelf.store.export import recorded_events
from newshelf.store.records import Feedback
from newshelf.store.store import EventStore
from newshelf.store.write import WriteBatch

SETTINGS = RobotSettings(burst_events=20, fixation_days=3)
MIDNIGHT = datetime(2026, 3, 1, tzinfo=UTC)


def event(number: int, unit: str, item: str, day: int = 0) -> Feedback:
    at = MIDNIGHT + timedelta(days=day, seconds=number)
    return Feedback(event_id=f"e{number}", event_type="view", item_id=item, at=at, unit=unit)


def fill(store: EventStore) -> None:
    """Twenty shoppers, a robot that views much on a day, and one that comes back every day."""
    seen = [(f"u{at % 20}", f"i{at % 7}", 30) for at in range(60)]
    burst = [("fast", f"i{at % 5}", 2) for at in range(90)] + [("fast", "i1", 3)]
    slow = [("slow", item, day) for day in range(24) for item in ("i1", f"i{day % 12}")]
    rows = enumerate(seen + burst + slow)
    store.write(WriteBatch(feedback=[event(at, *row) for at, row in rows]))


def test_a_burst_and_a_slow_robot_are_found(store: EventStore) -> None:
    fill(store)
    found = store.units.suspects(SETTINGS)
    assert [(one.unit, one.item_id, one.found, one.events) for one in found] == [
        ("fast", None, 90, 91),
        ("slow", "i1", 24, 26),
    ]


def test_what_is_before_a_moment_is_not_looked_at(store: EventStore) -> None:
    fill(store)
    found = store.units.suspects(SETTINGS, since=MIDNIGHT + timedelta(days=10))
    assert [(one.unit, one.item_id, one.found) for one in found] == [("slow", "i1", 14)]


def test_training_gets_nothing_that_is_in_quarantine(store: EventStore) -> None:
    fill(store)
    kept = list(recorded_events(store, SETTINGS))
    assert {one.unit for one in kept if one.unit != "slow"} == {f"u{at}" for at in range(20)}
    assert {one.item_id for one in kept if one.unit == "slow"} == {
        f"i{at}" for at in range(12) if at != 1
    }
    assert len(list(recorded_events(store))) == len(list(store.feedback())) == 60 + 91 + 48
    off = SETTINGS.model_copy(update={"quarantine": False})
    assert len(list(recorded_events(store, off))) == 60 + 91 + 48


def test_a_released_unit_counts(store: EventStore) -> None:
    fill(store)
    for _ in range(2):
        store.units.release("fast")
    assert [one.unit for one in store.units.suspects(SETTINGS)] == ["slow"]


def test_an_erased_unit_leaves_no_release(url: str, tmp_path: Path) -> None:
    with EventStore.open(url) as store:
        fill(store)
        store.units.release("fast")
        assert store.units.erase("fast", settle_s=0).feedback == 91
        with store.database.reading() as connection:
            assert connection.exec_driver_sql("SELECT * FROM released_units").all() == []


def through(store: EventStore, key: str | None, per_day: list[int]) -> None:
    """Store views by a new unit each, through a key, and the number of each day."""
    begin = len(list(store.feedback()))
    days = [day for day, count in enumerate(per_day) for _ in range(count)]
    rows = [event(begin + at, f"n{begin + at}", f"i{at % 9}", day) for at, day in enumerate(days)]
    keyed = [one.model_copy(update={"key_name": key}) for one in rows]
    store.write(WriteBatch(feedback=keyed))


KEYS = SETTINGS.model_copy(update={"key_burst_events": 50, "key_burst_factor": 4.0})


def test_a_keys_day_of_far_more_events_than_its_others_is_found(store: EventStore) -> None:
    through(store, "web", [20, 25, 130, 22])
    through(store, "app", [40, 160, 45, 50])
    through(store, None, [1, 1, 300])
    found = store.units.suspects(KEYS)
    assert [(one.unit, one.item_id, one.found, one.limit, one.events) for one in found] == [
        ("key web on 2026-03-03", None, 130, 94, 130)
    ]
    assert len(list(recorded_events(store, KEYS))) == 67 + 295 + 302
    kept = [one for one in recorded_events(store, KEYS) if one.key_name == "web"]
    assert MIDNIGHT.day + 2 not in {one.at.day for one in kept}
    assert store.units.suspects(KEYS.model_copy(update={"quarantine": False})) == []


def test_few_events_are_no_burst_of_a_key_and_a_released_day_counts(store: EventStore) -> None:
    through(store, "email", [2, 2, 49])
    assert store.units.suspects(KEYS) == []
    through(store, "email", [0, 0, 2])
    (found,) = store.units.suspects(KEYS)
    store.units.release(found.unit)
    assert store.units.suspects(KEYS) == []
    assert len(list(recorded_events(store, KEYS))) == 55
