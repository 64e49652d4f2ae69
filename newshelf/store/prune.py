"""Pruning: removal of old rows in small transactions, between the gateways' writes."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from time import sleep

from sqlalchemy import Table, delete, func, select

from newshelf.store.database import Database
from newshelf.store.rows import from_us, to_us
from newshelf.store.schema import exposures, feedback, shadow_answers

_ROWS = 1000
"""Rows of one transaction, during which no gateway can write to SQLite."""
_PAUSE_S = 0.02
_DAY_US = 86_400_000_000
_SAMPLES = 1000
_MOST_GAP_US = 7 * _DAY_US
"""Largest gap between two samples: an open shop has an answer in every week."""
_LEAST_REACH = 0.1
"""Least age of the oldest row that stays, as a share of the retention time."""


@dataclass(frozen=True)
class PruneCounts:
    """Number of removed rows by table."""

    exposures: int
    feedback: int
    shadow_answers: int


def clock_doubt(database: Database, before: datetime, now: datetime) -> str | None:
    """Return why the clock may have jumped ahead, so that pruning would remove recent rows; or
    None.

    Answers are stored in the order in which they happen; the times of a thousand of them, evenly
    spaced, must lead up to ``now``.
    """
    answer, before_us, now_us = exposures.c, to_us(before), to_us(now)
    with database.reading() as connection:
        first, last = connection.execute(select(func.min(answer.id), func.max(answer.id))).one()
        if first is None:
            return None
        query = select(answer.at_us).order_by(answer.id).limit(1)
        found = [
            connection.scalar(query.where(answer.id >= number))
            for number in range(first, last + 1, max(1, (last - first) // _SAMPLES))
        ]
    # Rows that a wrong clock stamped are later than now and prove nothing.
    times = [at_us for at_us in found if at_us is not None and at_us <= now_us]
    stays = [at_us for at_us in times if at_us >= before_us]
    if len(stays) == len(times):
        return None
    if now_us - min(stays, default=now_us) < _LEAST_REACH * (now_us - before_us):
        newest = f"{from_us(max(times)):%Y-%m-%d %H:%M}"
        return f"next to nothing would stay, and the newest answer is of {newest} UTC"
    for earlier_us, later_us in pairwise(times):
        if len(times) >= _SAMPLES // 2 and later_us >= before_us:
            days = (later_us - earlier_us) / _DAY_US
            if later_us - earlier_us > _MOST_GAP_US:
                after = f"{from_us(earlier_us):%Y-%m-%d %H:%M}"
                return f"no answer was stored for {days:.0f} days after {after} UTC"
    return None


def prune(
    database: Database, before: datetime, on_removed: Callable[[int], None] = lambda _rows: None
) -> PruneCounts:
    """Remove answers and events before a moment, also while others write.

    An old row that was stored after newer ones may stay until the next call. Rows later than now
    were stamped by a wrong clock; they go with the rows stored after them. ``on_removed`` gets the
    number of rows of each transaction.
    """
    before_us, now_us = to_us(before), to_us(datetime.now(UTC))

    def remove(table: Table) -> int:
        removed = last = 0
        waiting: list[int] = []
        while True:
            # By id, which is roughly the order in time; there is no index of times.
            page = select(table.c.id, table.c.at_us).where(table.c.id > last)
            with database.reading() as connection:
                rows = connection.execute(page.order_by(table.c.id).limit(_ROWS)).all()
            old = [row.id for row in rows if row.at_us < before_us]
            ahead = [row.id for row in rows if row.at_us > now_us]
            if not old and not ahead:
                # A later call finds older rows that come later: events may be sent late.
                return removed
            waiting += ahead
            newest = old[-1] if old else 0
            old += [number for number in waiting if number < newest]
            waiting = [number for number in waiting if number > newest]
            for start in range(0, len(old), _ROWS):
                part = old[start : start + _ROWS]
                with database.writing() as connection:
                    connection.execute(delete(table).where(table.c.id.in_(part)))
                removed += len(part)
                on_removed(len(part))
                sleep(_PAUSE_S)
            last = rows[-1].id

    # Events first: an event must not outlive its answer.
    return PruneCounts(
        feedback=remove(feedback),
        shadow_answers=remove(shadow_answers),
        exposures=remove(exposures),
    )
