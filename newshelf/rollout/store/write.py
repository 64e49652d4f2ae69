"""Writes answers and events, each once."""

from collections.abc import Collection, Mapping, Sequence
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


def write_feedback(database: Database, events: Sequence[Feedback], window_us: int) -> list[Outcome]:
    """Join the events, and insert those that are new.

    SQLite has one lock for all who write: events are joined before it is taken.

    Returns:
        What became of each.
    """
    if not events:
        return []
    with database.reading() as connection:
        stored = _stored(connection, {event.event_id for event in events})
        joined = join(connection, events, window_us)
    outcomes, new = _outcomes(joined, stored)
    if new:
        with database.writing() as connection:
            rows = [new[event_id] for event_id in sorted(new)]
            inserted = insert_new(
                connection, schema.feedback, _FEEDBACK_COLUMNS, rows, returning="event_id"
            )
            if lost := new.keys() - set(inserted):
                # Another process has stored them since.
                outcomes, _ = _outcomes(joined, stored | _stored(connection, lost))
    return outcomes


def _outcomes(
    joined: Sequence[Joined], stored: Mapping[str, tuple[Any, ...]]
) -> tuple[list[Outcome], dict[str, tuple[Any, ...]]]:
    """What becomes of each event, and the new rows, by their ids."""
    new: dict[str, tuple[Any, ...]] = {}
    outcomes: list[Outcome] = []
    for one in joined:
        event_id = one.event.event_id
        earlier = stored.get(event_id) or new.get(event_id)
        if earlier is not None:
            outcomes.append("duplicate" if one.is_as(earlier) else "conflict")
            continue
        outcomes.append(one.outcome)
        if one.outcome in _KEPT:
            new[event_id] = one.row()
    return outcomes, new


def _stored(connection: Connection, event_ids: Collection[str]) -> dict[str, tuple[Any, ...]]:
    columns = [schema.feedback.c[name] for name in _FEEDBACK_COLUMNS]
    found: dict[str, tuple[Any, ...]] = {}
    for part in batched(event_ids):
        rows = connection.execute(select(*columns).where(schema.feedback.c.event_id.in_(part)))
        found |= {row.event_id: tuple(row) for row in rows}
    return found
