"""Writing answers, shadow answers and feedback, each once; events are joined to answers."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import orjson
from sqlalchemy import Dialect, select
from sqlalchemy.engine import Connection
from sqlalchemy.sql.functions import func

from newshelf.store import schema
from newshelf.store.database import Database
from newshelf.store.records import Exposure, Feedback, FeedbackOutcome, ShadowAnswer
from newshelf.store.schema import (
    EXPOSURE_COLUMNS,
    MOST_ROWS,
    SHADOW_COLUMNS,
    exposure_row,
    exposures,
    insert_new,
    insert_statement,
    item_key,
    parts,
    shadow_row,
    to_us,
)


@dataclass(frozen=True)
class WriteBatch:
    """Rows that are written together."""

    exposures: Sequence[Exposure] = ()
    feedback: Sequence[Feedback] = ()
    """May name requests of ``exposures``."""
    shadow: Sequence[ShadowAnswer] = ()

    @property
    def is_one_statement(self) -> bool:
        """Return True when one statement writes the batch, as for most of a gateway's batches."""
        return not self.feedback and not self.shadow and 0 < len(self.exposures) <= MOST_ROWS


_ANSWER = (
    exposures.c.request_id,
    exposures.c.unit,
    exposures.c.at_us,
    exposures.c.rollout,
    exposures.c.variant,
    exposures.c.ranking,
)
_MOST_ANSWERS = 200
"""Last answers of a unit that are searched for a product: more than a shopper gets in a day. A
robot gets thousands, and searching them all would delay others."""


@dataclass(frozen=True)
class JoinedEvent:
    """An event and the exposure of its product."""

    event: Feedback
    outcome: FeedbackOutcome
    """If no other process stores the same event."""
    answer: Any = None
    """Row of the exposure, if the outcome is ``stored``."""
    shown: tuple[int, str] | None = None
    """Position and source of the product in that answer."""

    def row(self) -> tuple[Any, ...]:
        """Return the values of ``_FEEDBACK_COLUMNS``."""
        event, answer, shown = self.event, self.answer, self.shown
        kept = (event.event_id, event.event_type, event.item_id, to_us(event.at))
        if answer is None or shown is None:
            return (*kept, event.unit, event.value, None, None, None, None, None, event.key_name)
        seen = (answer.request_id, answer.rollout, answer.variant, *shown)
        return (*kept, answer.unit, event.value, *seen, event.key_name)

    def equals(self, row: Sequence[Any]) -> bool:
        """Return whether a stored row is this event, whose repetition may have another time."""
        event = self.event
        _, event_type, item_id, _, unit, value, request_id, *_ = row
        # An event with a request id may name any unit: the answer's unit is stored.
        given, kept = (
            (event.unit, unit) if event.request_id is None else (event.request_id, request_id)
        )
        same = (event.event_type, event.item_id, event.value, given)
        return same == (event_type, item_id, value, kept)


def join(connection: Connection, events: Sequence[Feedback], window_us: int) -> list[JoinedEvent]:
    """Join each event to its request, or to its unit's last exposure of the product.

    An event without a request id is joined to exposures from ``at - window`` to ``at``, inclusive;
    one with a request id may be earlier than its answer by the same time, since clocks differ.
    """
    answers = _answers(connection, {event.request_id for event in events if event.request_id})
    return [_join(connection, event, answers, window_us) for event in events]


