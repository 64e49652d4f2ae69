"""How a variant served."""

from typing import Any

from sqlalchemy import and_, cast, func, or_, select, true
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.engine import Connection
from sqlalchemy.sql.elements import ColumnElement

from newshelf.rollout.store.sample import sampled_latencies
from newshelf.rollout.store.schema import exposures
from newshelf.rollout.totals import VariantHealth

__all__ = ["ANSWERED", "variant_health"]

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
