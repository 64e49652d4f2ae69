"""Sums up a rollout for its analysis: by unit for the metrics, by variant for the guardrails.

What each unit was shown and did, summed up by the database.

How a variant served.

Clicks on interleaved answers, by the team that had drafted the product.

What the challenger answered to copies of requests, beside control's answer.

A sample of the latencies that only grows, until it is halved.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from functools import lru_cache
from math import log
from operator import attrgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import Table, and_, case, cast, func, or_, select, true
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.engine import Connection
from sqlalchemy.sql.elements import ColumnElement

from newshelf.catalog.schema import Id
from newshelf.store.records import Floats, TrafficSplit, UnitTotals, VariantHealth, halvings
from newshelf.store.rows import span_us, to_us
from newshelf.store.schema import exposures, feedback, journal, shadow_answers

_TEAMS = ("control", "challenger")


def team_credits(connection: Connection, rollout: str) -> Mapping[str, NDArray[np.float64]]:
    """``(units,)`` clicked products of each team, each once per answer; empty without a click.

    The gateway writes the team before the source: ``challenger/model``.
    """
    event = feedback.c
    clicked = (
        select(event.unit, event.source)
        .where(
            event.rollout == rollout,
            event.variant == "interleaved",
            event.event_type == "click",
        )
        .group_by(event.unit, event.request_id, event.item_id, event.source)
        .subquery()
    )
    by_team = [
        func.sum(case((clicked.c.source.startswith(f"{team}/", autoescape=True), 1), else_=0))
        for team in _TEAMS
    ]
    rows = connection.execute(select(*by_team).group_by(clicked.c.unit).order_by(clicked.c.unit))
    table = np.array([tuple(row) for row in rows], dtype=np.float64).reshape(-1, len(_TEAMS))
    return {team: table[:, place] for place, team in enumerate(_TEAMS)} if len(table) else {}


def sampled_latencies(
    connection: Connection, table: Table, rows: int, *chosen: ColumnElement[bool]
) -> Floats:
    """``(n,)``: latencies of the chosen rows, or of those that the hash of their request chose.

    Each look finds the rows of the look before, and some more, until ``halvings`` takes every
    other one away: the bounds of ``quantiles`` hold for a sample that grows.

    Args:
        connection: in a transaction.
        table: with ``request_id`` and ``latency_ms``.
        rows: that are chosen.
        chosen: which they are.
    """
    query = select(table.c.latency_ms).where(*chosen)
    if halved := halvings(rows):
        by_name = func.crc32 if connection.dialect.name == "sqlite" else func.hashtext
        query = query.where(by_name(table.c.request_id).bitwise_and(2**halved - 1) == 0)
    return np.array(connection.scalars(query).all(), dtype=np.float64)


_answer = exposures.c
_ERROR_STATUS = 500
ANSWERED: ColumnElement[bool] = _answer.status < _ERROR_STATUS
"""The shopper's front end got an answer."""


def variant_health(connection: Connection, chosen: ColumnElement[bool]) -> VariantHealth:
    """Sum up the chosen exposures.

    An answer of the fallback counts as an error too: the shopper saw none, but the variant's
    model did not answer.
    """
    counts = connection.execute(
        select(
            func.count().label("requests"),
            func.count().filter(or_(~ANSWERED, _answer.fallback)).label("errors"),
            func.count().filter(_answer.fallback).label("fallbacks"),
            func.count().filter(and_(ANSWERED, _answer.shown == 0)).label("empty"),
            func.count(_answer.unit.distinct()).label("units"),
        ).where(chosen)
    ).one()
    return VariantHealth(
        requests=counts.requests,
        errors=counts.errors,
        fallbacks=counts.fallbacks,
        empty=counts.empty,
        latencies_ms=sampled_latencies(connection, exposures, counts.requests, chosen),
        items=_items(connection, chosen),
        units=counts.units,
    )


def _items(connection: Connection, chosen: ColumnElement[bool]) -> dict[str, int]:
    """How often each product was shown."""
    products, item_id = _products(connection)
    query = (
        select(item_id, func.count())
        .select_from(exposures.join(products, true()))
        .where(chosen)
        .group_by(item_id)
    )
    return {row[0]: row[1] for row in connection.execute(query)}


def _products(connection: Connection) -> tuple[Any, ColumnElement[str]]:
    """One row for each product of a ranking, and its id."""
    if connection.dialect.name == "sqlite":
        rows = func.json_each(_answer.ranking).table_valued("value")
        return rows, func.json_extract(rows.c.value, "$[0]")
    products = func.jsonb_array_elements(cast(_answer.ranking, JSONB)).table_valued("value")
    lateral = products.render_derived()
    return lateral, func.jsonb_array_element_text(lateral.c.value, 0)