def _answers(connection: Connection, requests: Collection[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for part in parts(sorted(requests)):
        rows = connection.execute(select(*_ANSWER).where(exposures.c.request_id.in_(part)))
        found |= {row.request_id: row for row in rows}
    return found


def _join(
    connection: Connection, event: Feedback, answers: Mapping[str, Any], window_us: int
) -> JoinedEvent:
    if event.request_id is not None:
        answer = answers.get(event.request_id)
        if answer is None:
            return JoinedEvent(event, "unknown_request")
        if to_us(event.at) < answer.at_us - window_us:
            return JoinedEvent(event, "before_answer")
        shown = _shown(answer, event.item_id)
        return JoinedEvent(event, "stored" if shown else "unknown_item", answer, shown)
    if event.unit is None:
        return JoinedEvent(event, "unknown_request")
    answer = _last(connection, event.unit, event.item_id, to_us(event.at), window_us)
    if answer is None:
        return JoinedEvent(event, "unjoined")
    return JoinedEvent(event, "stored", answer, _shown(answer, event.item_id))


def _last(connection: Connection, unit: str, item_id: str, at_us: int, window_us: int) -> Any:
    answer = exposures.c
    newest_first = (answer.at_us.desc(), answer.id.desc())
    recent = (
        select(answer.id)
        .where(answer.unit == unit, answer.at_us.between(at_us - window_us, at_us))
        .order_by(*newest_first)
        .limit(_MOST_ANSWERS)
    )
    # The place in the ranking, from 1; 0 if it is absent.
    find = func.instr if connection.dialect.name == "sqlite" else func.strpos
    query = (
        select(*_ANSWER)
        .where(answer.id.in_(recent), find(answer.ranking, item_key(item_id)) > 0)
        .order_by(*newest_first)
        .limit(1)
    )
    return connection.execute(query).first()


def _shown(answer: Any, item_id: str) -> tuple[int, str] | None:
    # Search before parsing: a batch may have a thousand rankings of a thousand products.
    if item_key(item_id) not in answer.ranking:
        return None
    ranking = orjson.loads(answer.ranking)
    return next((place, source) for name, place, _, source, _ in ranking if name == item_id)


_FEEDBACK_COLUMNS = tuple(column.name for column in schema.feedback.c if not column.primary_key)
_KEPT: frozenset[FeedbackOutcome] = frozenset({"stored", "unjoined"})


def write_exposures(connection: Connection, answers: Sequence[Exposure]) -> None:
    """Insert the answers whose request id is new."""
    insert_new(connection, schema.exposures, EXPOSURE_COLUMNS, _rows(answers))


def exposures_statement(
    dialect: Dialect, answers: Sequence[Exposure]
) -> tuple[str, tuple[Any, ...]]:
    """Return the SQL and values that insert at most ``MOST_ROWS`` answers."""
    return insert_statement(dialect, schema.exposures, EXPOSURE_COLUMNS, _rows(answers))


def _rows(answers: Sequence[Exposure]) -> list[tuple[Any, ...]]:
    return sorted((exposure_row(answer) for answer in answers), key=itemgetter(0))


def write_shadow(connection: Connection, answers: Sequence[ShadowAnswer]) -> None:
    """Insert the shadow answers that are new."""
    rows = sorted((shadow_row(answer) for answer in answers), key=itemgetter(0, 1))
    insert_new(connection, schema.shadow_answers, SHADOW_COLUMNS, rows)


def write_feedback(
    database: Database, events: Sequence[Feedback], window_us: int
) -> list[FeedbackOutcome]:
    """Join the events, outside the write transaction, and insert new ones; return outcomes."""
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
                # Another process has stored them meanwhile.
                outcomes, _ = _outcomes(joined, stored | _stored(connection, lost))
    return outcomes


def _outcomes(
    joined: Sequence[JoinedEvent], stored: Mapping[str, tuple[Any, ...]]
) -> tuple[list[FeedbackOutcome], dict[str, tuple[Any, ...]]]:
    new: dict[str, tuple[Any, ...]] = {}
    outcomes: list[FeedbackOutcome] = []
    for one in joined:
        event_id = one.event.event_id
        earlier = stored.get(event_id) or new.get(event_id)
        if earlier is not None:
            outcomes.append("duplicate" if one.equals(earlier) else "conflict")
            continue
        outcomes.append(one.outcome)
        if one.outcome in _KEPT:
            new[event_id] = one.row()
    return outcomes, new


def _stored(connection: Connection, event_ids: Collection[str]) -> dict[str, tuple[Any, ...]]:
    columns = [schema.feedback.c[name] for name in _FEEDBACK_COLUMNS]
    found: dict[str, tuple[Any, ...]] = {}
    for part in parts(sorted(event_ids)):
        rows = connection.execute(select(*columns).where(schema.feedback.c.event_id.in_(part)))
        found |= {row.event_id: tuple(row) for row in rows}
    return found
