"""What the controller saw at each look, kept so that the report can show how it came."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, insert, select
from sqlalchemy.engine import Connection

from newshelf.rollout.store.clock import from_us, now_us
from newshelf.rollout.store.schema import looks

__all__ = ["KeptLook", "add_look", "last_look", "read_looks"]


@dataclass(frozen=True)
class KeptLook:
    """One look; never edited."""

    at: datetime
    """By the database's clock."""
    look: str
    """The controller's; the store does not read it."""


def add_look(connection: Connection, rollout: str, look: str) -> None:
    """Keep one more."""
    connection.execute(insert(looks).values(rollout=rollout, at_us=now_us(), look=look))


def read_looks(connection: Connection, rollout: str, most: int) -> list[KeptLook]:
    """Of one rollout, oldest first: all of them, or ``most`` at equal distances.

    The last one is always among them.
    """
    numbered = (
        select(
            looks.c.at_us,
            looks.c.look,
            func.row_number().over(order_by=looks.c.id.desc()).label("place"),
        )
        .where(looks.c.rollout == rollout)
        .subquery()
    )
    count = connection.scalar(select(func.count()).select_from(numbered)) or 0
    every = -(-count // most) or 1
    query = (
        select(numbered.c.at_us, numbered.c.look)
        .where((numbered.c.place - 1) % every == 0)
        .order_by(numbered.c.place.desc())
    )
    return _kept(connection.execute(query).all())


def last_look(connection: Connection, rollout: str) -> KeptLook | None:
    """The newest; None before the first."""
    query = (
        select(looks.c.at_us, looks.c.look)
        .where(looks.c.rollout == rollout)
        .order_by(looks.c.id.desc())
        .limit(1)
    )
    kept = _kept(connection.execute(query).all())
    return kept[0] if kept else None


def _kept(rows: Sequence[tuple[int, str]]) -> list[KeptLook]:
    return [KeptLook(from_us(at_us), look) for at_us, look in rows]
