"""Popularity of products by live feedback, decayed by the hour."""

import time
from collections.abc import Mapping

from sqlalchemy import func, select

from newshelf.store.database import Database
from newshelf.store.schema import feedback

_HOUR_US = 3_600_000_000
_HALF_LIVES = 8
"""Older events count less than 1/256, and are not read."""
_LEAST = 0.01
_PAGE = 5_000


class LivePopularity:
    """Sums up events as they are stored, each halved in weight per half-life.

    Args:
        database: of the event store.
        half_life_hours: time in which an event loses half its weight.
    """

    def __init__(self, database: Database, half_life_hours: float) -> None:
        self._database = database
        self._half_life = half_life_hours
        self._hour = int(time.time()) // 3600
        self._counts: dict[str, float] = {}
        self._last: int | None = None

    def update(self) -> Mapping[str, float]:
        """Read new events; return the decayed number of events by product id.

        Raises:
            Unavailable: the database does not answer.
        """
        hour = int(time.time()) // 3600
        if hour != self._hour:
            factor = self._weight(hour - self._hour)
            self._counts = {
                item: kept
                for item, count in self._counts.items()
                if (kept := count * factor) >= _LEAST
            }
            self._hour = hour
        if self._last is None:
            self._last = self._first()
        while True:
            query = select(feedback.c.id, feedback.c.item_id, feedback.c.at_us)
            query = query.where(feedback.c.id > self._last).order_by(feedback.c.id).limit(_PAGE)
            with self._database.reading() as connection:
                rows = connection.execute(query).all()
            for row in rows:
                age = max(0, self._hour - row.at_us // _HOUR_US)
                if age <= _HALF_LIVES * self._half_life:
                    self._counts[row.item_id] = self._counts.get(row.item_id, 0) + self._weight(age)
            if rows:
                self._last = rows[-1].id
            if len(rows) < _PAGE:
                return {item: round(count, 3) for item, count in self._counts.items()}

    def _first(self) -> int:
        """Return the id after which events are recent; events are stored in order of time."""
        since_us = int((time.time() - _HALF_LIVES * self._half_life * 3600) * 1e6)
        with self._database.reading() as connection:
            last = connection.scalar(select(func.max(feedback.c.id))) or 0
            low, high = 0, last
            while low < high:
                middle = (low + high) // 2
                at_us = connection.scalar(
                    select(feedback.c.at_us)
                    .where(feedback.c.id > middle)
                    .order_by(feedback.c.id)
                    .limit(1)
                )
                if at_us is not None and at_us < since_us:
                    low = middle + 1
                else:
                    high = middle
        return low

    def _weight(self, hours: float) -> float:
        return float(2.0 ** (-hours / self._half_life))
