"""Reads records back, oldest first, a page at a time: no transaction stays open between."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Table, func, select
from sqlalchemy.engine import Connection
from sqlalchemy.sql.elements import ColumnElement

from newshelf.rollout.records import VARIANTS, Exposure
from newshelf.rollout.store import schema
from newshelf.rollout.store.clock import from_us
from newshelf.rollout.store.database import Database
from newshelf.rollout.store.rows import exposure

__all__ = ["StoredFeedback", "last_answer_at", "read_exposures", "read_feedback"]

_PAGE_ROWS = 5000


@dataclass(frozen=True)
class StoredFeedback:
    """An event with the answer that it was joined to."""

    event_id: str
    event_type: str
    item_id: str
    at: datetime
    unit: str
    value: float | None
    request_id: str | None
    """None, like all that follows, when no answer showed the product."""
    rollout: str | None
    variant: str | None
    position: int | None
    """From 1, of the product in the answer."""
    source: str | None
    """Of the product in the answer."""


def read_exposures(database: Database, rollout: str | None) -> Iterator[Exposure]:
    """All answers, or those of one rollout, in the order in which they were stored."""
    for row in _rows(database, schema.exposures, rollout):
        yield exposure(row)


def read_feedback(database: Database, rollout: str | None) -> Iterator[StoredFeedback]:
    """All events, or those of one rollout, in the order in which they were stored."""
    for row in _rows(database, schema.feedback, rollout):
        values = {**row._mapping, "at": from_us(row.at_us)}
        yield StoredFeedback(**{name: values[name] for name in StoredFeedback.__dataclass_fields__})


def last_answer_at(connection: Connection, rollout: str) -> datetime | None:
    """When a rollout's split answered last; None before its first answer."""
    answer = schema.exposures.c
    last = select(func.max(answer.at_us)).where(answer.rollout == rollout)
    # By variant, as the index is: over all of them it would look at every answer.
    moments = [connection.scalar(last.where(answer.variant == variant)) for variant in VARIANTS]
    return max((from_us(at_us) for at_us in moments if at_us is not None), default=None)


def _rows(database: Database, table: Table, rollout: str | None) -> Iterator[Any]:
    last = 0
    only: list[ColumnElement[bool]] = [] if rollout is None else [table.c.rollout == rollout]
    while True:
        query = select(table).where(table.c.id > last, *only).order_by(table.c.id)
        with database.reading() as connection:
            rows = connection.execute(query.limit(_PAGE_ROWS)).all()
        yield from rows
        if len(rows) < _PAGE_ROWS:
            return
        last = rows[-1].id
