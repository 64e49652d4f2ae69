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
    """Sums up events as they are stored, each halved in weight per half-life."""

    def __init__(self, database: Database, half_life_hours: float) -> None:
        self._database = database
        self._half_life = half_life_hours
        self._hour = int(time.time()) // 3600
        self._counts: dict[str, float] = {}
        self._last = 0

    def update(self) -> Mapping[str, float]:
        """Read new events; return the decayed number of events by product id."""
        hour = int(time.time()) // 3600
        if hour != self._hour:
            factor = self._weight(hour - self._hour)
            self._counts = {
                item: kept
                for item, count in self._counts.items()
                if (kept := count * factor) >= _LEAST
            }
            self._hour = hour
        with self._database.reading() as connection:
            newest = connection.scalar(select(func.max(feedback.c.id))) or 0
        if newest < self._last:
            # The last events were erased, and SQLite gives their ids away again.
            self._counts, self._last = {}, 0
        since_us = int((self._hour - _HALF_LIVES * self._half_life) * _HOUR_US)
        while True:
            query = select(feedback.c.id, feedback.c.item_id, feedback.c.at_us)
            query = query.where(feedback.c.id > self._last, feedback.c.at_us >= since_us)
            query = query.order_by(feedback.c.id).limit(_PAGE)
            with self._database.reading() as connection:
                rows = connection.execute(query).all()
            for row in rows:
                weight = self._weight(max(0, self._hour - row.at_us // _HOUR_US))
                self._counts[row.item_id] = self._counts.get(row.item_id, 0) + weight
            if rows:
                self._last = rows[-1].id
            if len(rows) < _PAGE:
                return {item: round(count, 3) for item, count in self._counts.items()}

    def _weight(self, hours: float) -> float:
        return float(2.0 ** (-hours / self._half_life))
