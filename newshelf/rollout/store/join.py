"""Finds the answer that showed the product of an event."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.engine import Connection
from sqlalchemy.sql.elements import ColumnElement
from sqlalchemy.sql.functions import func

from newshelf.rollout.records import ExposedItem, Feedback
from newshelf.rollout.store.clock import to_us
from newshelf.rollout.store.outcome import Outcome
from newshelf.rollout.store.rows import item_key, ranking_from
from newshelf.rollout.store.schema import exposures

__all__ = ["Joined", "batched", "join"]

_ANSWER = (
    exposures.c.request_id,
    exposures.c.unit,
    exposures.c.rollout,
    exposures.c.variant,
    exposures.c.ranking,
)
_MOST_IDS = 500


@dataclass(frozen=True)
class Joined:
    """An event, and where its product was shown."""

    event: Feedback
    outcome: Outcome
    """As if no other process stored the same event."""
    answer: Any = None
    """The exposure's row, of an event that is ``stored``."""
    shown: ExposedItem | None = None

    def row(self) -> tuple[Any, ...]:
        """The values of the table's columns, from ``event_id`` to ``source``."""
        event, answer, shown = self.event, self.answer, self.shown
        kept = (event.event_id, event.event_type, event.item_id, to_us(event.at))
        if answer is None or shown is None:
            return (*kept, event.unit, event.value, None, None, None, None, None)
        seen = (answer.request_id, answer.rollout, answer.variant, shown.position, shown.source)
        return (*kept, answer.unit, event.value, *seen)


def join(connection: Connection, events: Sequence[Feedback], window_us: int) -> list[Joined]:
    """Join each event by its request, or to its unit's last exposure of the product.

    Args:
        connection: in a transaction.
        events: in the order of the result.
        window_us: an event without a request is joined to exposures from ``at - window`` to
            ``at``, both included.
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
    query = (
        select(*_ANSWER)
        .where(answer.unit == unit, answer.at_us.between(at_us - window_us, at_us))
        .where(_position(connection, item_key(item_id)) > 0)
        .order_by(answer.at_us.desc(), answer.id.desc())
        .limit(1)
    )
    return connection.execute(query).first()


def _position(connection: Connection, text: str) -> ColumnElement[int]:
    """Where ``text`` begins in the ranking, from 1; 0 when it is not there."""
    find = func.instr if connection.dialect.name == "sqlite" else func.strpos
    return find(exposures.c.ranking, text)


def _shown(answer: Any, item_id: str) -> ExposedItem | None:
    return next((item for item in ranking_from(answer.ranking) if item.item_id == item_id), None)
