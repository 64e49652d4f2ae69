"""A sample of the latencies that only grows, until it is halved."""

import numpy as np
from sqlalchemy import Table, func, select
from sqlalchemy.engine import Connection
from sqlalchemy.sql.elements import ColumnElement

from newshelf.rollout.totals import Floats, halvings

__all__ = ["sampled_latencies"]


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
