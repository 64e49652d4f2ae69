"""Moments as the tables hold them, and the database's own clock."""

from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import BigInteger
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

__all__ = ["from_us", "now_us", "span_us", "to_us"]

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
