"""What each unit was shown and did, summed up by the database."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from functools import lru_cache
from math import log
from operator import attrgetter

import numpy as np
from sqlalchemy import and_, case, func, select
from sqlalchemy.engine import Connection
from sqlalchemy.sql.elements import ColumnElement

from newshelf.rollout.store.health import ANSWERED
from newshelf.rollout.store.schema import exposures, feedback
from newshelf.rollout.totals import Floats, UnitTotals

__all__ = ["Key", "Sums", "sum_up", "totals", "whatever_variant"]

Key = tuple[str, str]
"""Variant and unit."""


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


_NONE = Sums()
_MOST_VALUE = 1e15
"""Of a purchase. The gateway's own limit is lower, but older events had none: PostgreSQL cannot
sum two of 1e308, and refuses to sum the others as well."""
_NAMES = tuple(field.name for field in fields(Sums))
_values = attrgetter(*_NAMES)


def totals(during: Mapping[str, Sums], before: Mapping[str, Sums]) -> UnitTotals:
    """Arrays with one row for each unit of ``during``."""
    return UnitTotals(
        **_columns(during.values()),
        before=_columns(before.get(unit, _NONE) for unit in during),
        units=tuple(during),
    )


def _columns(rows: Iterable[Sums]) -> dict[str, Floats]:
    table = list(map(_values, rows))
    values = np.array(table, dtype=np.float64).reshape(-1, len(_NAMES))
    return {name: values[:, place] for place, name in enumerate(_NAMES)}


def whatever_variant(sums: Mapping[Key, Sums]) -> dict[str, Sums]:
    """By unit alone."""
    found: dict[str, Sums] = {}
    for (_, unit), mine in sums.items():
        so_far = found.get(unit, _NONE)
        found[unit] = Sums(**{name: getattr(so_far, name) + getattr(mine, name) for name in _NAMES})
    return found


def sum_up(
    connection: Connection, shown: ColumnElement[bool], done: ColumnElement[bool]
) -> dict[Key, Sums]:
    """Sum up exposures and feedback.

    Args:
        connection: in a transaction.
        shown: chooses exposures.
        done: chooses feedback that was joined to an exposure.
    """
    sums = _shown(connection, shown)
    _add_clicks(connection, done, sums)
    _add_purchases(connection, done, sums)
    return sums


def _shown(connection: Connection, shown: ColumnElement[bool]) -> dict[Key, Sums]:
    answer = exposures.c
    query = (
        select(
            answer.variant,
            answer.unit,
            func.count().filter(and_(ANSWERED, answer.shown > 0)),
            func.coalesce(func.sum(answer.shown).filter(ANSWERED), 0),
        )
        .where(shown)
        .group_by(answer.variant, answer.unit)
    )
    return {
        (variant, unit): Sums(requests=requests, shown=products)
        for variant, unit, requests, products in connection.execute(query)
    }


def _add_clicks(connection: Connection, done: ColumnElement[bool], sums: dict[Key, Sums]) -> None:
    """Clicks, each once per answer and product, and the NDCG of the answers that have one::

        DCG  = Σ_{clicked positions p} 1 / log2(p + 1)
        NDCG = DCG / Σ_{r = 1 … number of clicked products} 1 / log2(r + 1)

    which is 1 when the clicked products were shown first. (Järvelin & Kekäläinen, 2002:
    Cumulated gain-based evaluation of IR techniques; with binary gains.)
    """
    event = feedback.c
    clicked = (
        select(
            event.variant, event.unit, event.request_id, func.min(event.position).label("position")
        )
        .where(done, event.event_type == "click")
        .group_by(event.variant, event.unit, event.request_id, event.item_id)
        .subquery()
    )
    answers = (
        select(
            clicked.c.variant,
            clicked.c.unit,
            func.count().label("clicks"),
            func.sum(log(2) / func.ln(clicked.c.position + 1)).label("dcg"),
        )
        .group_by(clicked.c.variant, clicked.c.unit, clicked.c.request_id)
        .subquery()
    )
    # Answers with as many clicks have the same ideal.
    same = (answers.c.variant, answers.c.unit, answers.c.clicks)
    query = select(*same, func.count(), func.sum(answers.c.dcg)).group_by(*same)
    for variant, unit, clicks, requests, dcg in connection.execute(query):
        mine = sums.setdefault((variant, unit), Sums())
        mine.clicks += clicks * requests
        mine.ndcg += dcg / _ideal_dcg(clicks)
        mine.ndcg_requests += requests


@lru_cache(maxsize=1024)
def _ideal_dcg(clicks: int) -> float:
    return float((1 / np.log2(np.arange(2, clicks + 2))).sum())


def _add_purchases(
    connection: Connection, done: ColumnElement[bool], sums: dict[Key, Sums]
) -> None:
    event = feedback.c
    value = case((event.value > _MOST_VALUE, _MOST_VALUE), else_=event.value)
    query = (
        select(event.variant, event.unit, func.count(), func.coalesce(func.sum(value), 0.0))
        .where(done, event.event_type == "purchase")
        .group_by(event.variant, event.unit)
    )
    for variant, unit, purchases, revenue in connection.execute(query):
        mine = sums.setdefault((variant, unit), Sums())
        mine.purchases, mine.revenue = purchases, revenue
