"""Removes old rows a few at a time, so that the gateways' writes pass in between."""

from collections.abc import Callable
from dataclasses import dataclass
from time import sleep

from sqlalchemy import Table, delete, select

from newshelf.rollout.store.database import Database
from newshelf.rollout.store.schema import exposures, feedback, shadow_answers

__all__ = ["Pruned", "prune"]

_ROWS = 1000
"""Of one transaction: on SQLite no gateway writes meanwhile."""
_PAUSE_S = 0.02


@dataclass(frozen=True)
class Pruned:
    """Rows that were removed."""

    exposures: int
    feedback: int
    shadow_answers: int


def prune(database: Database, before_us: int, on_removed: Callable[[int], None]) -> Pruned:
    """Remove what happened before a moment.

    Args:
        database: also while others write to it.
        before_us: microseconds since 1970, UTC.
        on_removed: told how many rows each transaction has removed.
    """

    def remove(table: Table) -> int:
        removed = last = 0
        while True:
            # By id: that is by and large the order in time, of which there is no index.
            page = select(table.c.id, table.c.at_us).where(table.c.id > last)
            with database.reading() as connection:
                rows = connection.execute(page.order_by(table.c.id).limit(_ROWS)).all()
            old = [row.id for row in rows if row.at_us < before_us]
            if not old:
                # What is older and comes later, a later call finds: events may be sent late.
                return removed
            with database.writing() as connection:
                connection.execute(delete(table).where(table.c.id.in_(old)))
            last = rows[-1].id
            removed += len(old)
            on_removed(len(old))
            sleep(_PAUSE_S)

    # Events first: one whose answer is gone could not be explained.
    return Pruned(
        feedback=remove(feedback),
        shadow_answers=remove(shadow_answers),
        exposures=remove(exposures),
    )
