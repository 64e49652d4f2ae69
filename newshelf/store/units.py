"""Units: what they did last, merges of visitors who log in, erasure, and quarantine.

An erased unit leaves its tombstone, the SHA-256 of its id, by which later rows are refused. Writers
know tombstones that are at most ``FRESH_S`` old, so an erasure removes rows once more after that.
"""

import asyncio
import hashlib
import math
import threading
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from operator import itemgetter
from typing import Any

import psycopg
from sqlalchemy import Table, delete, func, select, text
from sqlalchemy.engine import Connection

from newshelf.catalog.robots import DAY_S, Suspect, find_key_bursts, find_suspects
from newshelf.config import RobotSettings
from newshelf.errors import Conflict, ErasedUnit, InvalidField, Unavailable
from newshelf.store.database import Database, lock
from newshelf.store.records import Exposure, StoredFeedback
from newshelf.store.schema import (
    erased_units,
    exposure,
    exposures,
    feedback,
    insert_new,
    now_us,
    parts,
    released_units,
    span_us,
    stored_feedback,
    to_us,
    unit_merges,
)

FRESH_S = 1.0
"""Age up to which a writer's tombstones are used without reading them again."""
_SETTLE_S = 2 * FRESH_S
"""Seconds after which every writer knows a tombstone and has committed what it had begun."""
_OVERLAP_US = 60_000_000
"""A tombstone may be committed that much later than its time."""
_READ_TIMEOUT_S = 0.25
_LOCK = 0x6E657775
"""Lock of merges and erasures."""


@dataclass(frozen=True, slots=True)
class Interaction:
    """An event of a unit with a product."""

    item_id: str
    event_type: str
    at_us: int


@dataclass(frozen=True)
class UnitRecord:
    """Everything that the store keeps about a unit and the visitors merged into it."""

    unit: str
    visitors: Sequence[str]
    merged_into: str | None
    erased: bool
    first_seen: datetime | None
    last_seen: datetime | None
    exposures: Sequence[Exposure]
    feedback: Sequence[StoredFeedback]


@dataclass(frozen=True)
class Erasure:
    """Number of erased rows."""

    visitors: int
    exposures: int
    feedback: int


class UnitRepository:
    """Units in a database. Every method is one transaction, unless it says otherwise."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._tombstones: set[str] = set()
        self._newest_us = 0
        self._read_s = -math.inf
        self._refreshing = threading.Lock()
        self._connecting = asyncio.Lock()
        self._connection: psycopg.AsyncConnection[Any] | None = None

    def history(self, unit: str, limit: int) -> list[Interaction]:
        """Return the last ``limit`` interactions of a unit and of its visitors, newest first."""
        rows = self._database.execute_once(*self._history(unit, limit))
        return _interactions(rows, limit)

    async def read_history(self, unit: str, limit: int) -> list[Interaction]:
        """Return ``history`` in an event loop, which SQLite blocks for some microseconds."""
        if self._database.sqlite_file is not None:
            return self.history(unit, limit)
        sql, values = self._history(unit, limit)
        try:
            async with asyncio.timeout(_READ_TIMEOUT_S):
                cursor = await (await self._connected()).execute(sql, values)
                return _interactions(await cursor.fetchall(), limit)
        except (psycopg.Error, TimeoutError, OSError) as error:
            await self.disconnect()
            raise Unavailable(f"a history cannot be read: {error!r}") from error

    async def disconnect(self) -> None:
        """Close the event loop's connection; the next read opens another."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    def merge(self, visitor: str, unit: str) -> None:
        """Let what ``visitor`` did be ``unit``'s; raise ``Conflict`` if one is merged otherwise."""
        if visitor == unit:
            raise InvalidField("a visitor cannot be merged into itself", field="unit")
        with self._database.writing() as connection:
            lock(connection, _LOCK)
            gone = _erased(connection, (visitor, unit))
            for field, name in (("visitor", visitor), ("unit", unit)):
                if _digest(name) in gone:
                    raise ErasedUnit(f"this {field} has been erased", field=field)
            known = _merged_into(connection, visitor)
            if known == unit:
                return
            if known is not None:
                raise Conflict("this visitor is merged into another unit", field="visitor")
            if unit in _family(connection, visitor):
                raise Conflict("this unit is merged into the visitor", field="unit")
            row = {"visitor": visitor, "unit": unit, "at_us": now_us()}
            connection.execute(unit_merges.insert().values(row))

    def show(self, unit: str) -> UnitRecord:
        """Return everything that is kept about a unit and the visitors merged into it."""
        with self._database.reading() as connection:
            family = _family(connection, unit)
            shown = [exposure(row) for row in _rows(connection, exposures, family)]
            done = [stored_feedback(row) for row in _rows(connection, feedback, family)]
            times = [one.at for one in shown] + [one.at for one in done]
            return UnitRecord(
                unit,
                visitors=[name for name in family if name != unit],
                merged_into=_merged_into(connection, unit),
                erased=bool(_erased(connection, (unit,))),
                first_seen=min(times, default=None),
                last_seen=max(times, default=None),
                exposures=shown,
                feedback=done,
            )

    def erase(self, unit: str, *, settle_s: float = _SETTLE_S) -> Erasure:
        """Remove everything about a unit and the visitors merged into it; refuse them from now on.

        Two transactions, ``settle_s`` apart, until every writer knows; an interrupted call may be
        repeated. SQLite's file and log hold nothing of the rows afterwards.
        """
        with self._database.writing() as connection:
            lock(connection, _LOCK)
            family = _family(connection, unit)
            at_us = connection.execute(select(now_us())).scalar_one()
            rows = sorted((_digest(name), at_us) for name in family)
            insert_new(connection, erased_units, ("digest", "at_us"), rows)
            counts = _remove(connection, family)
        self._refresh()
        time.sleep(settle_s)
        with self._database.writing() as connection:
            late = _remove(connection, family)
        self._database.truncate_log()
        return Erasure(
            len(family) - 1, counts.exposures + late.exposures, counts.feedback + late.feedback
        )

    def erased(self, units: Iterable[str | None], *, max_age_s: float = FRESH_S) -> set[str]:
        """Return those of ``units`` that are erased, by tombstones of at most ``max_age_s``."""
        if time.monotonic() - self._read_s > max_age_s:
            self._refresh()
        if not self._tombstones:
            return set()
        return {unit for unit in units if unit is not None and _digest(unit) in self._tombstones}

    def suspects(
        self, settings: RobotSettings, *, since: datetime | None = None
    ) -> Sequence[Suspect]:
        """Return the suspects in quarantine, by their events since a moment.

        Feedback of units and keys that behave like robots is kept, and not counted.
        """
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

    def _refresh(self) -> None:
        with self._refreshing:
            read_s = time.monotonic()
            column = erased_units.c.at_us
            query = select(erased_units).where(column > self._newest_us - _OVERLAP_US)
            with self._database.reading() as connection:
                rows = connection.execute(query).all()
            self._tombstones.update(row.digest for row in rows)
            self._newest_us = max((row.at_us for row in rows), default=self._newest_us)
            self._read_s = read_s

    def _history(self, unit: str, limit: int) -> tuple[str, tuple[Any, ...]]:
        sqlite = self._database.sqlite_file is not None
        sql = _HISTORY if sqlite else _HISTORY.replace("?", "%s")
        return sql, (unit, unit, limit, limit)

    async def _connected(self) -> psycopg.AsyncConnection[Any]:
        async with self._connecting:
            if self._connection is None:
                self._connection = await self._database.connect_async()
            return self._connection