Key = tuple[str, str]
"""Variant and unit."""


@dataclass
class UnitSums:
    """One unit's; the names are those of ``UnitTotals``."""

    requests: float = 0.0
    shown: float = 0.0
    clicks: float = 0.0
    purchases: float = 0.0
    revenue: float = 0.0
    ndcg: float = 0.0
    ndcg_requests: float = 0.0


_NONE = UnitSums()
_MOST_VALUE = 1e15
"""Of a purchase. The gateway's own limit is lower, but older events had none: PostgreSQL cannot
sum two of 1e308, and refuses to sum the others as well."""
_NAMES = tuple(field.name for field in fields(UnitSums))
_values = attrgetter(*_NAMES)


def totals(during: Mapping[str, UnitSums], before: Mapping[str, UnitSums]) -> UnitTotals:
    """Arrays with one row for each unit of ``during``."""
    return UnitTotals(
        **_columns(during.values()),
        before=_columns(before.get(unit, _NONE) for unit in during),
        units=tuple(during),
    )


def _columns(rows: Iterable[UnitSums]) -> dict[str, Floats]:
    table = list(map(_values, rows))
    values = np.array(table, dtype=np.float64).reshape(-1, len(_NAMES))
    return {name: values[:, place] for place, name in enumerate(_NAMES)}


def whatever_variant(sums: Mapping[Key, UnitSums]) -> dict[str, UnitSums]:
    """By unit alone."""
    found: dict[str, UnitSums] = {}
    for (_, unit), mine in sums.items():
        so_far = found.get(unit, _NONE)
        found[unit] = UnitSums(
            **{name: getattr(so_far, name) + getattr(mine, name) for name in _NAMES}
        )
    return found


def sum_up(
    connection: Connection, shown: ColumnElement[bool], done: ColumnElement[bool]
) -> dict[Key, UnitSums]:
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


def _shown(connection: Connection, shown: ColumnElement[bool]) -> dict[Key, UnitSums]:
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
        (variant, unit): UnitSums(requests=requests, shown=products)
        for variant, unit, requests, products in connection.execute(query)
    }


def _add_clicks(
    connection: Connection, done: ColumnElement[bool], sums: dict[Key, UnitSums]
) -> None:
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
        mine = sums.setdefault((variant, unit), UnitSums())
        mine.clicks += clicks * requests
        mine.ndcg += dcg / _ideal_dcg(clicks)
        mine.ndcg_requests += requests


@lru_cache(maxsize=1024)
def _ideal_dcg(clicks: int) -> float:
    return float((1 / np.log2(np.arange(2, clicks + 2))).sum())


def _add_purchases(
    connection: Connection, done: ColumnElement[bool], sums: dict[Key, UnitSums]
) -> None:
    event = feedback.c
    value = case((event.value > _MOST_VALUE, _MOST_VALUE), else_=event.value)
    query = (
        select(event.variant, event.unit, func.count(), func.coalesce(func.sum(value), 0.0))
        .where(done, event.event_type == "purchase")
        .group_by(event.variant, event.unit)
    )
    for variant, unit, purchases, revenue in connection.execute(query):
        mine = sums.setdefault((variant, unit), UnitSums())
        mine.purchases, mine.revenue = purchases, revenue


_COMPARED = ("control", "challenger")
_IN_EXPERIMENT = (*_COMPARED, "interleaved")


@dataclass(frozen=True, eq=False)
class Observed:
    """What the store can tell for an ``Observation``.

    By variant: ``control`` and ``challenger`` always, ``interleaved`` when it was served.
    Testers' units (the overrides of the rollout's splits) are in none of it.
    """

    totals: Mapping[str, UnitTotals]
    health: Mapping[str, VariantHealth]
    double_exposed: int
    """Units that were seen as control, and as challenger or interleaved too. (A unit may go
    from interleaved to challenger: both are the challenger's share.)"""


