"""What each unit was shown and did, summed up by the database."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from math import log
from types import MappingProxyType

import numpy as np
from sqlalchemy import and_, func, select
from sqlalchemy.engine import Connection
from sqlalchemy.sql.elements import ColumnElement

from newshelf.rollout.store.health import ANSWERED
from newshelf.rollout.store.schema import exposures, feedback
from newshelf.rollout.totals import Floats, UnitTotals

__all__ = ["EMPTY", "Sums", "sum_by_unit", "totals"]


@dataclass
class Sums:
    """One unit's; the names are those of ``UnitTotals``."""

    requests: float = 0.0
    shown: float = 0.0
    clicks: float = 0.0
    purchases: float = 0.0
    revenue: float = 0.0
    ndcg: float = 0.0
    ndcg_requests: float = 0.0


EMPTY: Mapping[str, Sums] = MappingProxyType({})
_NONE = Sums()
_NAMES = tuple(field.name for field in fields(Sums))


def totals(during: Mapping[str, Sums], before: Mapping[str, Sums]) -> UnitTotals:
    """Arrays with one row for each unit of ``during``."""
    return UnitTotals(
        **_columns(during.values()),
        before=_columns(before.get(unit, _NONE) for unit in during),
    )


def _columns(rows: Iterable[Sums]) -> dict[str, Floats]:
    table = [[getattr(row, name) for name in _NAMES] for row in rows]
    values = np.array(table, dtype=np.float64).reshape(-1, len(_NAMES))
    return {name: values[:, place] for place, name in enumerate(_NAMES)}


def sum_by_unit(
    connection: Connection, shown: ColumnElement[bool], done: ColumnElement[bool]
) -> Mapping[str, Sums]:
    """Sum up exposures and feedback.

    Args:
        connection: in a transaction.
        shown: chooses exposures.
        done: chooses feedback that was joined to an exposure.

    Returns:
        By unit.
    """
    sums = _shown(connection, shown)
    _add_clicks(connection, done, sums)
    _add_purchases(connection, done, sums)
    return sums


def _shown(connection: Connection, shown: ColumnElement[bool]) -> dict[str, Sums]:
    answer = exposures.c
    query = (
        select(
            answer.unit,
            func.count().filter(and_(ANSWERED, answer.shown > 0)),
            func.coalesce(func.sum(answer.shown).filter(ANSWERED), 0),
        )
        .where(shown)
        .group_by(answer.unit)
        .order_by(answer.unit)
    )
    return {
        unit: Sums(requests=requests, shown=products)
        for unit, requests, products in connection.execute(query)
    }


def _add_clicks(connection: Connection, done: ColumnElement[bool], sums: dict[str, Sums]) -> None:
    """Clicks, each once per answer and product, and the NDCG of the answers that have one::

        DCG  = Σ_{clicked positions p} 1 / log2(p + 1)
        NDCG = DCG / Σ_{r = 1 … number of clicked products} 1 / log2(r + 1)

    which is 1 when the clicked products were shown first. (Järvelin & Kekäläinen, 2002:
    Cumulated gain-based evaluation of IR techniques; with binary gains.)
    """
    event = feedback.c
    clicked = (
        select(event.unit, event.request_id, func.min(event.position).label("position"))
        .where(done, event.event_type == "click")
        .group_by(event.unit, event.request_id, event.item_id)
        .subquery()
    )
    answers = (
        select(
            clicked.c.unit,
            func.count().label("clicks"),
            func.sum(log(2) / func.ln(clicked.c.position + 1)).label("dcg"),
        )
        .group_by(clicked.c.unit, clicked.c.request_id)
        .subquery()
    )
    # Answers with as many clicks have the same ideal.
    query = select(
        answers.c.unit, answers.c.clicks, func.count(), func.sum(answers.c.dcg)
    ).group_by(answers.c.unit, answers.c.clicks)
    for unit, clicks, requests, dcg in connection.execute(query):
        mine = sums.setdefault(unit, Sums())
        mine.clicks += clicks * requests
        mine.ndcg += dcg / _ideal_dcg(clicks)
        mine.ndcg_requests += requests


def _ideal_dcg(clicks: int) -> float:
    return float((1 / np.log2(np.arange(2, clicks + 2))).sum())


def _add_purchases(
    connection: Connection, done: ColumnElement[bool], sums: dict[str, Sums]
) -> None:
    event = feedback.c
    query = (
        select(event.unit, func.count(), func.coalesce(func.sum(event.value), 0.0))
        .where(done, event.event_type == "purchase")
        .group_by(event.unit)
    )
    for unit, purchases, revenue in connection.execute(query):
        mine = sums.setdefault(unit, Sums())
        mine.purchases, mine.revenue = purchases, revenue
