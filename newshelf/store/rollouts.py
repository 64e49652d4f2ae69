"""The rollouts, as their controller keeps them: plan, state, split, and a journal of changes.

Leases: of several controllers one acts, and a dead one's turn runs out.

All times are the database's, so clocks of the controllers' machines need not agree.

What the controller saw at each look, kept so that the report can show how it came.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import delete, func, insert, literal, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection

from newshelf.errors import SettingsError
from newshelf.store import schema
from newshelf.store.records import TrafficSplit
from newshelf.store.rows import from_us, insert_new, now_us, span_us
from newshelf.store.schema import leases, looks


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


@dataclass(frozen=True)
class RolloutRow:
    """One rollout as it is now."""

    name: str
    plan: str
    """As it was given; the store does not read it."""
    state: str
    """The controller's; the store does not read it."""
    split: TrafficSplit | None
    """None when nothing is split: not begun, or over."""
    revision: int
    """From 1; each change adds one."""
    created_at: datetime
    updated_at: datetime
    """Both by the database's clock."""


@dataclass(frozen=True)
class JournalEntry:
    """One change of a rollout's state; never edited."""

    rollout: str
    revision: int
    at: datetime
    """By the database's clock."""
    state: str
    split: TrafficSplit | None
    note: str
    """Why, in words."""


def create_rollout(
    connection: Connection, name: str, plan: str, state: str, split: TrafficSplit | None
) -> None:
    """Write down a new rollout, with its first line in the journal.

    Raises:
        SettingsError: there is one of this name, or the split is of another.
    """
    content = _content(name, state, split)
    now = _next_moment(connection)
    columns = ("name", "plan", "state", "split", "revision", "created_us", "updated_us")
    row = (name, plan, content["state"], content["split"], 1, now, now)
    if not insert_new(connection, schema.rollouts, columns, [row], returning="name"):
        raise SettingsError(
            f"there is a rollout {name} already: give the new one another name", field="name"
        )
    _note(connection, name, 1, content, "created")


def _next_moment(connection: Connection) -> int:
    """Now, or just after the youngest rollout: SQLite's clock counts milliseconds, any clock may
    be set back, and the order of creation must be told by either.
    """
    youngest = select(func.coalesce(func.max(schema.rollouts.c.created_us), 0)).scalar_subquery()
    now, last = connection.execute(select(now_us(), youngest)).one()
    return max(int(now), int(last) + 1)


def replace_state(
    connection: Connection,
    name: str,
    revision: int,
    state: str,
    split: TrafficSplit | None,
    note: str,
    holder: str | None,
) -> bool:
    """Change a rollout if it still has ``revision``; see ``EventStore.replace_state``."""
    if holder is not None and not holds(connection, name, holder):
        return False
    content = _content(name, state, split)
    changed = connection.execute(
        update(schema.rollouts)
        .where(schema.rollouts.c.name == name, schema.rollouts.c.revision == revision)
        .values(**content, revision=revision + 1, updated_us=now_us())
    )
    if changed.rowcount == 0:
        return False
    _note(connection, name, revision + 1, content, note)
    return True


def read_rollout(connection: Connection, name: str) -> RolloutRow:
    """One rollout.

    Raises:
        SettingsError: there is none of this name.
    """
    table = schema.rollouts
    row = connection.execute(select(table).where(table.c.name == name)).first()
    if row is None:
        names = connection.scalars(select(table.c.name).order_by(table.c.created_us)).all()
        raise SettingsError(
            f"there is no rollout {name}; there is {', '.join(names) or 'none at all'}",
            field="name",
        )
    return _rollout(row)


def read_rollouts(connection: Connection) -> list[RolloutRow]:
    """All of them, oldest first."""
    table = schema.rollouts
    query = select(table).order_by(table.c.created_us, table.c.name)
    return [_rollout(row) for row in connection.execute(query)]


def read_splits(connection: Connection) -> list[TrafficSplit]:
    """Of the rollouts that are being served, oldest first."""
    table = schema.rollouts
    query = (
        select(table.c.split)
        .where(table.c.split.is_not(None))
        .order_by(table.c.created_us, table.c.name)
    )
    return [TrafficSplit.model_validate_json(text) for text in connection.scalars(query)]


def read_journal(connection: Connection, name: str) -> list[JournalEntry]:
    """All changes of one rollout, oldest first.

    Raises:
        SettingsError: there is none of this name.
    """
    read_rollout(connection, name)
    table = schema.journal
    query = select(table).where(table.c.rollout == name).order_by(table.c.revision)
    return [
        JournalEntry(
            rollout=row.rollout,
            revision=row.revision,
            at=from_us(row.at_us),
            state=row.state,
            split=_split(row.split),
            note=row.note,
        )
        for row in connection.execute(query)
    ]


def _content(name: str, state: str, split: TrafficSplit | None) -> dict[str, str | None]:
    if split is not None and split.rollout != name:
        raise SettingsError(f"the split is of the rollout {split.rollout}, not of {name}")
    return {"state": state, "split": None if split is None else split.model_dump_json()}


def _note(
    connection: Connection,
    name: str,
    revision: int,
    content: Mapping[str, str | None],
    note: str,
) -> None:
    connection.execute(
        insert(schema.journal).values(
            rollout=name, revision=revision, at_us=now_us(), note=note, **content
        )
    )


def _rollout(row: Any) -> RolloutRow:
    return RolloutRow(
        name=row.name,
        plan=row.plan,
        state=row.state,
        split=_split(row.split),
        revision=row.revision,
        created_at=from_us(row.created_us),
        updated_at=from_us(row.updated_us),
    )


def _split(text: str | None) -> TrafficSplit | None:
    return None if text is None else TrafficSplit.model_validate_json(text)


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
