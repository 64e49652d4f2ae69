"""Removes old rows a few at a time, so that the gateways' writes pass in between."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from time import sleep

from sqlalchemy import Table, delete, func, select

from newshelf.store.database import Database
from newshelf.store.rows import from_us
from newshelf.store.schema import exposures, feedback, shadow_answers

_ROWS = 1000
"""Of one transaction: on SQLite no gateway writes meanwhile."""
_PAUSE_S = 0.02
_DAY_US = 86_400_000_000
_SAMPLES = 1000
_MOST_GAP_US = 7 * _DAY_US
"""Between two samples of that many: a shop that is open has no such week."""
_LEAST_REACH = 0.1
"""Of the time that is to be kept: how far what stays must reach back."""


@dataclass(frozen=True)
class Pruned:
    """Rows that were removed."""

    exposures: int
    feedback: int
    shadow_answers: int


def clock_doubt(database: Database, before_us: int, now_us: int) -> str | None:
    """Why the clock may have jumped ahead, so that ``before_us`` is younger than it seems.

    Answers are stored in the order in which they happen; a thousand of them, at equal distances,
    tell whether they lead up to the clock's time.

    Returns:
        The reason in words; None where all is well, or nothing would be removed.
    """
    answer = exposures.c
    with database.reading() as connection:
        first, last = connection.execute(select(func.min(answer.id), func.max(answer.id))).one()
        if first is None:
            return None
        query = select(answer.at_us).order_by(answer.id).limit(1)
        found = [
            connection.scalar(query.where(answer.id >= number))
            for number in range(first, last + 1, max(1, (last - first) // _SAMPLES))
        ]
    # What a clock that was ahead has stamped is later than now, and tells nothing.
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
    database: Database, before_us: int, now_us: int, on_removed: Callable[[int], None]
) -> Pruned:
    """Remove what happened before a moment.

    Args:
        database: also while others write to it.
        before_us: microseconds since 1970, UTC.
        now_us: rows that are later were stamped by a wrong clock, and go with those that were
            stored after them.
        on_removed: told how many rows each transaction has removed.
    """

    def remove(table: Table) -> int:
        removed = last = 0
        waiting: list[int] = []
        while True:
            # By id: that is by and large the order in time, of which there is no index.
            page = select(table.c.id, table.c.at_us).where(table.c.id > last)
            with database.reading() as connection:
                rows = connection.execute(page.order_by(table.c.id).limit(_ROWS)).all()
            old = [row.id for row in rows if row.at_us < before_us]
            ahead = [row.id for row in rows if row.at_us > now_us]
            if not old and not ahead:
                # What is older and comes later, a later call finds: events may be sent late.
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

    # Events first: one whose answer is gone could not be explained.
    return Pruned(
        feedback=remove(feedback),
        shadow_answers=remove(shadow_answers),
        exposures=remove(exposures),
    )
