"""Leases: of several controllers one acts, and a dead one's turn runs out.

All times are the database's, so clocks of the controllers' machines need not agree.
"""

from sqlalchemy import delete, literal, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection

from newshelf.rollout.store.clock import now_us, span_us
from newshelf.rollout.store.schema import leases

__all__ = ["acquire", "holds", "release"]


def acquire(connection: Connection, name: str, holder: str, ttl_s: float) -> bool:
    """Take, or prolong, the lease ``name`` for ``ttl_s`` seconds from now.

    Returns:
        False when another holds it.
    """
    make = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    new = make(leases).values(
        name=name, holder=holder, expires_us=now_us() + literal(span_us(ttl_s))
    )
    taken = new.on_conflict_do_update(
        index_elements=[leases.c.name],
        set_={"holder": new.excluded.holder, "expires_us": new.excluded.expires_us},
        where=(leases.c.holder == new.excluded.holder) | (leases.c.expires_us <= now_us()),
    ).returning(leases.c.holder)
    return connection.execute(taken).first() is not None


def holds(connection: Connection, name: str, holder: str) -> bool:
    """Whether the lease is ``holder``'s; nobody else gets it before this transaction ends."""
    query = (
        select(leases.c.name)
        .where(leases.c.name == name, leases.c.holder == holder, leases.c.expires_us > now_us())
        .with_for_update()
    )
    return connection.execute(query).first() is not None


def release(connection: Connection, name: str, holder: str) -> None:
    """Give the lease back, if it is still ``holder``'s."""
    connection.execute(delete(leases).where(leases.c.name == name, leases.c.holder == holder))
