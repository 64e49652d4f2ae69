"""Sums of exposures, feedback and shadow answers that a rollout is judged by.

Units are summed up for the metrics, variants for the guardrails, by the database. Every function
takes a connection in a transaction, so that several see one state of the database.
"""

from collections.abc import Collection
from datetime import datetime
from functools import lru_cache
from math import log
from typing import Any

import numpy as np
from sqlalchemy import Table, and_, case, cast, func, or_, select, true
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.engine import Connection
from sqlalchemy.sql.elements import ColumnElement

from newshelf.store.records import Floats, TrafficSplit, UnitTotals, VariantHealth, halvings
from newshelf.store.schema import exposures, feedback, journal, shadow_answers, span_us, to_us

_TEAMS = ("control", "challenger")
_IN_EXPERIMENT = (*_TEAMS, "interleaved")
_ERROR_STATUS = 500
_answer = exposures.c
_ANSWERED: ColumnElement[bool] = _answer.status < _ERROR_STATUS
_MOST_VALUE = 1e15
"""Largest purchase that is summed. The gateway's limit is lower, but older events had none, and
PostgreSQL cannot sum two values of 1e308."""


def unit_totals(
    connection: Connection, rollout: str, *, before_window_s: float
) -> dict[str, UnitTotals]:
    """Return the units' counts by variant, without testers' units.

    ``before_window_s`` is the window of the covariates, before the rollout's first exposure.
    ``control`` and ``challenger`` are always there, ``interleaved`` if it was served.
    """
    shown = _counted(connection, exposures, rollout)
    done = _counted(connection, feedback, rollout)
    during: dict[str, dict[str, _Sums]] = {variant: {} for variant in _TEAMS}
    for (variant, unit), sums in _sum_up(connection, shown, done).items():
        during.setdefault(variant, {})[unit] = sums
    before = _sums_before(connection, shown, span_us(before_window_s))
    return {
        variant: UnitTotals(
            **_columns(sums.values()),
            before=_columns([before.get(unit, {}) for unit in sums]),
            units=tuple(sums),
        )
        for variant, sums in during.items()
    }


def variant_health(
    connection: Connection, rollout: str, variant: str, *, since: datetime
) -> VariantHealth:
    """Return a variant's service quality without testers' units; fallbacks count as errors."""
    counted = _counted(connection, exposures, rollout)
    chosen = and_(counted, _answer.at_us >= to_us(since), _answer.variant == variant)
    counts = connection.execute(
        select(
            func.count().label("requests"),
            func.count().filter(or_(~_ANSWERED, _answer.fallback)).label("errors"),
            func.count().filter(_answer.fallback).label("fallbacks"),
            func.count().filter(and_(_ANSWERED, _answer.shown == 0)).label("empty"),
            func.count(_answer.unit.distinct()).label("units"),
        ).where(chosen)
    ).one()
    return VariantHealth(
        requests=counts.requests,
        errors=counts.errors,
        fallbacks=counts.fallbacks,
        empty=counts.empty,
        latencies_ms=_sampled_latencies(connection, exposures, counts.requests, chosen),
        items=_item_counts(connection, chosen),
        units=counts.units,
    )


def team_credits(connection: Connection, rollout: str) -> dict[str, Floats]:
    """Return ``(units,)`` clicked products by team, each once per answer; empty without a click."""
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


def summarise_shadow(
    connection: Connection, rollout: str, since: datetime
) -> tuple[dict[str, float], Floats]:
    """Return means over a rollout's shadow answers, empty without any; and ``(n,)`` latencies."""
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
    latencies_ms = _sampled_latencies(connection, shadow_answers, row.requests, *chosen)
    found = {**row._mapping, "p99_ms": float(np.percentile(latencies_ms, 99))}
    return {name: float(value) for name, value in found.items() if value is not None}, latencies_ms


def _counted(connection: Connection, table: Table, rollout: str) -> ColumnElement[bool]:
    return and_(
        table.c.rollout == rollout,
        table.c.variant.in_(_IN_EXPERIMENT),
        table.c.unit.not_in(sorted(_testers(connection, rollout))),
    )


def _testers(connection: Connection, rollout: str) -> set[str]:
    """Return the units that were ever overridden: the rollout's last split is None."""
    column = journal.c.split
    query = select(column).where(journal.c.rollout == rollout, column.is_not(None)).distinct()
    splits = map(TrafficSplit.model_validate_json, connection.scalars(query))
    return {unit for split in splits for unit in split.overrides}


def _sampled_latencies(
    connection: Connection, table: Table, rows: int, *chosen: ColumnElement[bool]
) -> Floats:
    """Return ``(n,)`` latencies of the chosen rows, or of a sample by the hash of their request.

    A later look finds the rows of an earlier one and more, until ``halvings`` drops every other
    row: the bounds of ``sequential.lower_quantile`` hold for a sample that grows.
    """
    query = select(table.c.latency_ms).where(*chosen)
    if halved := halvings(rows):
        name_hash = func.crc32 if connection.dialect.name == "sqlite" else func.hashtext
        query = query.where(name_hash(table.c.request_id).bitwise_and(2**halved - 1) == 0)
    return np.array(connection.scalars(query).all(), dtype=np.float64)