_FAMILY = text("""WITH RECURSIVE visitors (id) AS (
    SELECT visitor FROM unit_merges WHERE unit = :unit
    UNION SELECT merged.visitor
    FROM unit_merges AS merged JOIN visitors ON merged.unit = visitors.id
)
SELECT id FROM visitors""")
# The unit's own rows are read apart, in the order of their index.
_HISTORY = """WITH RECURSIVE visitors (id) AS (
    SELECT visitor FROM unit_merges WHERE unit = ?
    UNION SELECT merged.visitor
    FROM unit_merges AS merged JOIN visitors ON merged.unit = visitors.id
)
SELECT * FROM (
    SELECT item_id, event_type, at_us, id FROM feedback
    WHERE unit = ? ORDER BY at_us DESC, id DESC LIMIT ?
) AS own
UNION ALL SELECT * FROM (
    SELECT item_id, event_type, at_us, id FROM feedback
    WHERE unit IN (SELECT id FROM visitors) ORDER BY at_us DESC, id DESC LIMIT ?
) AS earlier"""


def _interactions(rows: Iterable[Any], limit: int) -> list[Interaction]:
    newest_first = sorted(rows, key=itemgetter(2, 3), reverse=True)
    return [Interaction(*row[:3]) for row in newest_first[:limit]]


def _digest(unit: str) -> str:
    return hashlib.sha256(unit.encode(errors="surrogatepass")).hexdigest()


def _family(connection: Connection, unit: str) -> list[str]:
    """Return the unit, and the visitors merged into it or into one of them."""
    return [unit, *connection.scalars(_FAMILY, {"unit": unit})]


def _merged_into(connection: Connection, unit: str) -> str | None:
    return connection.scalar(select(unit_merges.c.unit).where(unit_merges.c.visitor == unit))


def _erased(connection: Connection, units: Collection[str]) -> set[str]:
    digests = [_digest(unit) for unit in units]
    column = erased_units.c.digest
    return set(connection.scalars(select(column).where(column.in_(digests))))


def _rows(connection: Connection, table: Table, units: Sequence[str]) -> Iterator[Any]:
    for part in parts(units):
        chosen = table.c.unit.in_(part)
        yield from connection.execute(select(table).where(chosen).order_by(table.c.id))


def _remove(connection: Connection, units: Sequence[str]) -> Erasure:
    counts = []
    columns = (released_units.c.unit, unit_merges.c.visitor, exposures.c.unit, feedback.c.unit)
    for column in columns:
        removed = 0
        for part in parts(units):
            removed += connection.execute(delete(column.table).where(column.in_(part))).rowcount
        counts.append(removed)
    return Erasure(*counts[1:])
