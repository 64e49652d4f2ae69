"""Tables of the event store, and their rows: conversion from and to records, and bulk inserts.

Times are microseconds since 1970, UTC, so that both databases compare them alike. A change here
needs a migration in ``migrations/versions``; a test compares the two. The first migration makes the
tables from here; a later one that changes a table moves the old definition there.

Each statement hands over the GIL, and a busy event loop may delay a writer that waits for it. So
one statement inserts up to 64 rows; there are few distinct statements, and both drivers keep
them prepared.
"""

import math
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import chain
from operator import attrgetter
from typing import Any, TypeVar

import orjson
from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Dialect,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.engine import Connection
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from newshelf.store.records import ExposedItem, Exposure, ShadowAnswer, StoredFeedback

METADATA = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
    }
)

# SQLite generates ids only for a column of type INTEGER.
_Number = BigInteger().with_variant(Integer(), "sqlite")

exposures = Table(
    "exposures",
    METADATA,
    Column("id", _Number, primary_key=True),
    Column("request_id", Text, nullable=False, unique=True),
    Column("unit", Text, nullable=False),
    Column("at_us", BigInteger, nullable=False),
    Column("rollout", Text),
    Column("variant", Text, nullable=False),
    Column("model_version", Text, nullable=False),
    Column("index_version", Text, nullable=False),
    Column("fallback", Boolean, nullable=False),
    Column("status", Integer, nullable=False),
    Column("latency_ms", Double, nullable=False),
    Column("shown", Integer, nullable=False),
    # One row per answer, not per product: a tenth of the rows on the hot path.
    # JSON: [[item_id, position, score, source, propensity], …]
    Column("ranking", Text, nullable=False),
    Column("placement", Text),
    Column("kind", Text),
    # JSON: {rule: [position, …]}; null when no rule touched the answer.
    Column("rules", Text),
    Index(None, "unit", "at_us"),
    # At a step of 1 %, 98 of 100 answers are the default variant's, which no analysis reads.
    Index(None, "rollout", "variant", "at_us"),
)

feedback = Table(
    "feedback",
    METADATA,
    Column("id", _Number, primary_key=True),
    Column("event_id", Text, nullable=False, unique=True),
    Column("event_type", Text, nullable=False),
    Column("item_id", Text, nullable=False),
    Column("at_us", BigInteger, nullable=False),
    Column("unit", Text, nullable=False),
    Column("value", Double),
    # From the exposure; null when no answer showed the product.
    Column("request_id", Text),
    Column("rollout", Text),
    Column("variant", Text),
    Column("position", Integer),
    Column("source", Text),
    # Of the key through which the gateway got it; null for older events.
    Column("key_name", Text),
    Index(None, "unit", "at_us"),
    Index(None, "rollout", "variant", "at_us"),
)

rollouts = Table(
    "rollouts",
    METADATA,
    Column("name", Text, primary_key=True),
    Column("plan", Text, nullable=False),
    Column("state", Text, nullable=False),
    # JSON of a TrafficSplit; null before the start and after the end.
    Column("split", Text),
    Column("revision", Integer, nullable=False),
    Column("created_us", BigInteger, nullable=False),
    Column("updated_us", BigInteger, nullable=False),
)

journal = Table(
    "journal",
    METADATA,
    Column("id", _Number, primary_key=True),
    Column("rollout", Text, ForeignKey("rollouts.name"), nullable=False),
    Column("revision", Integer, nullable=False),
    Column("at_us", BigInteger, nullable=False),
    Column("state", Text, nullable=False),
    Column("split", Text),
    Column("note", Text, nullable=False),
    UniqueConstraint("rollout", "revision"),
)

looks = Table(
    "looks",
    METADATA,
    Column("id", _Number, primary_key=True),
    Column("rollout", Text, ForeignKey("rollouts.name"), nullable=False),
    Column("at_us", BigInteger, nullable=False),
    Column("look", Text, nullable=False),
    Index(None, "rollout", "at_us"),
)

leases = Table(
    "leases",
    METADATA,
    Column("name", Text, primary_key=True),
    Column("holder", Text, nullable=False),
    Column("expires_us", BigInteger, nullable=False),
)

# Hosts with a model server, each leased by its controller.
hosts = Table(
    "hosts",
    METADATA,
    Column("name", Text, primary_key=True),
    Column("holder", Text, nullable=False),
    Column("expires_us", BigInteger, nullable=False),
    # JSON of the holder's last look at a rollout.
    Column("report", Text),
)

# The version that answers whom no split assigns: one row, from the first promotion on.
served = Table(
    "served",
    METADATA,
    Column("model", Text, primary_key=True),
    Column("version", Text, nullable=False),
)

