"""Many rows in few statements, each kept once.

Every statement that runs costs a hand-over of Python's lock, for which a busy event loop may
keep the writer waiting: so up to 64 rows are one statement. There are few texts of statements,
and both drivers keep them prepared.
"""

from collections.abc import Sequence
from functools import lru_cache
from itertools import chain
from typing import Any

from sqlalchemy import Dialect, Table
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.engine import Connection

__all__ = ["MOST_ROWS", "insert_new", "insert_statement"]

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
