"""Popularity of products by live feedback, decayed by the hour."""

import logging
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from sqlalchemy import func, select

from newshelf.catalog.robots import DAY_S, Suspect, quarantined
from newshelf.config import EventWeights, RobotSettings
from newshelf.store.database import Database
from newshelf.store.schema import feedback
from newshelf.store.units import UnitRepository

_LOG = logging.getLogger(__name__)
_HOUR_US = 3_600_000_000
_DAY_US = DAY_S * 1_000_000
_HALF_LIVES = 8
"""Older events count less than 1/256, and are not read."""
_LEAST = 0.01
_PAGE = 5_000


@dataclass(eq=False)
class LivePopularity:
    """Sums up events as they are stored, each halved in weight per half-life.

    A unit's events with a product are bounded by type and day, so events that are stored more than
    a day after newer ones do not count.
    """

    database: Database
    half_life_hours: float
    weights: EventWeights = field(default_factory=EventWeights)
    robots: RobotSettings = field(default_factory=RobotSettings)

    def __post_init__(self) -> None:
        self._weights = self.weights.model_dump()
        self._suspects: Sequence[Suspect] = ()
        self._hour = int(time.time()) // 3600
        self._restart()

    def _restart(self) -> None:
        self._counts: dict[str, float] = {}
        self._sent: dict[int, Counter[tuple[str, str, str]]] = {}
        """Events by unit, product and type, of the last two days."""
        self._last = 0
        self._known = self._suspects
        self._left_out = quarantined(self._known)

    def find_robots(self) -> None:
        """Look for suspects, whose events the next update leaves out; takes seconds."""
        window = timedelta(hours=_HALF_LIVES * self.half_life_hours)
        since = datetime.fromtimestamp(time.time(), UTC) - window
        found = UnitRepository(self.database).suspects(self.robots, since=since)
        if found != self._suspects:
            _LOG.warning("%d units or keys are in quarantine: ./run events quarantine", len(found))
            self._suspects = found

    def update(self) -> Mapping[str, float]:
        """Read new events; return the decayed weight of the events by product id."""
        hour = int(time.time()) // 3600
        if hour != self._hour:
            factor = self._weight(hour - self._hour)
            self._counts = {
                item: kept
                for item, count in self._counts.items()
                if (kept := count * factor) >= _LEAST
            }
            self._hour = hour
        with self.database.reading() as connection:
            newest = connection.scalar(select(func.max(feedback.c.id))) or 0
        # If the last events were erased, SQLite gives their ids away again.
        if newest < self._last or self._known is not self._suspects:
            self._restart()
        since_us = int((self._hour - _HALF_LIVES * self.half_life_hours) * _HOUR_US)
        event = feedback.c
        columns = event.id, event.item_id, event.unit, event.event_type, event.at_us, event.key_name
        while True:
            query = select(*columns).where(event.id > self._last, event.at_us >= since_us)
            query = query.order_by(event.id).limit(_PAGE)
            with self.database.reading() as connection:
                rows = connection.execute(query).all()
            for row in rows:
                if not self._left_out(row.unit, row.item_id, row.key_name, row.at_us // 1_000_000):
                    self._count(row.item_id, row.unit, row.event_type, row.at_us)
            if rows:
                self._last = rows[-1].id
            if len(rows) < _PAGE:
                return {item: round(count, 3) for item, count in self._counts.items() if count}

    def _count(self, item: str, unit: str, event_type: str, at_us: int) -> None:
        day, newest = at_us // _DAY_US, max(self._sent, default=0)
        if day < newest - 1:
            return
        if day > newest:
            self._sent = {one: sent for one, sent in self._sent.items() if one >= day - 1}
        sent = self._sent.setdefault(day, Counter())
        sent[unit, item, event_type] += 1
        if sent[unit, item, event_type] <= self.robots.daily:
            decayed = self._weight(max(0, self._hour - at_us // _HOUR_US))
            added = self._weights[event_type] * decayed
            self._counts[item] = self._counts.get(item, 0) + added

    def _weight(self, hours: float) -> float:
        return float(2.0 ** (-hours / self.half_life_hours))
