"""Writes answers and events, each once.

What a transaction of the gateway writes.

Finds the answer that showed the product of an event.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import orjson
from sqlalchemy import Dialect, select
from sqlalchemy.engine import Connection
from sqlalchemy.sql.elements import ColumnElement
from sqlalchemy.sql.functions import func

from newshelf.store import schema
from newshelf.store.aggregates import SHADOW_COLUMNS, ShadowAnswer, shadow_row
from newshelf.store.database import Database
from newshelf.store.records import Exposure, Feedback, Outcome
from newshelf.store.rows import (
    EXPOSURE_COLUMNS,
    MOST_ROWS,
    exposure_row,
    insert_new,
    insert_statement,
    item_key,
    to_us,
)
from newshelf.store.schema import exposures


@dataclass(frozen=True)
class WriteBatch:
    """What one transaction writes."""

    exposures: Sequence[Exposure] = ()
    feedback: Sequence[Feedback] = ()
    """May name the requests of ``exposures``."""
    shadow: Sequence[ShadowAnswer] = ()

    @property
    def is_one_statement(self) -> bool:
        """Whether one statement writes it: the most of what a gateway writes."""
        return not self.feedback and not self.shadow and 0 < len(self.exposures) <= MOST_ROWS


_ANSWER = (
    exposures.c.request_id,
    exposures.c.unit,
    exposures.c.at_us,
    exposures.c.rollout,
    exposures.c.variant,
    exposures.c.ranking,
)
_MOST_IDS = 500
_MOST_ANSWERS = 200
"""The last of a unit, among which a product is looked for: more than a shopper has in a day. A
robot has thousands, and others would wait while all of them are searched."""


@dataclass(frozen=True)
class Joined:
    """An event, and where its product was shown."""

    event: Feedback
    outcome: Outcome
    """As if no other process stored the same event."""
    answer: Any = None
    """The exposure's row, of an event that is ``stored``."""
    shown: tuple[int, str] | None = None
    """Position and source of the product in that answer."""

    def row(self) -> tuple[Any, ...]:
        """The values of the table's columns, from ``event_id`` to ``source``."""
        event, answer, shown = self.event, self.answer, self.shown
        kept = (event.event_id, event.event_type, event.item_id, to_us(event.at))
        if answer is None or shown is None:
            return (*kept, event.unit, event.value, None, None, None, None, None)
        seen = (answer.request_id, answer.rollout, answer.variant, *shown)
        return (*kept, answer.unit, event.value, *seen)

    def is_as(self, row: Sequence[Any]) -> bool:
        """Whether the event says what a stored row says.

        The time is not compared: whoever sends an event again may stamp it again.
        """
        event = self.event
        _, event_type, item_id, _, unit, value, request_id, *_ = row
        # An event that names its answer may name any unit: the answer's is stored.
        given, kept = (
            (event.unit, unit) if event.request_id is None else (event.request_id, request_id)
        )
        same = (event.event_type, event.item_id, event.value, given)
        return same == (event_type, item_id, value, kept)


def join(connection: Connection, events: Sequence[Feedback], window_us: int) -> list[Joined]:
    """Join each event by its request, or to its unit's last exposure of the product.

    Args:
        connection: in a transaction.
        events: in the order of the result.
        window_us: an event without a request is joined to exposures from ``at - window`` to
            ``at``, both included; one with a request may be as much earlier than its answer,
            since clocks differ.
    """
    answers = _answers(connection, {event.request_id for event in events if event.request_id})
    return [_join(connection, event, answers, window_us) for event in events]


def batched(values: Collection[str]) -> Iterator[list[str]]:
    """Parts that are small enough for one ``IN``."""
    ordered = sorted(values)
    for start in range(0, len(ordered), _MOST_IDS):
        yield ordered[start : start + _MOST_IDS]


def _answers(connection: Connection, requests: Collection[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for part in batched(requests):
        rows = connection.execute(select(*_ANSWER).where(exposures.c.request_id.in_(part)))
        found |= {row.request_id: row for row in rows}
    return found


def _join(
    connection: Connection, event: Feedback, answers: Mapping[str, Any], window_us: int
) -> Joined:
    if event.request_id is not None:
        answer = answers.get(event.request_id)
        if answer is None:
            return Joined(event, "unknown_request")
        if to_us(event.at) < answer.at_us - window_us:
            return Joined(event, "before_answer")
        shown = _shown(answer, event.item_id)
        return Joined(event, "stored" if shown else "unknown_item", answer, shown)
    if event.unit is None:
        return Joined(event, "unknown_request")
    answer = _last(connection, event.unit, event.item_id, to_us(event.at), window_us)
    if answer is None:
        return Joined(event, "unjoined")
    return Joined(event, "stored", answer, _shown(answer, event.item_id))


def _last(connection: Connection, unit: str, item_id: str, at_us: int, window_us: int) -> Any:
    answer = exposures.c
    newest_first = (answer.at_us.desc(), answer.id.desc())
    recent = (
        select(answer.id)
        .where(answer.unit == unit, answer.at_us.between(at_us - window_us, at_us))
        .order_by(*newest_first)
        .limit(_MOST_ANSWERS)
    )
    query = (
        select(*_ANSWER)
        .where(answer.id.in_(recent), _position(connection, item_key(item_id)) > 0)
        .order_by(*newest_first)
        .limit(1)
    )
    return connection.execute(query).first()


def _position(connection: Connection, text: str) -> ColumnElement[int]:
    """Where ``text`` begins in the ranking, from 1; 0 when it is not there."""
    find = func.instr if connection.dialect.name == "sqlite" else func.strpos
    return find(exposures.c.ranking, text)


def _shown(answer: Any, item_id: str) -> tuple[int, str] | None:
    # Searched first: a ranking may have a thousand products, a batch of events a thousand rankings.
    if item_key(item_id) not in answer.ranking:
        return None
    ranking = orjson.loads(answer.ranking)
    return next((place, source) for name, place, _, source, _ in ranking if name == item_id)


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