shadow_answers = Table(
    "shadow_answers",
    METADATA,
    Column("id", _Number, primary_key=True),
    Column("rollout", Text, nullable=False),
    Column("request_id", Text, nullable=False),
    Column("at_us", BigInteger, nullable=False),
    Column("latency_ms", Double, nullable=False),
    Column("error", Boolean, nullable=False),
    Column("overlap", Double),
    Column("score_drift", Double),
    UniqueConstraint("rollout", "request_id"),
    Index(None, "rollout", "at_us"),
)

items = Table(
    "items",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("revision", Integer, nullable=False),
    # Place in the order of all changes; 0 for a product that the first base index was made with.
    Column("seq", BigInteger, nullable=False),
    # JSON of the product's columns, canonical and others, without its picture.
    Column("body", Text, nullable=False),
    # sha256:HEX, in ``pictures``, or file:/PATH, in a catalogue of this host.
    Column("picture", Text),
    Column("deleted", Boolean, nullable=False),
    Column("updated_us", BigInteger, nullable=False),
    # SHA-256 of what the encoder read of it in the catalogue; null for a product that came later.
    Column("seeded", Text),
    Index(None, "seq"),
)

pictures = Table(
    "pictures",
    METADATA,
    Column("sha256", Text, primary_key=True),
    Column("bytes", LargeBinary, nullable=False),
)

# Vectors of a product's revision, made by the encoder of a model version.
encoded = Table(
    "encoded",
    METADATA,
    Column("version", Text, primary_key=True),
    Column("item_id", Text, primary_key=True),
    Column("revision", Integer, nullable=False),
    Column("seq", BigInteger, nullable=False),
    # SHA-256 of all that the encoder reads, so that a change of stock needs no encoding.
    Column("inputs", Text, nullable=False),
    # float32; null when the product could not be encoded.
    Column("embedding", LargeBinary),
    Column("vector", LargeBinary),
    # Why its picture, or the whole product, could not be encoded.
    Column("problem", Text),
    Index(None, "version", "seq"),
)

# Up to which change a host's workers know the products, by model version.
shelves = Table(
    "shelves",
    METADATA,
    Column("host", Text, primary_key=True),
    Column("version", Text, primary_key=True),
    Column("seq", BigInteger, nullable=False),
    Column("at_us", BigInteger, nullable=False),
)

# A visitor who logged in: what ``visitor`` did is ``unit``'s.
unit_merges = Table(
    "unit_merges",
    METADATA,
    Column("visitor", Text, primary_key=True),
    Column("unit", Text, nullable=False),
    Column("at_us", BigInteger, nullable=False),
    Index(None, "unit"),
)

# SHA-256 of the ids of erased units, whose late events are refused.
erased_units = Table(
    "erased_units",
    METADATA,
    Column("digest", Text, primary_key=True),
    Column("at_us", BigInteger, nullable=False),
)

# Units that count although they behave like robots.
released_units = Table(
    "released_units",
    METADATA,
    Column("unit", Text, primary_key=True),
    Column("at_us", BigInteger, nullable=False),
)


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def to_us(moment: datetime) -> int:
    """Return microseconds since 1970, UTC. A time without a time zone is UTC."""
    aware = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    return (aware - _EPOCH) // _MICROSECOND


def from_us(microseconds: int) -> datetime:
    """Return the time in UTC."""
    return _EPOCH + timedelta(microseconds=microseconds)


def span_us(span_s: float) -> int:
    """Return seconds in whole microseconds."""
    return round(span_s * 1e6)


class now_us(FunctionElement[int]):  # noqa: N801 - reads like the SQL function that it is
    """The database's clock in microseconds since 1970: one clock for all processes."""

    type = BigInteger()
    inherit_cache = True


@compiles(now_us, "sqlite")
def _sqlite(_element: now_us, _compiler: Any, **_: Any) -> str:
    # Exact to the millisecond.
    return "CAST(ROUND((julianday('now') - 2440587.5) * 86400000.0) AS INTEGER) * 1000"


@compiles(now_us, "postgresql")
def _postgresql(_element: now_us, _compiler: Any, **_: Any) -> str:
    # Not now(), which is the start of the transaction.
    return "CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000000 AS BIGINT)"


_SAME = ("rollout", "variant", "model_version", "index_version", "fallback", "status", "latency_ms")
_SHOWN = ("shown", "ranking", "placement", "kind", "rules")
EXPOSURE_COLUMNS = ("request_id", "unit", "at_us", *_SAME, *_SHOWN)
"""Columns in the order of the table."""
_same = attrgetter(*_SAME)


def exposure_row(answer: Exposure) -> tuple[Any, ...]:
    """Return the values of ``EXPOSURE_COLUMNS``."""
    ranking = len(answer.items), ranking_text(answer.items)
    rules = orjson.dumps(answer.rules).decode() if answer.rules else None
    shown = (*ranking, answer.placement, answer.kind, rules)
    return (answer.request_id, answer.unit, to_us(answer.at), *_same(answer), *shown)


