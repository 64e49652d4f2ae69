"""A fixed start time, and a summary of shadow answers."""

from datetime import UTC, datetime

from newshelf.store.aggregates import summarise_shadow
from newshelf.store.records import Floats
from newshelf.store.store import EventStore

START = datetime(2026, 3, 1, 12, tzinfo=UTC)


def shadow_summary(
    store: EventStore, *, since: datetime = START, rollout: str = "spring"
) -> tuple[dict[str, float], Floats]:
    with store.database.reading() as connection:
        return summarise_shadow(connection, rollout, since)
