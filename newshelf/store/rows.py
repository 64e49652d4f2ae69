"""Records ↔ rows of the tables.

Moments as the tables hold them, and the database's own clock.

Many rows in few statements, each kept once.

Every statement that runs costs a hand-over of Python's lock, for which a busy event loop may
keep the writer waiting: so up to 64 rows are one statement. There are few texts of statements,
and both drivers keep them prepared.
"""

import math
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import chain
from typing import Any

import orjson
from sqlalchemy import BigInteger, Dialect, Table
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.engine import Connection
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from newshelf.store.records import ExposedItem, Exposure

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def to_us(moment: datetime) -> int:
    """Microseconds since 1970, UTC. A moment without a time zone is taken as UTC."""
    aware = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    return (aware - _EPOCH) // _MICROSECOND


def from_us(microseconds: int) -> datetime:
    """The moment, in UTC."""
    return _EPOCH + timedelta(microseconds=microseconds)


def span_us(span_s: float) -> int:
    """Seconds → whole microseconds."""
    return round(span_s * 1e6)


class now_us(FunctionElement[int]):  # noqa: N801 - reads like the SQL function that it is
    """The database's clock in microseconds since 1970: one clock for all controllers."""

    type = BigInteger()
    inherit_cache = True


@compiles(now_us, "sqlite")
def _sqlite(_element: now_us, _compiler: Any, **_: Any) -> str:
    # Exact to the millisecond.
    return "CAST(ROUND((julianday('now') - 2440587.5) * 86400000.0) AS INTEGER) * 1000"


@compiles(now_us, "postgresql")
def _postgresql(_element: now_us, _compiler: Any, **_: Any) -> str:
    # Not now(): that is the moment at which the transaction began.
    return "CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000000 AS BIGINT)"


EXPOSURE_COLUMNS = (
    "request_id",
    "unit",
    "at_us",
    "rollout",
    "variant",
    "model_version",
    "index_version",
    "fallback",
    "status",
    "latency_ms",
    "shown",
    "ranking",
)
"""The order of ``exposure_row``."""


def exposure_row(answer: Exposure) -> tuple[Any, ...]:
    """The values of ``EXPOSURE_COLUMNS``."""
    return (
        answer.request_id,
        answer.unit,
        to_us(answer.at),
        answer.rollout,
        answer.variant,
        answer.model_version,
        answer.index_version,
        answer.fallback,
        answer.status,
        answer.latency_ms,
        len(answer.items),
        ranking_text(answer.items),
    )


def exposure(row: Any) -> Exposure:
    """The record of a row that has ``EXPOSURE_COLUMNS`` as attributes."""
    return Exposure(
        request_id=row.request_id,
        unit=row.unit,
        at=from_us(row.at_us),
        rollout=row.rollout,
        variant=row.variant,
        model_version=row.model_version,
        index_version=row.index_version,
        fallback=row.fallback,
        status=row.status,
        latency_ms=row.latency_ms,
        items=ranking_from(row.ranking),
    )


def ranking_text(items: Sequence[ExposedItem]) -> str:
    """``[[item_id, position, score, source, propensity], …]`` as JSON.

    JSON has no infinities: a score that is not finite is null, and read back as NaN.
    """
    return orjson.dumps(
        [(item.item_id, item.position, item.score, item.source, item.propensity) for item in items]
    ).decode()


def ranking_from(text: str) -> tuple[ExposedItem, ...]:
    """What ``ranking_text`` wrote."""
    return tuple(
        ExposedItem(
            item_id=item_id,
            position=position,
            score=math.nan if score is None else score,
            source=source,
            propensity=propensity,
        )
        for item_id, position, score, source, propensity in orjson.loads(text)
    )


def item_key(item_id: str) -> str:
    """What stands in ``ranking_text`` where the product was shown, and nowhere else.

    Within a JSON string a quote has a backslash before it, so no source or id can hold it.
    """
    return f"[{orjson.dumps(item_id).decode()},"


MOST_ROWS = 64
"""That one statement inserts."""
_BY_PLACE: dict[str, Dialect] = {
    "sqlite": sqlite.dialect(paramstyle="qmark"),
    "postgresql": PGDialect_psycopg(paramstyle="format"),  # type: ignore[no-untyped-call]
}
"""SQLAlchemy itself would name the values of PostgreSQL."""


def insert_new(
    connection: Connection,
    table: Table,
    columns: Sequence[str],
    rows: Sequence[tuple[Any, ...]],
    *,
    returning: str | None = None,
) -> list[Any]:
    """Insert the rows whose unique columns are not there yet.

    Args:
        connection: in a transaction.
        table: where to.
        columns: their names.
        rows: their values, in the same order. Give them in the order of a unique column, so
            that two transactions never wait for each other.
        returning: a column.

    Returns:
        Its values, of the rows that were inserted; nothing when no column is asked for.
    """
    returned: list[Any] = []
    for start in range(0, len(rows), MOST_ROWS):
        group = rows[start : start + MOST_ROWS]
        sql, values = insert_statement(connection.dialect, table, columns, group, returning)
        result = connection.exec_driver_sql(sql, values)
        if returning is not None:
            returned += result.scalars().all()
    return returned


def insert_statement(
    dialect: Dialect,
    table: Table,
    columns: Sequence[str],
    rows: Sequence[tuple[Any, ...]],
    returning: str | None = None,
) -> tuple[str, tuple[Any, ...]]:
    """One statement for ``MOST_ROWS`` at most; arguments as of ``insert_new``.

    Returns:
        SQL with the driver's placeholders, and the values for them.
    """
    sql = _statement(dialect.name, table, tuple(columns), len(rows), returning)
    return sql, tuple(chain.from_iterable(rows))


@lru_cache(maxsize=1024)
def _statement(
    database: str, table: Table, columns: tuple[str, ...], rows: int, returning: str | None
) -> str:
    before, row, after = _parts(database, table, columns, returning)
    return before + ", ".join([row] * rows) + after


@lru_cache
def _parts(
    database: str, table: Table, columns: tuple[str, ...], returning: str | None
) -> tuple[str, str, str]:
    """What stands before, for, and after the values of a row.

    SQLAlchemy would write many rows too, but takes milliseconds for a text, and there is one for
    each number of rows: just the first burst, which brings new numbers, would wait for them.
    """
    make = postgresql.insert if database == "postgresql" else sqlite.insert
    # The values are not in the text, only their places.
    statement = make(table).values(dict.fromkeys(columns, "")).on_conflict_do_nothing()
    dialect = _BY_PLACE[database]
    text = str(
        statement.compile(dialect=dialect)
        if returning is None
        else statement.returning(table.c[returning]).compile(dialect=dialect)
    )
    head, values, rest = text.partition(" VALUES ")
    row, conflict, tail = rest.partition(" ON CONFLICT ")
    return head + values, row, conflict + tail