def exposure(row: Any) -> Exposure:
    """Return the record of a row with ``EXPOSURE_COLUMNS`` as attributes."""
    return Exposure(
        request_id=row.request_id,
        unit=row.unit,
        at=from_us(row.at_us),
        **dict(zip(_SAME, _same(row), strict=True)),
        items=ranking_from(row.ranking),
        placement=row.placement,
        kind=row.kind,
        rules=orjson.loads(row.rules) if row.rules else {},
    )


_STORED_COLUMNS = tuple(StoredFeedback.__dataclass_fields__)


def stored_feedback(row: Any) -> StoredFeedback:
    """Return the record of a row of ``feedback``."""
    values = {**row._mapping, "at": from_us(row.at_us)}
    return StoredFeedback(**{name: values[name] for name in _STORED_COLUMNS})


SHADOW_COLUMNS = ("rollout", "request_id", "at_us", "latency_ms", "error", "overlap", "score_drift")


def shadow_row(answer: ShadowAnswer) -> tuple[object, ...]:
    """Return the values of ``SHADOW_COLUMNS``."""
    values = {**vars(answer), "at_us": to_us(answer.at)}
    return tuple(values[name] for name in SHADOW_COLUMNS)


def ranking_text(items: Sequence[ExposedItem]) -> str:
    """Return ``[[item_id, position, score, source, propensity], …]``; null for a NaN score."""
    return orjson.dumps(
        [(item.item_id, item.position, item.score, item.source, item.propensity) for item in items]
    ).decode()


def ranking_from(text: str) -> tuple[ExposedItem, ...]:
    """Return the items of ``ranking_text``."""
    shown = ([math.nan if value is None else value for value in row] for row in orjson.loads(text))
    names = tuple(ExposedItem.model_fields)
    return tuple(ExposedItem(**dict(zip(names, row, strict=True))) for row in shown)


def item_key(item_id: str) -> str:
    """Return what ``ranking_text`` has only where the product was shown: JSON escapes quotes."""
    return f"[{orjson.dumps(item_id).decode()},"


def insert_into(database: str, table: Table) -> Any:
    """Return an insert that takes a clause for conflicts; ``database`` is a dialect's name."""
    return postgresql.insert(table) if database == "postgresql" else sqlite.insert(table)


def replacing(database: str, table: Table, *, in_order_of: str | None = None) -> Any:
    """Return an insert that replaces the row of an equal primary key.

    A row whose column ``in_order_of`` is larger stays.
    """
    new = insert_into(database, table)
    return new.on_conflict_do_update(
        index_elements=[*table.primary_key],
        set_={one.name: new.excluded[one.name] for one in table.c if not one.primary_key},
        where=None if in_order_of is None else table.c[in_order_of] <= new.excluded[in_order_of],
    )


_MOST_IDS = 1_000
_Value = TypeVar("_Value")


def parts(values: Sequence[_Value]) -> Iterator[Sequence[_Value]]:
    """Yield the values, as many at a time as one query may name."""
    return (values[start : start + _MOST_IDS] for start in range(0, len(values), _MOST_IDS))


MOST_ROWS = 64
"""Maximum rows of one insert statement."""
_BY_PLACE: dict[str, Dialect] = {
    "sqlite": sqlite.dialect(paramstyle="qmark"),
    "postgresql": PGDialect_psycopg(paramstyle="format"),  # type: ignore[no-untyped-call]
}
"""Dialects with positional parameters; SQLAlchemy's default names those of PostgreSQL."""


def insert_new(
    connection: Connection,
    table: Table,
    columns: Sequence[str],
    rows: Sequence[tuple[Any, ...]],
    *,
    returning: str | None = None,
) -> list[Any]:
    """Insert the rows whose unique columns are new; return the inserted values of ``returning``.

    Sort the rows by a unique column, so that two transactions never wait for each other.
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
    """Return SQL for at most ``MOST_ROWS`` rows, and the values of its placeholders."""
    sql = _statement(dialect.name, table, tuple(columns), len(rows), returning)
    return sql, tuple(chain.from_iterable(rows))


@lru_cache(maxsize=1024)
def _statement(
    database: str, table: Table, columns: tuple[str, ...], rows: int, returning: str | None
) -> str:
    before, row, after = _compiled(database, table, columns, returning)
    return before + ", ".join([row] * rows) + after


@lru_cache
def _compiled(
    database: str, table: Table, columns: tuple[str, ...], returning: str | None
) -> tuple[str, str, str]:
    """Return the SQL before, for, and after the values of a row: compiling takes milliseconds."""
    # The text has placeholders, not values.
    statement = (
        insert_into(database, table).values(dict.fromkeys(columns, "")).on_conflict_do_nothing()
    )
    dialect = _BY_PLACE[database]
    text = str(
        statement.compile(dialect=dialect)
        if returning is None
        else statement.returning(table.c[returning]).compile(dialect=dialect)
    )
    head, values, rest = text.partition(" VALUES ")
    row, conflict, tail = rest.partition(" ON CONFLICT ")
    return head + values, row, conflict + tail