def _item_counts(connection: Connection, chosen: ColumnElement[bool]) -> dict[str, int]:
    products, item_id = _products(connection)
    query = (
        select(item_id, func.count())
        .select_from(exposures.join(products, true()))
        .where(chosen)
        .group_by(item_id)
    )
    return {row[0]: row[1] for row in connection.execute(query)}


def _products(connection: Connection) -> tuple[Any, ColumnElement[str]]:
    """Return a table with one row per product of a ranking, and its column of ids."""
    if connection.dialect.name == "sqlite":
        rows = func.json_each(_answer.ranking).table_valued("value")
        return rows, func.json_extract(rows.c.value, "$[0]")
    products = func.jsonb_array_elements(cast(_answer.ranking, JSONB)).table_valued("value")
    lateral = products.render_derived()
    return lateral, func.jsonb_array_element_text(lateral.c.value, 0)


_Key = tuple[str, str]
"""Variant and unit."""


_Sums = dict[str, float]
"""Counts of one unit, by the names of ``UnitTotals``; absent ones are 0."""
_NAMES = ("requests", "shown", "clicks", "purchases", "revenue", "ndcg", "ndcg_requests")


def _columns(rows: Collection[_Sums]) -> dict[str, Floats]:
    return {name: np.array([row.get(name, 0) for row in rows], np.float64) for name in _NAMES}


def _add(sums: _Sums, **values: float) -> None:
    for name, value in values.items():
        sums[name] = sums.get(name, 0.0) + value


def _sums_before(
    connection: Connection, counted: ColumnElement[bool], window_us: int
) -> dict[str, _Sums]:
    """Sum up the counted units by unit, in the window that ends with the first exposure."""
    # Not min(), and not of all variants at once: that would scan every answer.
    first_of_all = select(_answer.at_us).where(counted).order_by(_answer.at_us).limit(1)
    times = [
        connection.scalar(first_of_all.where(_answer.variant == variant))
        for variant in _IN_EXPERIMENT
    ]
    began_us = min((at_us for at_us in times if at_us is not None), default=None)
    if began_us is None:
        return {}
    units = select(_answer.unit).where(counted).scalar_subquery()
    first, last = began_us - window_us, began_us - 1
    shown = and_(_answer.at_us.between(first, last), _answer.unit.in_(units))
    done = and_(
        feedback.c.at_us.between(first, last),
        feedback.c.request_id.is_not(None),
        feedback.c.unit.in_(units),
    )
    by_unit: dict[str, _Sums] = {}
    for (_, unit), sums in _sum_up(connection, shown, done).items():
        _add(by_unit.setdefault(unit, {}), **sums)
    return by_unit


def _sum_up(
    connection: Connection, shown: ColumnElement[bool], done: ColumnElement[bool]
) -> dict[_Key, _Sums]:
    sums = _shown(connection, shown)
    _add_clicks(connection, done, sums)
    _add_purchases(connection, done, sums)
    return sums


def _shown(connection: Connection, shown: ColumnElement[bool]) -> dict[_Key, _Sums]:
    query = (
        select(
            _answer.variant,
            _answer.unit,
            func.count().filter(and_(_ANSWERED, _answer.shown > 0)),
            func.coalesce(func.sum(_answer.shown).filter(_ANSWERED), 0),
        )
        .where(shown)
        .group_by(_answer.variant, _answer.unit)
    )
    return {
        (variant, unit): {"requests": requests, "shown": products}
        for variant, unit, requests, products in connection.execute(query)
    }


def _add_clicks(connection: Connection, done: ColumnElement[bool], sums: dict[_Key, _Sums]) -> None:
    """Add clicks, each once per answer and product, and the NDCG of answers with a click.

    ::

        DCG  = Σ_{clicked positions p} 1 / log2(p + 1)
        NDCG = DCG / Σ_{r = 1 … number of clicked products} 1 / log2(r + 1)

    NDCG is 1 when the clicked products come first. (Järvelin & Kekäläinen, 2002: Cumulated
    gain-based evaluation of IR techniques; with binary gains.)
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
    # Answers with the same number of clicks have the same ideal DCG.
    key = (answers.c.variant, answers.c.unit, answers.c.clicks)
    query = select(*key, func.count(), func.sum(answers.c.dcg)).group_by(*key)
    for variant, unit, clicks, requests, dcg in connection.execute(query):
        unit_sums, ndcg = sums.setdefault((variant, unit), {}), dcg / _ideal_dcg(clicks)
        _add(unit_sums, clicks=clicks * requests, ndcg=ndcg, ndcg_requests=requests)


@lru_cache(maxsize=1024)
def _ideal_dcg(clicks: int) -> float:
    return float((1 / np.log2(np.arange(2, clicks + 2))).sum())


def _add_purchases(
    connection: Connection, done: ColumnElement[bool], sums: dict[_Key, _Sums]
) -> None:
    event = feedback.c
    value = case((event.value > _MOST_VALUE, _MOST_VALUE), else_=event.value)
    query = (
        select(event.variant, event.unit, func.count(), func.coalesce(func.sum(value), 0.0))
        .where(done, event.event_type == "purchase")
        .group_by(event.variant, event.unit)
    )
    for variant, unit, purchases, revenue in connection.execute(query):
        _add(sums.setdefault((variant, unit), {}), purchases=purchases, revenue=revenue)
