"""Quarantine: feedback of units and keys that behave like robots is kept, and not counted."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import func, select

from newshelf.catalog.robots import DAY_S, Suspect, find_key_bursts, find_suspects
from newshelf.config import RobotSettings
from newshelf.store.database import Database
from newshelf.store.schema import feedback, insert_new, now_us, released_units, span_us, to_us


class Quarantine:
    """Finds and releases units. Every method is one transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def suspects(
        self, settings: RobotSettings, *, since: datetime | None = None
    ) -> Sequence[Suspect]:
        """Return the suspects that are not released, by their events since a moment."""
        if not settings.quarantine:
            return []
        event = feedback.c
        day = event.at_us // span_us(DAY_S)
        of_unit, of_key = (event.unit, event.item_id, day), (event.key_name, day)
        counts = select(*of_unit, func.count()).group_by(*of_unit).order_by(event.unit)
        by_key = select(*of_key, func.count()).group_by(*of_key).order_by(event.key_name)
        by_key = by_key.where(event.key_name.is_not(None))
        if since is not None:
            recent = event.at_us >= to_us(since)
            counts, by_key = counts.where(recent), by_key.where(recent)
        with self._database.reading() as connection:
            rows = connection.execution_options(yield_per=10_000).execute(counts)
            found = find_suspects(map(tuple, rows), settings)
            found += find_key_bursts(map(tuple, connection.execute(by_key)), settings)
            released = set(connection.scalars(select(released_units.c.unit)))
        return [one for one in found if one.unit not in released]

    def release(self, unit: str) -> None:
        """Count a unit's events, or a key's of a day, from now on, whatever it does."""
        with self._database.writing() as connection:
            at_us = connection.execute(select(now_us())).scalar_one()
            insert_new(connection, released_units, ("unit", "at_us"), [(unit, at_us)])