def observe(
    connection: Connection, name: str, *, step_since: datetime, before_window_s: float
) -> Observed:
    """Sum up one rollout; see ``EventStore.observe``."""
    testers = sorted(_testers(connection, name))
    counted = and_(
        exposures.c.rollout == name,
        exposures.c.variant.in_(_IN_EXPERIMENT),
        exposures.c.unit.not_in(testers),
    )
    done = and_(
        feedback.c.rollout == name,
        feedback.c.variant.in_(_IN_EXPERIMENT),
        feedback.c.unit.not_in(testers),
    )
    during: dict[str, dict[str, UnitSums]] = {variant: {} for variant in _COMPARED}
    for (variant, unit), mine in sum_up(connection, counted, done).items():
        during.setdefault(variant, {})[unit] = mine
    before = _before(connection, counted, span_us(before_window_s))
    in_step = and_(counted, exposures.c.at_us >= to_us(step_since))
    treated = during["challenger"].keys() | during.get("interleaved", {}).keys()
    return Observed(
        totals={variant: totals(sums, before) for variant, sums in during.items()},
        health={
            variant: variant_health(connection, and_(in_step, exposures.c.variant == variant))
            for variant in during
        },
        double_exposed=len(during["control"].keys() & treated),
    )


def _testers(connection: Connection, name: str) -> set[str]:
    """Units that were ever overridden: the rollout's end takes its split away."""
    query = select(journal.c.split).where(journal.c.rollout == name, journal.c.split.is_not(None))
    splits = connection.scalars(query.distinct())
    return {unit for text in splits for unit in TrafficSplit.model_validate_json(text).overrides}


def _before(
    connection: Connection, counted: ColumnElement[bool], window_us: int
) -> Mapping[str, UnitSums]:
    """Of the counted units, in the window that ended with the rollout's first exposure.

    Both what was shown and what was done lie before it: nothing here can be an effect.
    """
    # Not min(), nor of all variants at once: it would look at every answer.
    first_of_all = select(exposures.c.at_us).where(counted).order_by(exposures.c.at_us).limit(1)
    moments = [
        connection.scalar(first_of_all.where(exposures.c.variant == variant))
        for variant in _IN_EXPERIMENT
    ]
    began_us = min((at_us for at_us in moments if at_us is not None), default=None)
    if began_us is None:
        return {}
    units = select(exposures.c.unit).where(counted).scalar_subquery()
    first, last = began_us - window_us, began_us - 1
    shown = and_(exposures.c.at_us.between(first, last), exposures.c.unit.in_(units))
    done = and_(
        feedback.c.at_us.between(first, last),
        feedback.c.request_id.is_not(None),
        feedback.c.unit.in_(units),
    )
    return whatever_variant(sum_up(connection, shown, done))


SHADOW_COLUMNS = (
    "rollout",
    "request_id",
    "at_us",
    "latency_ms",
    "error",
    "overlap",
    "score_drift",
)


class ShadowAnswer(BaseModel):
    """One copied request."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rollout: str = Field(min_length=1, max_length=200)
    request_id: Id
    at: datetime
    latency_ms: float = Field(ge=0)
    """Until the challenger answered, failed, or was given up."""
    error: bool = False
    overlap: float | None = Field(default=None, ge=0, le=1)
    """Share of control's products that the challenger shows too; None when it failed."""
    score_drift: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    """Mean absolute difference of the scores of products that both show, in standard deviations
    of control's scores of this answer; None when there is none, or no deviation."""


def shadow_row(answer: ShadowAnswer) -> tuple[object, ...]:
    """The values of ``SHADOW_COLUMNS``."""
    return (
        answer.rollout,
        answer.request_id,
        to_us(answer.at),
        answer.latency_ms,
        answer.error,
        answer.overlap,
        answer.score_drift,
    )


def summarise_shadow(
    connection: Connection, rollout: str, since: datetime
) -> tuple[dict[str, float], Floats]:
    """``requests``, ``errors``, ``overlap``, ``score_drift`` and ``p99_ms`` since a moment, and
    the latencies, or a sample of them.

    Means are of the answers that have a value; what no answer has is left out. Empty when
    nothing was copied.
    """
    answer = shadow_answers.c
    chosen = (answer.rollout == rollout, answer.at_us >= to_us(since))
    row = connection.execute(
        select(
            func.count().label("requests"),
            func.count().filter(answer.error).label("errors"),
            func.avg(answer.overlap).label("overlap"),
            func.avg(answer.score_drift).label("score_drift"),
        ).where(*chosen)
    ).one()
    if row.requests == 0:
        return {}, np.empty(0)
    latencies_ms = sampled_latencies(connection, shadow_answers, row.requests, *chosen)
    found = {**row._mapping, "p99_ms": float(np.percentile(latencies_ms, 99))}
    return {name: float(value) for name, value in found.items() if value is not None}, latencies_ms
