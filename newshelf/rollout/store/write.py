"""Writes answers and events, each once."""

from collections.abc import Sequence
from operator import itemgetter
from typing import Any

from sqlalchemy import Dialect, select
from sqlalchemy.engine import Connection

from newshelf.rollout.records import Exposure, Feedback
from newshelf.rollout.store import schema
from newshelf.rollout.store.database import Database
from newshelf.rollout.store.insert import insert_new, insert_statement
from newshelf.rollout.store.join import Joined, batched, join
from newshelf.rollout.store.outcome import Outcome
from newshelf.rollout.store.rows import EXPOSURE_COLUMNS, exposure_row
from newshelf.rollout.store.shadow import SHADOW_COLUMNS, ShadowAnswer, shadow_row

__all__ = [
    "exposures_statement",
    "write_exposures",
    "write_exposures_once",
    "write_feedback",
    "write_shadow",
]

_FEEDBACK_COLUMNS = (
    "event_id",
    "event_type",
    "item_id",
    "at_us",
    "unit",
    "value",
    "request_id",
    "rollout",
    "variant",
    "position",
    "source",
)
_KEPT: frozenset[Outcome] = frozenset({"stored", "unjoined"})


def write_exposures(connection: Connection, answers: Sequence[Exposure]) -> None:
    """Insert the answers whose request is not there yet."""
    insert_new(connection, schema.exposures, EXPOSURE_COLUMNS, _rows(answers))


def write_exposures_once(database: Database, answers: Sequence[Exposure]) -> None:
    """The same of a few answers, and nothing else, in a transaction of their own."""
    database.write_once(*exposures_statement(database.dialect, answers))


def exposures_statement(
    dialect: Dialect, answers: Sequence[Exposure]
) -> tuple[str, tuple[Any, ...]]:
    """One statement for ``MOST_ROWS`` answers at most: SQL for the driver, and its values."""
    return insert_statement(dialect, schema.exposures, EXPOSURE_COLUMNS, _rows(answers))


def _rows(answers: Sequence[Exposure]) -> list[tuple[Any, ...]]:
    return sorted((exposure_row(answer) for answer in answers), key=itemgetter(0))


def write_shadow(connection: Connection, answers: Sequence[ShadowAnswer]) -> None:
    """Insert the challenger's answers that are not there yet."""
    rows = sorted((shadow_row(answer) for answer in answers), key=itemgetter(0, 1))
    insert_new(connection, schema.shadow_answers, SHADOW_COLUMNS, rows)


def write_feedback(
    connection: Connection, events: Sequence[Feedback], window_us: int
) -> list[Outcome]:
    """Join the events, and insert those that are new.

    Returns:
        What became of each.
    """
    if not events:
        return []
    seen = _present(connection, {event.event_id for event in events})
    kept: dict[str, Joined] = {}
    joined = join(connection, events, window_us)
    outcomes: list[Outcome] = []
    for one in joined:
        event_id = one.event.event_id
        repeated = event_id in seen or event_id in kept
        outcomes.append("duplicate" if repeated else one.outcome)
        if not repeated and one.outcome in _KEPT:
            kept[event_id] = one
    rows = [kept[event_id].row() for event_id in sorted(kept)]
    inserted = insert_new(
        connection, schema.feedback, _FEEDBACK_COLUMNS, rows, returning="event_id"
    )
    # Another process may have stored one since: then it is there, but not by us.
    lost = kept.keys() - set(inserted)
    return [
        "duplicate" if one.event.event_id in lost else outcome
        for one, outcome in zip(joined, outcomes, strict=True)
    ]


def _present(connection: Connection, event_ids: set[str]) -> set[str]:
    column = schema.feedback.c.event_id
    found: set[str] = set()
    for part in batched(event_ids):
        found |= set(connection.scalars(select(column).where(column.in_(part))))
    return found
