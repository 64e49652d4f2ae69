"""The rollouts, as their controller keeps them: plan, state, split, and a journal of changes."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import func, insert, select, update
from sqlalchemy.engine import Connection

from newshelf.errors import SettingsError
from newshelf.rollout.split import Split
from newshelf.rollout.store import schema
from newshelf.rollout.store.clock import from_us, now_us
from newshelf.rollout.store.insert import insert_new
from newshelf.rollout.store.lease import holds

__all__ = [
    "JournalEntry",
    "RolloutRow",
    "create_rollout",
    "read_journal",
    "read_rollout",
    "read_rollouts",
    "read_splits",
    "replace_state",
]


@dataclass(frozen=True)
class RolloutRow:
    """One rollout as it is now."""

    name: str
    plan: str
    """As it was given; the store does not read it."""
    state: str
    """The controller's; the store does not read it."""
    split: Split | None
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
    split: Split | None
    note: str
    """Why, in words."""


def create_rollout(
    connection: Connection, name: str, plan: str, state: str, split: Split | None
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
    split: Split | None,
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


def read_splits(connection: Connection) -> list[Split]:
    """Of the rollouts that are being served, oldest first."""
    table = schema.rollouts
    query = (
        select(table.c.split)
        .where(table.c.split.is_not(None))
        .order_by(table.c.created_us, table.c.name)
    )
    return [Split.model_validate_json(text) for text in connection.scalars(query)]


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


def _content(name: str, state: str, split: Split | None) -> dict[str, str | None]:
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


def _split(text: str | None) -> Split | None:
    return None if text is None else Split.model_validate_json(text)
